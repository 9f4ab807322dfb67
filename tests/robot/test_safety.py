"""Whatever is asked, commands stay inside the limits; a hold is a braked stop; the stop latches."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from robot.arm import Arm
from robot.records import LoopState
from robot.safety import DeadMan, Governor, SafetyLimits
from robot.session import load_limits

START = np.array([0.07, 0.306, -0.214, 1.571, 1.571, 0.85])
RATE_HZ = 30.0
# Rounding of differences of positions near 1 rad, divided by a period twice.
SLACK = 1e-9


def fuzzed_wishes(count, seed):
    """NaN, Inf, huge, alternating, wrong length, none, near and far wishes, mixed."""
    rng = np.random.default_rng(seed)
    flip = np.array([3.0, -3.0, 3.0, -3.0, 3.0, -3.0])
    for index in range(count):
        kind = rng.integers(0, 10)
        if kind < 3:
            yield rng.normal(0, 1, 6)
        elif kind == 3:
            yield START + rng.normal(0, 0.05, 6)
        elif kind == 4:
            yield rng.uniform(-1e300, 1e300, 6)
        elif kind == 5:
            yield np.where(rng.random(6) < 0.3, rng.choice([np.nan, np.inf, -np.inf]), 0.0)
        elif kind == 6:
            yield flip * (-1) ** index
        elif kind == 7:
            yield None
        elif kind == 8:
            yield np.zeros(rng.integers(0, 12))
        else:
            yield np.array([rng.choice([-10.0, 10.0])] * 6)


def violations(limits, arm, commands, start, tool_m):
    """How many commands break which limit, judged from the sequence alone."""
    path = np.vstack([start, start, commands])
    velocity = np.diff(path, axis=0) * RATE_HZ
    acceleration = np.diff(velocity, axis=0) * RATE_HZ
    low, high = np.array(limits.workspace_m).T
    return {
        "not finite": int((~np.isfinite(commands)).sum()),
        "position": int(((commands < arm.lower_rad) | (commands > arm.upper_rad)).sum()),
        "velocity": int((np.abs(velocity) > np.array(limits.max_velocity_rad_s) * (1 + SLACK) + SLACK).sum()),
        "acceleration": int(
            (np.abs(acceleration) > np.array(limits.max_acceleration_rad_s2) * (1 + SLACK) + 1e-7).sum()
        ),
        "workspace": int(((tool_m < low - 1e-6) | (tool_m > high + 1e-6)).sum()),
    }


def tool_positions(arm, commands):
    """(N, 3) by a second road: a plain product of the chain's transforms, all rows at once."""
    model = arm.model
    rotation = np.tile(np.eye(3), (len(commands), 1, 1))
    place = np.zeros((len(commands), 3))
    chain, body = [], model.site_bodyid[model.site("tool").id]
    while body:
        chain.append(body)
        body = model.body_parentid[body]
    for body in reversed(chain):
        place = place + np.einsum("nij,j->ni", rotation, model.body_pos[body])
        rotation = rotation @ _matrix(model.body_quat[body])
        for joint in range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body]):
            angle = commands[:, model.jnt_qposadr[joint]]
            c, s, one = np.cos(angle), np.sin(angle), np.ones(len(angle))
            zero = np.zeros(len(angle))
            assert np.allclose(model.jnt_axis[joint], [0, 0, 1])
            turn = np.stack([c, -s, zero, s, c, zero, zero, zero, one], axis=1).reshape(-1, 3, 3)
            rotation = rotation @ turn
    return place + np.einsum("nij,j->ni", rotation, model.site_pos[model.site("tool").id])


def _matrix(q):
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def run_fuzz(limits, count, seed):
    arm = Arm()
    governor = Governor(limits, arm, RATE_HZ)
    governor.start(START)
    commands, states = np.empty((count, 6)), set()
    for index, wish in enumerate(fuzzed_wishes(count, seed)):
        command = governor.limit(wish, "stale" if wish is None else "")
        commands[index] = command.target_rad
        states.add((command.state, command.reason))
    return violations(limits, arm, commands, START, tool_positions(arm, commands)), states


def test_no_fuzzed_action_leaves_the_limits(limits):
    found, states = run_fuzz(limits, 20_000, seed=1)
    assert found == dict.fromkeys(found, 0)
    reasons = {reason for _, reason in states}
    assert {"", "not_finite", "wrong_length", "stale", "workspace"} <= reasons


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_action_of_a_million_leaves_the_limits():
    found, _ = run_fuzz(load_limits("so101"), 1_000_000, seed=2)
    assert found == dict.fromkeys(found, 0)


def test_the_judge_of_the_fuzz_sees_violations(limits):
    arm = Arm()
    jump = np.vstack([START, START + 0.5, START + np.array([0, 2.0, 0, 0, 0, 0])])
    found = violations(limits, arm, jump, START, tool_positions(arm, jump))
    assert found["velocity"] and found["acceleration"] and found["position"] and found["workspace"]


