"""The guard around every operator call: one unit at a time, attempts counted, causes judged, nothing lost.

In: a row that names a unit of work. Out: its Outcome. Hosted by a Ray Data actor or called in a loop. Asks the ledger
before each attempt, runs the stage in a sandbox, and decides by class of cause: input and bug go to the dead letter
at once; crashes, time-outs and transient errors are tried again up to the limit; lack of memory halves the window.
Knows nothing of video, models or Ray.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from data_jobs.runs.ledger import Standing, UnitState
from data_jobs.runs.outcome import FINAL_CAUSES, Failure

Row = Mapping[str, Any]

PUBLISH = "publish"  # the name of the last stage of every unit

# A unit that takes its whole host down each time (the host, not the sandbox) must end too. Higher than the attempt
# limit, because hosts also die for reasons that are nobody's fault: pre-emption, node loss, a person with `kill`.
MAX_INTERRUPTIONS = 25


HOST_DEATHS = Failure("worker_crash", "HostCrash", f"its host died {MAX_INTERRUPTIONS} times", "")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently an attempt is repeated."""

    max_attempts: int = 3
    base_delay_s: float = 0.5  # before the second try of a transient failure
    backoff: float = 3.0

    def delay_s(self, failed_attempts: int) -> float:
        """Seconds to wait after this many failed attempts: base, base·backoff, base·backoff²…"""
        return self.base_delay_s * self.backoff ** (failed_attempts - 1)


@dataclass(frozen=True, slots=True)
class StageCall:
    """What the sandbox is asked to do. `halvings`: how often the decode window was halved for lack of memory."""

    row: Row
    stage: str
    halvings: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a unit ended in this run."""

    unit_id: str
    result: Literal["done", "dead", "already"]
    frames: int


class LedgerPort(Protocol):
    """What the guard needs of a ledger, whichever side of an actor boundary it lives on."""

    def start(self, attempt_id: str, unit_id: str, stage: str, epoch: int, worker: str) -> Standing:
        """Record that an attempt begins; what was known before it."""

    def finish(self, attempt_id: str, unit_id: str, failure: Failure | None, next_state: UnitState) -> None:
        """Close an attempt."""

    def bury(self, unit_id: str, stage: str, failure: Failure, attempts: int) -> None:
        """Record a dead letter."""


class Executor(Protocol):
    """Runs stage calls somewhere: sandbox.Sandbox or sandbox.InProcess."""

    def start(self) -> None:
        """Get ready before the first call; RunError if that fails."""

    def call(self, request: Any, timeout_s: float) -> Any:
        """The task's answer, or a Failure; RunError is raised."""

    def close(self) -> None:
        """Free everything."""


class Job(Protocol):
    """What a batch job tells the guard about its units."""

    def unit_id(self, row: Row) -> str:
        """Name of the unit."""

    def frames(self, row: Row) -> int:
        """Its size."""

    def timeout_s(self, row: Row) -> float:
        """Seconds that one stage of it may take."""

    def is_settled(self, row: Row) -> bool:
        """Whether the published tree already holds the unit, done or dead."""

    def has_stage(self, row: Row, stage: str) -> bool:
        """Whether the stage's artifact exists, so that nothing needs to run."""

    def bury(self, row: Row, stage: str, failure: Failure, attempts: int) -> None:
        """Publish a dead letter."""


class Guard:
    """Takes rows through their stages. One instance per worker."""

    def __init__(
        self,
        job: Job,
        stages: tuple[str, ...],
        executor: Executor,
        ledger: LedgerPort,
        retry: RetryPolicy,
        epoch: int,
        worker: str,
    ) -> None:
        self.job = job
        self.stages = stages
        self.executor = executor
        self.ledger = ledger
        self.retry = retry
        self.epoch = epoch
        self.worker = worker

    def process(self, row: Row) -> Outcome:
        """Run all stages of one unit that are not done yet, then say how it ended. Raises RunError only."""
        unit_id, frames = self.job.unit_id(row), self.job.frames(row)
        if self.job.is_settled(row):
            return Outcome(unit_id, "already", frames)
        for stage in self.stages:
            if stage != PUBLISH and self.job.has_stage(row, stage):
                continue
            if not self._run(row, unit_id, stage):
                return Outcome(unit_id, "dead", frames)
        return Outcome(unit_id, "done", frames)

    def _run(self, row: Row, unit_id: str, stage: str) -> bool:
        """Attempt one stage until it is done (True) or buried (False)."""
        while True:
            attempt_id = uuid.uuid4().hex
            standing = self.ledger.start(attempt_id, unit_id, stage, self.epoch, self.worker)
            if not self._is_spent(standing):
                failure = self._attempt(row, stage, standing)
                next_state: UnitState = "Failed" if failure else "Done" if stage == PUBLISH else "Writing"
                self.ledger.finish(attempt_id, unit_id, failure, next_state)
                if failure is None:
                    return True
                standing = Standing(standing.charged + 1, standing.interrupted, failure)
            if self._is_spent(standing):
                failure = standing.last or HOST_DEATHS
                self.job.bury(row, stage, failure, max(standing.charged, 1))
                self.ledger.bury(unit_id, stage, failure, max(standing.charged, 1))
                return False
            if standing.last is not None and standing.last.cause == "transient":
                time.sleep(self.retry.delay_s(standing.charged))

    def _attempt(self, row: Row, stage: str, standing: Standing) -> Failure | None:
        starved = standing.last is not None and standing.last.cause == "resource"
        call = StageCall(row, stage, standing.charged if starved else 0)
        answer = self.executor.call(call, self.job.timeout_s(row))
        return answer if isinstance(answer, Failure) else None

    def _is_spent(self, standing: Standing) -> bool:
        """Whether nothing more can be tried. True at the start of a call if the host died before the burial."""
        last = standing.last
        judged = last is not None and (last.cause in FINAL_CAUSES or standing.charged >= self.retry.max_attempts)
        return judged or standing.interrupted >= MAX_INTERRUPTIONS
