"""What an operator's dashboard shows. Ray exports every metric to Prometheus with the prefix `ray_`.

In: events of this process. Out: ray.util.metrics. `NAMES` is what configs/grafana_serve.json is tested against.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util import metrics

STAGE_BOUNDARIES_MS = [0.5, 1, 2, 4, 8, 16, 33, 66, 133, 266, 533, 1066, 4000, 16000]
NAMES = (
    "reafference_frames",
    "reafference_frames_dropped",
    "reafference_deadline_misses",
    "reafference_sessions_resumed",
    "reafference_refusals",
    "reafference_stage_ms",
    "reafference_connections",
    "reafference_model_memory_bytes",
    "reafference_model_up",
    "reafference_control_tick_late_ms",
)


class Metrics:
    """Counters of one gateway."""

    def __init__(self) -> None:
        self._frames = metrics.Counter("reafference_frames", "Frames that were answered in time")
        self._dropped = metrics.Counter("reafference_frames_dropped", "Frames that a newer one replaced")
        self._missed = metrics.Counter("reafference_deadline_misses", "Frames whose deadline passed")
        self._resumed = metrics.Counter("reafference_sessions_resumed", "Sessions carried over to another replica")
        self._refused = metrics.Counter("reafference_refusals", "Requests refused, by status", ("status",))
        self._stage = metrics.Histogram(
            "reafference_stage_ms", "Time per stage of a frame", boundaries=STAGE_BOUNDARIES_MS, tag_keys=("stage",)
        )
        self._connections = metrics.Gauge("reafference_connections", "Open websockets of this gateway")
        self._memory = metrics.Gauge("reafference_model_memory_bytes", "Memory by actor and kind", ("actor", "kind"))
        self._up = metrics.Gauge("reafference_model_up", "1 while a named actor answers", ("actor",))
        self._late = metrics.Gauge("reafference_control_tick_late_ms", "Lateness of control ticks", ("quantile",))

    def frame(self, ms: Mapping[str, float]) -> None:
        """A frame was answered; milliseconds by stage."""
        self._frames.inc()
        for stage, value in ms.items():
            self._stage.observe(value, tags={"stage": stage})

    def dropped(self) -> None:
        """A newer frame took its place."""
        self._dropped.inc()

    def missed(self) -> None:
        """Its deadline passed."""
        self._missed.inc()

    def resumed(self) -> None:
        """A session went on after a loss."""
        self._resumed.inc()

    def refused(self, status: int) -> None:
        """A request was refused."""
        self._refused.inc(tags={"status": str(status)})

    def connections(self, count: int) -> None:
        """Open websockets."""
        self._connections.set(count)

    def models(self, health: Mapping[str, Mapping[str, object]]) -> None:
        """Health of the named actors, as ModelKeeper tells it."""
        for actor, told in health.items():
            self._up.set(1 if told["up"] else 0, tags={"actor": actor})
            for kind, key in (("host", "memory_bytes"), ("gpu", "gpu_memory_bytes")):
                self._memory.set(float(str(told.get(key, 0))), tags={"actor": actor, "kind": kind})

    def control(self, late_ms: Mapping[str, float]) -> None:
        """Lateness of the control loop by quantile."""
        for quantile, value in late_ms.items():
            self._late.set(value, tags={"quantile": quantile})