@settings(max_examples=60)
@given(
    wishes=st.lists(
        hnp.arrays(np.float64, 6, elements=st.floats(allow_nan=True, allow_infinity=True)), min_size=1, max_size=40
    )
)
def test_any_sequence_stays_inside_and_then_stops(wishes):
    limits, arm = load_limits("so101"), Arm()
    governor = Governor(limits, arm, RATE_HZ)
    governor.start(START)
    path = [governor.limit(wish).target_rad for wish in wishes]
    for _ in range(4):
        path.append(governor.limit(None, "test").target_rad)
    commands = np.array(path)
    found = violations(limits, arm, commands, START, tool_positions(arm, commands))
    assert found == dict.fromkeys(found, 0)
    assert governor.at_rest() and np.array_equal(path[-1], path[-2])


def test_a_hold_stands_still_within_100_ms_from_full_speed(limits):
    arm = Arm()
    governor = Governor(limits, arm, RATE_HZ)
    governor.start(START)
    for _ in range(4):
        moving = governor.limit(START + np.array([0.9, 0, 0, 0, 0, 0]))
    assert moving.state is LoopState.MOVE and not governor.at_rest()
    governor.limit(None, "fault")
    governor.limit(None, "fault")
    assert governor.at_rest(), "two ticks of 33 ms"


def test_it_reaches_a_reachable_wish_exactly_and_does_not_overshoot(limits):
    arm = Arm()
    governor = Governor(limits, arm, RATE_HZ)
    governor.start(START)
    goal = START + np.array([0.2, 0.05, -0.05, -0.1, 0.3, 0.4])
    path = np.array([governor.limit(goal).target_rad for _ in range(60)])
    assert path[-1] == pytest.approx(goal, abs=1e-9)
    assert (np.sign(goal - START) * (path - goal) <= 1e-9).all()


def test_speeding_up_grows_by_the_jerk_limit_and_by_no_less():
    """From rest towards a far wish the speed gains 1, 2, 3 … times jerk x period², until acceleration ends that."""
    limits = load_limits("so101").model_copy(update={"max_jerk_rad_s3": 60.0})
    governor = Governor(limits, Arm(), RATE_HZ)
    governor.start(START)
    positions = [START] + [governor.limit(START + 0.5).target_rad for _ in range(4)]
    speeds = np.diff(np.array(positions), axis=0) * RATE_HZ
    assert np.diff(np.vstack([np.zeros(6), speeds]), axis=0)[:, 0] == pytest.approx(60 / RATE_HZ**2 * np.arange(1, 5))


@pytest.mark.parametrize("field", ["max_velocity_rad_s", "max_acceleration_rad_s2"])
def test_a_limit_of_zero_is_no_limit_and_refused(limits, field):
    values = limits.model_dump() | {field: (1.0, 1.0, 0.0, 1.0, 1.0, 1.0)}
    with pytest.raises(ValidationError, match="greater than 0"):
        SafetyLimits(**values)


@pytest.mark.parametrize("wish", [np.full(6, "1"), np.zeros((2, 3)), np.array([1 + 2j] * 6), np.array([None] * 6)])
def test_what_is_no_number_holds(wish):
    governor = Governor(load_limits("sim"), Arm(), RATE_HZ)
    governor.start(START)
    command = governor.limit(wish)
    assert command.state is LoopState.HOLD and command.reason in ("not_finite", "wrong_length")


def test_the_emergency_stop_latches_from_any_thread():
    governor = Governor(load_limits("sim"), Arm(), RATE_HZ)
    governor.start(START)
    governor.limit(START + 0.1)
    thread = threading.Thread(target=governor.estop.press, args=("button",))
    thread.start()
    thread.join()
    governor.estop.press("a later reason")
    first = governor.limit(START + 0.2)
    assert first.state is LoopState.ESTOP and first.reason == "button"
    for _ in range(5):
        last = governor.limit(START + 0.3)
    assert last.state is LoopState.ESTOP and governor.at_rest()
    governor.estop.release()
    assert governor.limit(START).state is LoopState.MOVE


def test_an_arm_that_starts_outside_the_workspace_may_come_in_but_not_further_out():
    limits, arm = load_limits("so101"), Arm()
    folded = np.array([1.8, 0.3, -0.2, 1.5, 0.0, 0.0])  # turned to the side, beyond the box
    assert arm.tool_position(folded)[0] < limits.workspace_m[0][0]
    governor = Governor(limits, arm, RATE_HZ)
    governor.start(folded)
    further = governor.limit(folded + np.array([0.1, 0, 0, 0, 0, 0]))
    assert further.reason == "workspace"
    inside = [governor.limit(START) for _ in range(200)]
    assert inside[-1].target_rad == pytest.approx(START, abs=1e-6)


def test_the_dead_man_wants_to_hear_something():
    dead_man = DeadMan(100.0)
    assert dead_man.silent(0)
    dead_man.beat(1_000_000_000)
    assert not dead_man.silent(1_099_000_000)
    assert dead_man.silent(1_101_000_000)
    assert dead_man.silent(900_000_000), "a clock that ran back proves nothing"


def test_it_starts_only_from_six_finite_angles():
    governor = Governor(load_limits("sim"), Arm(), RATE_HZ)
    with pytest.raises(ValueError, match="6 finite"):
        governor.start(np.array([0, 0, 0, 0, 0, np.nan]))
