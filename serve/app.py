"""The wiring of the live service on one screen: `serve run serve.app`, or `serve run configs/serve_gpu.yaml`.

In: Settings, from the `args` of a config file or from key=value on the command line. Out: a Ray Serve application:

    browser, robot, camera ── HTTP proxy ── Gateway ─┬─ Tracker   one tracker per session; sessions are sticky
                                                     ├─ Control   one arm, its loop in its own thread
                                                     └─ Models    named actors: targets, sessions, policy, segmenter …
"""

from __future__ import annotations

from typing import Any

from ray import serve as ray_serve
from ray.serve.config import RequestRouterConfig

from serve import deployments
from serve.sessions import SessionRouter
from serve.settings import settings_of

# Sockets count as requests, and a limit that Serve enforces would make a socket wait in silence: ours answers.
MANY = 100_000


def app(args: dict[str, Any]) -> ray_serve.Application:
    """The application. Ray Serve calls it with the `args` of a config, or with key=value of the command line."""
    settings = settings_of(args)
    tracking = settings.tracking

    def deployed(cls: Any, *, num_gpus: float = 0.0, **options: Any) -> Any:
        # Shares of a processor are for models; these processes wait most of the time.
        resources = {"num_cpus": 0, "num_gpus": num_gpus}
        return ray_serve.deployment(cls, max_ongoing_requests=MANY, ray_actor_options=resources, **options)

    models = deployed(deployments.Models, graceful_shutdown_timeout_s=10).bind(settings)
    tracker = deployed(
        deployments.Tracker,
        num_gpus=tracking.num_gpus,
        num_replicas=tracking.replicas,
        request_router_config=RequestRouterConfig(request_router_class=SessionRouter),
        health_check_period_s=2,
        graceful_shutdown_timeout_s=10,
    ).bind(settings)
    # An arm needs up to 20 s to come to rest.
    control = deployed(deployments.Control, graceful_shutdown_timeout_s=30).bind(settings)
    gateway = deployed(deployments.Gateway, num_replicas=settings.gateways, graceful_shutdown_timeout_s=5)
    return gateway.bind(settings, models, tracker, control)
