"""The ledger of a Ray run, metered: every call also moves what Prometheus sees (names in metrics.py).

Started by cluster.py as the run's one ledger actor, which knows every state; workers need no metrics of their own.
Counts are read from the ledger's tables, so they are right again after the actor or the driver was killed.
"""

from __future__ import annotations

import time
from typing import Any, get_args

from ray.util.metrics import Counter, Gauge, Histogram

from data_jobs.runs.ledger import Ledger, Standing, UnitState
from data_jobs.runs.metrics import METRICS, STAGE_SECONDS_BOUNDS, FrameRate, Metric, queue_depth
from data_jobs.runs.outcome import Cause, Failure

# Prometheus looks every few seconds. Counting a million clips takes tens of milliseconds: as a share of the ledger's
# time it must stay small, however many there are.
REFRESH_EVERY_S = 1.0
LARGEST_SHARE = 0.02


class MeteredLedger(Ledger):
    """A Ledger that shows its counts. One per run, inside a Ray worker process.

    `job` is the first word of every metric's name: egoworld, nuscenes.
    """

    def __init__(self, path: str, job: str, run_id: str) -> None:
        super().__init__(path)
        self._metrics = {metric.name: _made(metric, job, run_id) for metric in METRICS}
        self._rate = FrameRate()
        self._running: dict[str, tuple[str, float]] = {}  # attempt → stage, start in seconds
        self._next_refresh_s = 0.0
        self.refresh()

    def start(self, attempt_id: str, unit_id: str, stage: str, epoch: int, worker: str) -> Standing:
        """As Ledger.start."""
        standing = super().start(attempt_id, unit_id, stage, epoch, worker)
        self._running[attempt_id] = (stage, time.monotonic())
        self._refresh_in_turn()
        return standing

    def finish(self, attempt_id: str, unit_id: str, failure: Failure | None, next_state: UnitState) -> None:
        """As Ledger.finish."""
        super().finish(attempt_id, unit_id, failure, next_state)
        known = self._running.pop(attempt_id, None)  # None: this actor was restarted in between
        if known is not None:
            tags = {"stage": known[0], "result": "failed" if failure else "done"}
            self._metrics["attempts"].inc(1, tags=tags)
            self._metrics["stage_seconds"].observe(time.monotonic() - known[1], tags=tags)
        self._refresh_in_turn()

    def end(self, epoch: int, result: str) -> None:
        """As Ledger.end; the last counts are shown at once."""
        super().end(epoch, result)
        self.refresh()

    def show_speed(self, ratio: float) -> None:
        """Show the speed-of-light ratio of this run."""
        self._metrics["speed_of_light_ratio"].set(ratio)

    def refresh(self) -> None:
        """Read the counts and show them."""
        begun_s = time.monotonic()
        counts = self.counts()
        for state in get_args(UnitState):
            self._metrics["clips"].set(counts.get(state, (0, 0))[0], tags={"state": state})
        dead = self.dead_by_cause()
        for cause in get_args(Cause):
            self._metrics["dead_letters"].set(dead.get(cause, 0), tags={"cause": cause})
        self._metrics["queue_depth"].set(queue_depth(counts))
        self._metrics["frames_per_s"].set(self._rate.update(begun_s, counts.get("Done", (0, 0))[1]))
        now_s = time.monotonic()
        self._next_refresh_s = now_s + max(REFRESH_EVERY_S, (now_s - begun_s) / LARGEST_SHARE)

    def _refresh_in_turn(self) -> None:
        if time.monotonic() >= self._next_refresh_s:
            self.refresh()


def _made(metric: Metric, job: str, run_id: str) -> Any:
    """The Ray metric; Ray puts its own `ray_` before the name."""
    name, tags = f"{job}_{metric.name}", ("run_id", *metric.tags)
    if metric.kind == "histogram":
        made: Any = Histogram(name, metric.meaning, boundaries=list(STAGE_SECONDS_BOUNDS), tag_keys=tags)
    else:
        made = (Gauge if metric.kind == "gauge" else Counter)(name, metric.meaning, tag_keys=tags)
    made.set_default_tags({"run_id": run_id})
    return made
