"""What the governor makes of a wish, exactly: which limit it names, how fast it goes, where it stops."""

import numpy as np
import pytest
from pydantic import ValidationError

from robot.arm import Arm
from robot.records import LoopState
from robot.safety import DeadMan, Governor, SafetyLimits
from robot.session import load_limits

START = np.array([0.07, 0.306, -0.214, 1.571, 1.571, 0.85])
RATE_HZ, GRIPPER = 30.0, 5  # the gripper moves no tool, so that no box has a say


def governed(name="sim", start=START, **changes):
    governor = Governor(load_limits(name).model_copy(update=changes), Arm(), RATE_HZ)
    governor.start(start)
    return governor


def moved(by, joint=GRIPPER, start=START):
    wish = start.copy()
    wish[joint] += by
    return wish


def speeds(governor, wishes, joint=GRIPPER, start=START):
    path = [start[joint], *(governor.limit(wish).target_rad[joint] for wish in wishes)]
    return np.diff(path) * RATE_HZ


# --- limits -----------------------------------------------------------------------------------------------------------

ABOVE_ZERO = [
    "max_jerk_rad_s3",
    "max_frame_age_ms",
    "max_joint_age_ms",
    "max_action_age_ms",
    "max_following_error_rad",
    "dead_man_ms",
]


@pytest.mark.parametrize("field", ABOVE_ZERO)
def test_a_limit_is_any_number_above_zero(field):
    values = load_limits("sim").model_dump()
    assert getattr(SafetyLimits(**values | {field: 0.001}), field) == 0.001
    for refused in (0.0, -1.0):
        with pytest.raises(ValidationError, match="greater than 0"):
            SafetyLimits(**values | {field: refused})


@pytest.mark.parametrize("field", ["max_velocity_rad_s", "max_acceleration_rad_s2"])
def test_every_joint_has_a_limit_and_it_may_be_low(field):
    values = load_limits("sim").model_dump()
    assert getattr(SafetyLimits(**values | {field: (0.001,) * 6}), field) == (0.001,) * 6
    for refused in ((0.0,) * 6, (1.0,) * 5 + (-1.0,), (1.0,) * 5, (1.0,) * 7):
        with pytest.raises(ValidationError):
            SafetyLimits(**values | {field: refused})


def test_a_margin_may_be_nothing_but_not_less():
    values = load_limits("so101").model_dump()
    assert SafetyLimits(**values | {"joint_margin_rad": 0.0}).joint_margin_rad == 0.0
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        SafetyLimits(**values | {"joint_margin_rad": -0.001})


# --- motion -----------------------------------------------------------------------------------------------------------


def as_early_as_braking_allows(gap_rad, velocity, acceleration):
    """Speeds to the end of the gap, each the highest (by bisection) from which braking still ends inside it."""

    def path(speed):
        steps = [speed]
        while steps[-1] > 0:
            steps.append(max(steps[-1] - acceleration / RATE_HZ, 0.0))
        return sum(steps) / RATE_HZ

    last, found = 0.0, []
    while gap_rad > 1e-9:
        low, high = 0.0, min(velocity, last + acceleration / RATE_HZ)
        if path(high) > gap_rad:
            for _ in range(60):
                middle = (low + high) / 2
                low, high = (middle, high) if path(middle) <= gap_rad else (low, middle)
            high = low
        last, gap_rad = high, gap_rad - high / RATE_HZ
        found.append(last)
    return found


@pytest.mark.parametrize("gap", [0.01, 0.05, 0.16, 0.4, 0.85, -0.02, -0.3, -1.0])
def test_it_arrives_as_early_as_braking_allows(gap):
    expected = as_early_as_braking_allows(abs(gap), 8.0, 160.0)
    found = speeds(governed(), [moved(gap)] * len(expected))
    assert np.sign(gap) * found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("roll", "gap"), [(-2.74, 0.5), (2.84, -0.5)])
def test_it_is_no_slower_at_the_end_of_a_joint(roll, gap):
    start = np.array([*START[:4], roll, START[5]])
    expected = as_early_as_braking_allows(abs(gap), 6.0, 120.0)
    found = speeds(governed(start=start), [moved(gap, 4, start)] * len(expected), 4, start)
    assert np.sign(gap) * found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["sim", "so101"])
@pytest.mark.parametrize("way", [1.0, -1.0])
def test_a_wish_beyond_a_joint_limit_ends_exactly_at_it(name, way):
    governor = governed(name)
    commands = [governor.limit(moved(9.0 * way)) for _ in range(80)]
    margin = load_limits(name).joint_margin_rad
    end = Arm().upper_rad[GRIPPER] - margin if way > 0 else Arm().lower_rad[GRIPPER] + margin
    assert commands[-1].target_rad[GRIPPER] == pytest.approx(end, abs=1e-12)
    assert all("position" in command.clamped for command in commands)
    assert governor.at_rest()


