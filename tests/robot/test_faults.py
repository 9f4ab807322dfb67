"""The fault matrix: whatever breaks, the arm holds within 100 ms, says why, and never repeats its last action.

On the simulated arm with the limits of the real one, in virtual time (a busy test machine is a fault of its own); only
the stalling policy needs real threads. `slow` repeats the whole matrix in real time. Pictures come from a stand-in
camera at 30 Hz, because a software renderer is slower than a real one.
"""

import dataclasses
import itertools

import numpy as np
import pytest

from robot import faults
from robot.contract import CameraOffer
from robot.policies import ScriptedPick
from robot.priority import prefer_this_thread
from robot.rate import MonotonicClock, VirtualClock
from robot.records import Frame, LoopState
from robot.session import Session, load_limits
from robot.sim import SimConfig, SimRobot

HOLD_WITHIN_S = 0.1
FAULT_AFTER_S = 0.6
RATE_HZ = 30.0
SETTLE_TICKS = 3


class Camera30(SimRobot):
    """The simulated arm with a 30 Hz camera of noise pictures, which is noisy like a real one."""

    def connect(self):
        super().connect()
        rng = np.random.default_rng(0)
        self._pictures = [rng.integers(60, 200, (480, 640, 3), np.uint8) for _ in range(8)]

    def camera_offer(self):
        return CameraOffer(640, 480, "rgb", 70.5, noisy=True)

    def observe(self):
        now_ns = self._clock.now_ns()
        number, age_ns = divmod(now_ns, 33_333_333)
        picture = Frame(self._pictures[number % 8], now_ns - age_ns)
        return dataclasses.replace(super().observe(), frame=picture)


class Seeing(ScriptedPick):
    """The scripted pick, but it claims to need pictures, so that the loop guards them."""

    def offer(self):
        return dataclasses.replace(super().offer(), image_channels=6)

    def decide(self, given):
        super().decide(given)
        return np.array([0.1, 0.3, 0.4, 0.2], np.float32)  # keeps the arm moving


def run_with(contract, fault, base, seconds=1.5):
    contract = contract.model_copy(update={"rate_hz": RATE_HZ})
    clock, at_ns = base, base.now_ns() + 10**15
    if fault in faults.CLOCK_FAULTS:
        clock = faults.FaultyClock(clock, fault, at_ns)
    robot = Camera30(SimConfig(camera=False), clock)
    policy = Seeing(contract)
    broken = clock
    if fault in faults.ROBOT_FAULTS:
        robot = broken = faults.FaultyRobot(robot, fault, at_ns, clock)
    elif fault in faults.POLICY_FAULTS:
        policy = broken = faults.FaultyPolicy(policy, fault, at_ns, clock)
    session = Session(robot, policy, contract, load_limits("so101"), clock)
    records = []
    if not base.virtual:
        prefer_this_thread()
    session.open()
    try:
        broken.at_ns = base.now_ns() + int(FAULT_AFTER_S * 1e9)
        times = []
        session.loop.sinks = [records.append, lambda _: times.append(base.now_ns())]
        session.loop.run(None, _After(base, seconds))
    finally:
        session.close()
    return records, times, broken.at_ns


class _After:
    """A stop by the true clock, whatever a broken one says."""

    def __init__(self, clock, seconds):
        self.clock, self.ends_ns = clock, clock.now_ns() + int(seconds * 1e9)

    def is_set(self):
        return self.clock.now_ns() >= self.ends_ns


@pytest.mark.parametrize("fault", sorted(faults.EXPECTED_REASON))
def test_it_holds_within_100_ms_and_says_why(pick101, fault):
    judge(fault, *run_with(pick101, fault, MonotonicClock() if fault == "policy_stall" else VirtualClock(10**12)))


@pytest.mark.slow
@pytest.mark.parametrize("fault", sorted(faults.EXPECTED_REASON))
def test_it_does_so_in_real_time(pick101, fault):
    judge(fault, *run_with(pick101, fault, MonotonicClock()))


def judge(fault, records, times, at_ns):
    before = [r for r, t in zip(records, times, strict=True) if t < at_ns]
    assert sum(r.command.state is LoopState.MOVE for r in before) > 8, [r.command.reason for r in before]
    hold = next(
        i
        for i, (r, t) in enumerate(zip(records, times, strict=True))
        if t >= at_ns and r.command.state is LoopState.HOLD
    )
    assert (times[hold] - at_ns) / 1e9 <= HOLD_WITHIN_S
    # A clock that leaps inside a tick makes everything measured before the leap stale, before it is seen as a leap.
    leap = {"camera_stale", "joints_stale", "decision_late"} if fault in faults.CLOCK_FAULTS else set()
    assert records[hold].command.reason in {faults.EXPECTED_REASON[fault]} | leap
    if fault in (
        "camera_freeze",
        "camera_repeat",
        "black_frame",
        "bus_error",
        "nan_joint",
        "policy_exception",
        "policy_nan",
    ):
        rest = records[hold:]
        assert all(r.command.state is LoopState.HOLD for r in rest), "a lasting fault lasts"
        still = [r.command.target_rad for r in rest[SETTLE_TICKS:]]
        assert all(np.array_equal(a, b) for a, b in itertools.pairwise(still)), "the hold stands still"
    else:
        assert records[-1].command.state is LoopState.MOVE or fault == "policy_stall", "a passing fault passes"
    for one, two in itertools.pairwise(r.decision for r in records if r.decision is not None):
        assert two.tick > one.tick, "no decision is used twice"
    assert np.isfinite([r.command.target_rad for r in records]).all()


def test_unknown_faults_list_the_choices():
    with pytest.raises(ValueError, match="camera_freeze"):
        faults.FaultyRobot(None, "gremlin", 0, None)
    with pytest.raises(ValueError, match="policy_stall"):
        faults.FaultyPolicy(None, "gremlin", 0, None)
    with pytest.raises(ValueError, match="clock_jump"):
        faults.FaultyClock(None, "gremlin", 0)
