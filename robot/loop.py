"""The control loop: observe, decide before a deadline, limit, act, record, on an absolute schedule.

In: a robot, a decider, a governor. Out: commands to the robot and one TickRecord per tick to every sink. One thread;
nothing in a tick waits for a network, a policy, a disk or Ray. Called by __main__.py, benchmarks and tests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from robot.actions import ActionDecoder
from robot.errors import CommandError, ObservationError
from robot.guards import Guards
from robot.rate import Clock, Lateness, Schedule, Tick
from robot.records import Command, Decision, LoopState, Observation
from robot.robots import Robot
from robot.safety import DeadMan, Governor
from robot.worker import Decider, Failure


@dataclass(frozen=True, slots=True)
class TickRecord:
    """Everything that happened in one tick."""

    tick: Tick
    now_ns: int
    observation: Observation | None  # None when the robot gave none
    decision: Decision | None  # only in the tick that took it in
    command: Command
    sent_rad: np.ndarray | None  # None when nothing was sent (dry run, bus error)
    work_ns: int  # from the tick's start to the last motor write


Sink = Callable[[TickRecord], None]


@dataclass(slots=True)
class LoopReport:
    """What a run was like."""

    lateness: Lateness = field(default_factory=Lateness)
    states: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    overruns: int = 0  # ticks whose work took longer than a period
    decisions: int = 0
    compute_ms: list[float] = field(default_factory=list)  # the last 1000 decisions
    last_failure: str = ""
    work_ms_worst: float = 0.0

    def add(self, record: TickRecord, period_ns: int) -> None:
        """Count one tick."""
        self.lateness.add(record.tick)
        state, reason = record.command.state.value, record.command.reason
        self.states[state] = self.states.get(state, 0) + 1
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.overruns += record.work_ns > period_ns
        self.work_ms_worst = max(self.work_ms_worst, record.work_ns / 1e6)
        if record.decision is not None:
            self.decisions += 1
            self.compute_ms = [*self.compute_ms[-999:], record.decision.compute_ms]


@dataclass(slots=True)
class ControlLoop:
    """One run over one robot. `run`, then `return_to_rest`."""

    robot: Robot
    decider: Decider
    decoder: ActionDecoder
    governor: Governor
    guards: Guards
    schedule: Schedule
    clock: Clock
    sinks: Sequence[Sink] = ()
    dead_man: DeadMan | None = None
    dry_run: bool = False
    report: LoopReport = field(default_factory=LoopReport)
    _decision: Decision | None = None
    _failure: str = ""
    _holding: bool = True
    _command: Command = field(init=False)

    def start(self) -> np.ndarray:
        """Take the present pose as rest pose, which is returned; torque on unless dry. Raises ObservationError."""
        joints_rad = self.robot.observe().joints.position_rad
        self.governor.start(joints_rad)
        self._command = Command(joints_rad, LoopState.HOLD, "starting")
        if not self.dry_run:
            self.robot.enable()
        return joints_rad

    def run(self, seconds: float | None, stop: threading.Event) -> LoopReport:
        """Tick until the time is over or `stop` is set."""
        ends_ns = None if seconds is None else self.clock.now_ns() + round(seconds * 1e9)
        while not stop.is_set() and (ends_ns is None or self.clock.now_ns() < ends_ns):
            self.step(self.schedule.next())
        return self.report

    def step(self, tick: Tick) -> TickRecord:
        """One tick."""
        started_ns = time.monotonic_ns()
        observation, reason = self._observe()
        now_ns = self.clock.now_ns()
        if observation is not None:
            reason = self.guards.check(observation, self._command.target_rad, now_ns)
        if tick.clock_jumped:
            reason = "clock_jump"
        if reason or observation is None:
            self.decider.reset()
            wish, fresh = None, None
        else:
            self.decider.submit(tick.index, observation, now_ns)
            wish, reason, fresh = self._decide(observation)
        self._holding = wish is None
        command = self.governor.limit(wish, reason)
        record = TickRecord(
            tick, now_ns, observation, fresh, command, self._act(command), time.monotonic_ns() - started_ns
        )
        self._publish(record)
        return record

    @property
    def commanded_rad(self) -> np.ndarray:
        """(6,) the last command."""
        return self._command.target_rad

    def return_to_rest(self, rest_rad: np.ndarray, lift: Sequence[np.ndarray] = ()) -> bool:
        """Through the `lift` poses, then to rest, then settle; True when the arm is there. Never after an e-stop.

        A lift first and two seconds for the way: a quick way back overloaded the servos of the public project, and
        switching torque off in the air drops the arm.
        """
        for goal in [*lift, rest_rad]:
            self._move(np.asarray(goal), seconds_at_least=2.0 if goal is rest_rad else 0.5)
        self._move(rest_rad, seconds_at_least=0.5)
        there = np.abs(self._command.target_rad - rest_rad)[:-1].max() < ARRIVED_RAD
        return bool(there and not self.governor.estop.pressed)

    def _move(self, goal_rad: np.ndarray, seconds_at_least: float) -> None:
        """Straight in joint space with a smooth start and end, each point through the governor."""
        start_rad = self._command.target_rad
        limits = np.array(self.governor.limits.max_velocity_rad_s)
        # A minimum-jerk path peaks at 1.875 times its mean speed; half of the limit leaves the governor nothing to do.
        seconds = max(seconds_at_least, float((np.abs(goal_rad - start_rad) / (0.5 * limits)).max()) * 1.875)
        ticks = int(np.ceil(seconds * 1e9 / self.schedule.period_ns))
        for index in range(1, ticks + 1):
            share = index / ticks
            eased = share**3 * (10 - 15 * share + 6 * share**2)
            tick = self.schedule.next()
            observation, _ = self._observe()
            command = self.governor.limit(start_rad + eased * (goal_rad - start_rad), returning=True)
            now_ns = self.clock.now_ns()
            self._publish(TickRecord(tick, now_ns, observation, None, command, self._act(command), 0))
            if self.governor.estop.pressed:
                return

    def _observe(self) -> tuple[Observation | None, str]:
        try:
            return self.robot.observe(), ""
        except ObservationError as error:
            self.report.last_failure = str(error)
            return None, "observation_failed"

    def _decide(self, observation: Observation) -> tuple[np.ndarray | None, str, Decision | None]:
        """The wish of this tick, or why there is none; and the decision where it is new."""
        joints_rad = observation.joints.position_rad
        result = self.decider.take()
        fresh = None
        if isinstance(result, Failure):
            self._decision, self._failure = None, result.reason
            self.report.last_failure = result.detail
        elif result is not None:
            fresh = result
            self._decision, self._failure = result, ""
        now_ns = self.clock.now_ns()
        if self.dead_man is not None and self.dead_man.silent(now_ns):
            return None, "dead_man", fresh
        if self._decision is None:
            return None, self._failure or "no_decision_yet", fresh
        if self._too_old(self._decision, now_ns):
            return None, "decision_late", fresh
        if fresh is not None:
            if self._holding:
                self.decoder.reset(joints_rad)
            self.decoder.accept(fresh.action, joints_rad)
        elif self._holding:
            # A hold in between ended this decision: it is not taken up again.
            return None, "decision_late", None
        return self.decoder.wish(joints_rad), "", fresh

    def _too_old(self, decision: Decision, now_ns: int) -> bool:
        age_ns = now_ns - decision.observed_ns
        return age_ns + self.schedule.period_ns > self.governor.limits.max_action_age_ms * 1e6 or age_ns < 0

    def _act(self, command: Command) -> np.ndarray | None:
        self._command = command
        if self.dry_run:
            return None
        try:
            return self.robot.act(command.target_rad)
        except CommandError as error:
            self.report.last_failure = str(error)
            return None

    def _publish(self, record: TickRecord) -> None:
        self.report.add(record, self.schedule.period_ns)
        for sink in self.sinks:
            sink(record)


# Two degrees: the servos' dead band and a little sag.
ARRIVED_RAD = 0.035