def test_it_names_the_limits_that_shaped_a_wish():
    assert governed().limit(START).clamped == ()
    assert governed().limit(moved(0.01)).clamped == ()
    assert governed().limit(moved(0.26)).clamped == ("acceleration",)
    assert governed().limit(moved(-0.5)).clamped == ("velocity", "acceleration")
    near = moved(Arm().upper_rad[GRIPPER] - START[GRIPPER] - 0.01)
    assert governed(start=near).limit(moved(9.0)).clamped == ("position",)
    assert governed(start=near).limit(moved(0.02, start=near)).clamped == ("position",)


def test_braking_is_never_smoothed():
    governor = governed("so101", max_jerk_rad_s3=60.0)
    gained = np.diff(speeds(governor, [moved(0.8)] * 8 + [moved(-0.8)] * 2))
    assert gained[:6] == pytest.approx(60.0 / RATE_HZ**2 * np.arange(2, 8))
    assert gained[7] == pytest.approx(-60.0 / RATE_HZ), "of a joint with 60 rad/s², in one tick"


@pytest.mark.parametrize("way", [1.0, -1.0])
def test_speeding_up_begins_anew_after_braking(way):
    governor = governed("so101", max_jerk_rad_s3=60.0)
    wishes = [moved(0.8 * way)] * 9 + [None] + [moved(0.8 * way)] * 2
    gained = way * np.diff(speeds(governor, wishes))
    assert gained[8] == pytest.approx(-60.0 / RATE_HZ)
    assert gained[9:] == pytest.approx(60.0 / RATE_HZ**2 * np.array([1, 2]))


def test_it_stops_shortly_before_the_wall_of_the_box():
    governor, arm = governed("so101"), Arm()
    wall = governor.limits.workspace_m[0][0]
    commands = [governor.limit(moved(1.8, joint=0)) for _ in range(90)]
    reached = [arm.tool_position(command.target_rad)[0] for command in commands]
    assert wall <= min(reached) <= wall + 0.02
    assert commands[-1].reason == "workspace" and governor.at_rest()


def test_the_way_home_has_a_box_of_its_own():
    beyond = moved(1.7, joint=0)
    out = governed("so101", start=beyond)
    assert out.limit(moved(0.1, joint=0, start=beyond)).reason == "workspace"
    command = out.limit(moved(0.1, joint=0, start=beyond), returning=True)
    assert (command.state, command.reason) == (LoopState.RETURN, "")
    assert command.target_rad[0] > beyond[0]


def test_an_arm_that_rests_past_a_joint_limit_comes_back_but_goes_no_further():
    past = moved(Arm().upper_rad[GRIPPER] - START[GRIPPER] + 0.05)
    governor = governed("so101", start=past)
    assert governor.limit(moved(0.2, start=past)).target_rad == pytest.approx(past)
    assert [governor.limit(START) for _ in range(60)][-1].target_rad == pytest.approx(START)


# --- holds, starts and stops -----------------------------------------------------------------------------------------


def test_a_hold_says_why():
    governor = governed()
    assert governor.limit(None).reason == "no_decision"
    assert governor.limit(None, "stale").reason == "stale"
    assert governor.limit(np.zeros(5)).reason == "wrong_length"
    assert governor.limit(np.full(6, np.inf)).reason == "not_finite"
    assert governor.limit(np.ones(6, bool)).reason == "not_finite"


def test_whole_numbers_and_lists_are_angles_too():
    wish = [0, 0, 0, 2, 2, 1]
    assert governed().limit(wish).target_rad == pytest.approx(governed().limit(np.array(wish, float)).target_rad)
    assert governed().limit(np.array(wish)).state is LoopState.MOVE


def test_a_start_forgets_the_run_before():
    governor = governed("so101", max_jerk_rad_s3=60.0)
    first = speeds(governor, [moved(0.8)] * 5)
    assert not governor.at_rest()
    start = START.copy()
    governor.start(start)
    start[:] = 0.0  # what is the caller's stays the caller's
    assert governor.at_rest()
    assert speeds(governor, [moved(0.8)] * 5) == pytest.approx(first)


@pytest.mark.parametrize("joints", [np.zeros(5), np.zeros((1, 6)), np.full(6, np.inf)])
def test_it_starts_from_nothing_but_six_finite_angles(joints):
    with pytest.raises(ValueError, match="6 finite"):
        governed().start(joints)


def test_a_stop_that_was_let_go_keeps_nothing_of_its_reason():
    stop = governed().estop
    assert (stop.pressed, stop.reason) == (False, "")
    stop.press("first")
    stop.press("second")
    assert (stop.pressed, stop.reason) == (True, "first")
    stop.release()
    assert (stop.pressed, stop.reason) == (False, "")
    stop.press("third")
    assert stop.reason == "third"


def test_silence_is_an_operators_only_when_longer_than_the_limit():
    dead_man = DeadMan(100.0)
    dead_man.beat(1_000)
    assert [dead_man.silent(1_000 + ns) for ns in (-1, 0, 100_000_000, 100_000_001)] == [True, False, False, True]
