"""The processes of the service: thin hosts around the plain classes. app.py says how many there are of each.

In: settings, and handles to each other. Out: deployments for Ray Serve. Each imports only its own part, because every
process pays for what it imports: OpenCV in Tracker, MuJoCo in Control.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray import serve as ray_serve
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.handle import DeploymentHandle

from serve.auth import Gate
from serve.errors import NotReady
from serve.gateway import Services, build_api
from serve.metrics import Metrics
from serve.models import ModelKeeper, Store, imported
from serve.named import Named
from serve.schemas import Frame
from serve.settings import Settings
from serve.track_socket import ReplicaLost

LOST = (ActorDiedError, ActorUnavailableError)


class Models:
    """Owns the named actors: models from the settings, and the service's own three."""

    def __init__(self, settings: Settings) -> None:
        policy = settings.policy
        stores = {
            "targets": Store("serve.targets:TargetStore", (settings,)),
            "sessions": Store("serve.store:SessionStore", (settings.tracking.session_ttl_s,)),
            "policy": Store("serve.served_policy:ServedPolicy", (policy,), policy.num_cpus, policy.num_gpus),
        }
        self._keeper = ModelKeeper(settings.models, stores)

    async def health(self) -> dict[str, dict[str, Any]]:
        """How every actor is."""
        return await self._keeper.health()

    async def __del__(self) -> None:
        """End the actors with the service."""
        self._keeper.close()


class Tracker:
    """Sessions of one replica. See tracking.TrackingHost."""

    def __init__(self, settings: Settings) -> None:
        from serve.tracking import TrackingHost

        tracking, targets = settings.tracking, Named("targets")
        self._host = TrackingHost(
            tracking,
            settings.limits,
            lambda: imported(tracking.backend)(**tracking.arguments),
            Named("sessions", patience_s=1.0),
            lambda target: targets.call("bank", target),
        )
        self._threads = ThreadPoolExecutor(tracking.threads, thread_name_prefix="track")
        self._host.warm_up()

    async def open(self, session: str, targets: Sequence[str]) -> dict[str, Any]:
        """Have the session here."""
        return await self._do(self._host.open, session, targets)

    async def step(self, session: str, picture: Any, captured_ns: int, masks: Any) -> dict[str, Any] | None:
        """One frame."""
        return await self._do(self._host.step, session, picture, captured_ns, masks)

    async def leave(self, session: str, forget: bool) -> None:
        """The client is gone."""
        await self._do(lambda: self._host.leave(session, forget=forget))

    async def pid(self) -> int:
        """Of this process, for whoever tests what happens when it dies."""
        return os.getpid()

    async def _do(self, work: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    async def __del__(self) -> None:
        """Save every session."""
        self._host.close()


class Control:
    """One arm. See control.Controller."""

    def __init__(self, settings: Settings) -> None:
        from serve.control import Controller

        self._controller = Controller(settings.control)

    async def state(self) -> dict[str, Any]:
        """Phase, joints, lateness."""
        return self._controller.state()

    async def glance(self, shown_ns: int) -> tuple[dict[str, Any], tuple[int, bytes] | None]:
        """State, and the newest picture unless it was shown."""
        picture = await asyncio.to_thread(self._controller.picture)
        return self._controller.state(), picture if picture and picture[0] != shown_ns else None

    async def start(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Begin a run."""
        return self._controller.start(**wanted)

    async def stop(self) -> dict[str, Any]:
        """End it at rest."""
        return await asyncio.to_thread(self._controller.stop)

    async def estop(self, reason: str) -> dict[str, Any]:
        """Latch the emergency stop."""
        return self._controller.estop(reason)

    async def __del__(self) -> None:
        """Bring the arm to rest."""
        await asyncio.to_thread(self._controller.close)


class Sessions:
    """The Tracker deployment as track_socket.Tracking: every call of a session goes to its replica."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def open(self, session: str, targets: Sequence[str]) -> dict[str, Any]:
        """See TrackingHost.open."""
        return await self._call(session, "open", session, list(targets))

    async def step(self, session: str, frame: Frame, masks: str) -> dict[str, Any] | None:
        """See TrackingHost.step."""
        picture = frame.jpeg if frame.jpeg is not None else frame.image
        return await self._call(session, "step", session, picture, frame.captured_ns, masks)

    async def leave(self, session: str, *, forget: bool) -> None:
        """See TrackingHost.leave."""
        await self._call(session, "leave", session, forget)

    async def _call(self, session: str, method: str, *args: Any) -> Any:
        handle = self._handle.options(method_name=method, session_id=session)
        try:
            return await handle.remote(*args)
        except LOST as error:
            raise ReplicaLost(str(error)) from error


def _going_down() -> bool:
    """Whether this application is being deleted: Ray tells a replica so only when it has given up on its requests."""
    name = ray_serve.get_replica_context().app_name
    told = ray_serve.status().applications.get(name)
    return told is None or told.status == "DELETING"


@ray_serve.ingress()
class Gateway:
    """The port. Stateless but for open connections."""

    def __init__(
        self, settings: Settings, models: DeploymentHandle, tracker: DeploymentHandle, control: DeploymentHandle
    ) -> None:
        async def ask_models(method: str, *args: Any) -> Any:
            return await getattr(models, method).remote(*args)

        async def ask_control(method: str, *args: Any) -> Any:
            try:
                return await getattr(control, method).remote(*args)
            except LOST as error:
                raise NotReady("the control process was lost; it comes back with the arm idle") from error

        named = (Named("targets").ask, Named("policy").ask, Named("hands").ask)
        self._services = Services(settings, Sessions(tracker), *named, ask_control, ask_models, Metrics(), _going_down)

    def __serve_build_asgi_app__(self) -> Gate:
        """What Ray Serve hands requests to."""
        settings = self._services.settings
        return Gate(build_api(self._services), os.environ.get(settings.token_variable), settings.allowed_hosts)
