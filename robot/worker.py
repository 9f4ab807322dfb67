"""Perception and policy beside the loop: newest observation in, newest decision out, nothing queues.

In: observations from the loop, one per tick. Out: Decisions, or the reason why there is none. The loop never waits
for it: `ThreadedDecider` computes in its own thread and drops what it could not get to; `InlineDecider` computes in the
call, for virtual time and for replay, where every run must be the same.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robot.errors import RobotError
from robot.observation import ObservationPipeline
from robot.policies import Policy
from robot.priority import give_way
from robot.rate import Clock
from robot.records import Decision, Observation


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the newest observation led to no decision."""

    reason: str  # policy_exception, policy_answer or the like, a word for the panel
    detail: str
    tick: int


class Decider(Protocol):
    """What the loop sees of perception and policy."""

    def submit(self, tick: int, observation: Observation, now_ns: int) -> None:
        """Hand over the newest observation; what waited before it is dropped."""

    def take(self) -> Decision | Failure | None:
        """The newest result since the last call, once. None = nothing new."""

    def reset(self) -> None:
        """Forget the stack and what waits: after a hold the next observation starts anew."""

    def close(self) -> None:
        """End within 2 s, safe to repeat."""


class _Brain:
    """The pipeline and the policy, in whatever thread."""

    def __init__(self, pipeline: ObservationPipeline, policy: Policy, action_size: int, clock: Clock) -> None:
        self._pipeline, self._policy = pipeline, policy
        self._action_size = action_size
        self._clock = clock
        self._seen = 0

    def think(self, tick: int, observation: Observation, observed_ns: int) -> Decision | Failure:
        try:
            given, planes = self._pipeline.push(observation)
            action = np.asarray(self._policy.decide(given), np.float32)
        except RobotError as error:
            self.reset()
            return Failure("policy_failed", str(error), tick)
        except Exception as error:  # noqa: BLE001 - whatever a policy throws, the arm must hold
            self.reset()
            return Failure("policy_exception", f"{type(error).__name__}: {error}", tick)
        if action.shape != (self._action_size,) or not np.isfinite(action).all():
            self.reset()
            what = f"{action!r}, expected {self._action_size} finite numbers"
            return Failure("policy_answer", f"the policy answered {what}", tick)
        self._seen += 1
        return Decision(action, tick, observed_ns, self._clock.now_ns(), planes, self._seen - 1)

    def reset(self) -> None:
        self._seen = 0
        self._pipeline.reset()
        self._policy.reset()


class InlineDecider:
    """Computes in `submit`."""

    def __init__(self, pipeline: ObservationPipeline, policy: Policy, action_size: int, clock: Clock) -> None:
        self._brain = _Brain(pipeline, policy, action_size, clock)
        self._policy = policy
        self._result: Decision | Failure | None = None

    def submit(self, tick: int, observation: Observation, now_ns: int) -> None:
        """Think at once."""
        self._result = self._brain.think(tick, observation, now_ns)

    def take(self) -> Decision | Failure | None:
        """The result, once."""
        result, self._result = self._result, None
        return result

    def reset(self) -> None:
        """Forget the stack."""
        self._result = None
        self._brain.reset()

    def close(self) -> None:
        """Close the policy."""
        self._policy.close()


class ThreadedDecider:
    """Computes in one worker thread; two mailboxes of one place each."""

    def __init__(self, pipeline: ObservationPipeline, policy: Policy, action_size: int, clock: Clock) -> None:
        self._brain = _Brain(pipeline, policy, action_size, clock)
        self._policy = policy
        self._wake = threading.Condition()
        self._waiting: tuple[int, Observation, int] | None = None
        self._result: Decision | Failure | None = None
        self._generation = 0  # raised by reset: what was begun before it is not handed out
        self._forget = False
        self._closing = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="decider", daemon=True)
        self._thread.start()

    def submit(self, tick: int, observation: Observation, now_ns: int) -> None:
        """Leave it in the mailbox."""
        with self._wake:
            self.dropped += self._waiting is not None
            self._waiting = (tick, observation, now_ns)
            self._wake.notify()

    def take(self) -> Decision | Failure | None:
        """The newest result, once."""
        with self._wake:
            result, self._result = self._result, None
            self._wake.notify()
            return result

    def reset(self) -> None:
        """Empty both mailboxes; the thread forgets the stack before it thinks again."""
        with self._wake:
            self._waiting = self._result = None
            self._generation += 1
            self._forget = True

    def close(self) -> None:
        """End the thread; one that hangs in a policy is left behind after 2 s (it is a daemon)."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(2.0)
        self._policy.close()

    def _may_start(self) -> bool:
        # Not before the last result was taken: every decision is then seen by the loop, and by the recording.
        return self._closing or (self._waiting is not None and self._result is None)

    def _run(self) -> None:
        give_way()
        while True:
            with self._wake:
                self._wake.wait_for(self._may_start)
                if self._closing:
                    return
                assert self._waiting is not None
                task, self._waiting = self._waiting, None
                generation, forget, self._forget = self._generation, self._forget, False
            if forget:
                self._brain.reset()
            result = self._brain.think(*task)
            with self._wake:
                if generation == self._generation:
                    self._result = result
