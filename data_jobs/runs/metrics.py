"""What a run tells Prometheus about itself: names, meanings and tags, and the arithmetic behind the rates.

In: what the ledger knows. Out: metric descriptions and a frame rate. Ray-free; the emitter beside a job's pipeline
turns the descriptions into ray.util.metrics. Every metric carries the tag run_id besides its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# A rate over less is noise where a clip takes seconds; over more it hides a stall for too long.
RATE_WINDOW_S = 30.0

# From the cost of publishing a clip to a ten-minute clip on a slow processor, in steps of about three.
STAGE_SECONDS_BOUNDS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, without its job's prefix."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    meaning: str
    tags: tuple[str, ...] = ()


METRICS = (
    Metric("clips", "gauge", "clips by state: Pending, Running, Writing, Done, Failed (tried again), Dead", ("state",)),
    Metric("queue_depth", "gauge", "clips that wait for a worker: Pending and Failed"),
    Metric("attempts", "counter", "ended attempts by stage and result: done or failed", ("stage", "result")),
    Metric("dead_letters", "gauge", "clips in the dead letter by cause", ("cause",)),
    Metric("stage_seconds", "histogram", "seconds an attempt took, by stage and result", ("stage", "result")),
    Metric("frames_per_s", "gauge", f"frames of clips done per second, over the last {RATE_WINDOW_S:.0f} s"),
    Metric(
        "speed_of_light_ratio", "gauge", "the run's rate beside a bare loop over the same operators; set at the end"
    ),
)


class FrameRate:
    """Frames per second over a sliding window, from a total that grows."""

    def __init__(self, window_s: float = RATE_WINDOW_S) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, now_s: float, frames: int) -> float:
        """The rate up to `now_s`, at which `frames` are done in all; 0 until two looks lie apart in time."""
        self._seen.append((now_s, frames))
        # One look from before the window stays, so that the window is always spanned.
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - self._window_s:
            self._seen.popleft()
        then_s, before = self._seen[0]
        return (frames - before) / (now_s - then_s) if now_s > then_s else 0.0


def queue_depth(counts: Mapping[str, tuple[int, int]]) -> int:
    """Units that wait for a worker, from the ledger's counts."""
    return sum(counts.get(state, (0, 0))[0] for state in ("Pending", "Failed"))
