"""`dex_retarget:dex_retargeting`: an Allegro, a Shadow hand, and a hand of the user's own with two fingers."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from data_jobs.egoworld.operators.library_retarget import LibraryParams, LibraryRetarget
from data_jobs.egoworld.operators.registry import operator_class
from data_jobs.egoworld.schemas import schema_of
from models.errors import RobotFileInvalid, UnknownRobot, WrongHand
from models.kinematics import shadow
from models.kinematics.allegro import TIPS as ALLEGRO_TIPS
from models.kinematics.allegro import allegro
from models.kinematics.tree import TreeKinematics
from models.kinematics.urdf import read_urdf
from models.retarget.keypoints import TIPS, from_wrist
from models.retarget.library import LibraryHand, LibraryRetargeter, allegro_hand
from tests.data_jobs.egoworld.test_batched_retarget import hand_pose

# Two fingers of two joints each, 9 and 7 cm long, beside each other; tips as in models/kinematics/allegro_*.urdf.
TWO_FINGERS = """<?xml version="1.0"?>
<robot name="two"><link name="wrist"/>
{fingers}
</robot>"""
FINGER = """<link name="{n}_base"/><link name="{n}_far"/><link name="{n}_tip"/>
<joint name="{n}_0" type="revolute"><parent link="wrist"/><child link="{n}_base"/><origin xyz="0 {y} 0.08"/>
<axis xyz="0 1 0"/><limit lower="-0.2" upper="1.6" effort="1" velocity="6"/></joint>
<joint name="{n}_1" type="revolute"><parent link="{n}_base"/><child link="{n}_far"/><origin xyz="0 0 0.05"/>
<axis xyz="0 1 0"/><limit lower="0" upper="1.7" effort="1" velocity="6"/></joint>
<joint name="{n}_t" type="fixed"><parent link="{n}_far"/><child link="{n}_tip"/><origin xyz="0 0 0.04"/></joint>"""


@pytest.fixture(scope="module")
def table_and_hands():
    operator = LibraryRetarget(LibraryParams())
    operator.load()
    hands = hand_pose(seconds=1.0)
    table = operator.run(None, {"hamer": hands}, 16)
    assert operator.run(None, {"hamer": hands}, 3).equals(table)
    return table, hands


def test_both_sides_get_angles_within_limits_and_speed(table_and_hands):
    table, hands = table_and_hands
    assert table.schema == schema_of("mapping") and len(table) == len(hands)
    for side, identity in (("right", 0), ("left", 1)):
        robot = allegro(side)
        rows = [row for row in table.to_pylist() if row["hand_id"] == identity]
        assert {row["robot"] for row in rows} == {f"allegro_{side}"}
        assert {tuple(row["joints"]) for row in rows} == {tuple(robot.tree.joints)}
        angles, times = np.array([row["pose"] for row in rows]), np.array([row["timestamp_s"] for row in rows])
        assert (angles >= robot.lower_rad - 1e-6).all() and (angles <= robot.upper_rad + 1e-6).all()
        speed = np.abs(np.diff(angles, axis=0)) / np.diff(times)[:, None]
        assert (speed <= robot.speed_rad_s * (1 + 1e-3)).all()
        # The three fingers reach; the Allegro's thumb starts on the other side of the palm (docs/retargeting.md).
        assert np.nanmean([row["tip_error_m"][:3] for row in rows]) < 0.012


def test_the_errors_are_those_of_the_angles(table_and_hands):
    """Against our own kinematics, which is not the library's."""
    table, hands = table_and_hands
    row = next(row for row in table.to_pylist() if row["hand_id"] == 0 and row["frame_index"] == 20)
    given = next(row for row in hands.to_pylist() if row["hand_id"] == 0 and row["frame_index"] == 20)
    seen = from_wrist(torch.tensor(given["pose"]).double().reshape(1, 21, 3), "right").points_m[0].numpy()
    at = allegro("right").kinematics((*ALLEGRO_TIPS, "wrist"))(torch.tensor([row["pose"]]).double())[0].numpy()
    errors = np.linalg.norm(at[:4] - at[4] - 1.22 * seen[list(TIPS.values())], axis=1)
    assert row["tip_error_m"] == pytest.approx(errors, abs=1e-5)


def test_smoothing_calms_the_joints():
    hands = hand_pose(("right",), 1.0)
    noisy = np.stack(hands["pose"].to_numpy()) + np.random.default_rng(0).normal(0, 0.002, (len(hands), 63))
    column = hands.column_names.index("pose")
    hands = hands.set_column(column, "pose", pa.array(list(noisy.astype(np.float32)), hands.schema.field("pose").type))

    def step(smoothing):
        operator = LibraryRetarget(LibraryParams(smoothing=smoothing))
        operator.load()
        angles = np.array(operator.run(None, {"hamer": hands}, 16)["pose"].to_pylist())
        return np.abs(np.diff(angles, axis=0)).mean()

    assert step(0.3) < 0.8 * step(1.0)


def test_a_shadow_hand_follows_with_five_fingers():
    """Against our own kinematics, which is not the library's; the little finger too, which the table does not judge."""
    operator = LibraryRetarget(LibraryParams(robot="shadow", smoothing=1.0))
    operator.load()
    hands = hand_pose(seconds=1.0)
    slowly = pa.array(5 * hands["timestamp_s"].to_numpy())  # a Shadow hand's joints move 2 rad/s
    hands = hands.set_column(hands.column_names.index("timestamp_s"), "timestamp_s", slowly)
    table = operator.run(None, {"hamer": hands}, 16)
    for side, identity in (("right", 0), ("left", 1)):
        tree = read_urdf(shadow.urdf_path(side))
        rows = [row for row in table.to_pylist() if row["hand_id"] == identity]
        assert {row["robot"] for row in rows} == {f"shadow_{side}"}
        assert {tuple(row["joints"]) for row in rows} == {tree.joints} and len(tree.joints) == 22
        angles = np.array([row["pose"] for row in rows])
        assert (angles >= tree.lower_rad - 1e-6).all() and (angles <= tree.upper_rad + 1e-6).all()
        given = np.stack([row["pose"] for row in hands.to_pylist() if row["hand_id"] == identity])
        seen = from_wrist(torch.tensor(given).double().reshape(-1, 21, 3), side).points_m.numpy()
        links = (*shadow.tips(side).values(), "wrist")
        at = TreeKinematics(tree, links, torch.float64)(torch.tensor(angles).double()).numpy()
        seen = np.stack([seen[..., 1], -seen[..., 0], seen[..., 2]], -1)  # the palm's y points out of its back
        calm = np.array([row["flags"] for row in rows]) == 0
        errors = np.linalg.norm(at[:, :5] - at[:, 5:] - 1.03 * seen[:, [4, 8, 12, 16, 20]], axis=2)[calm]
        assert calm.sum() > 25 and (errors.mean(axis=0) < 0.015).all(), errors.mean(axis=0)


def test_the_left_shadow_hand_mirrors_the_right_one():
    right, left = (read_urdf(shadow.urdf_path(side)) for side in ("right", "left"))
    share = np.random.default_rng(0).uniform(size=(50, 22))
    angles = torch.tensor(right.lower_rad + share * (right.upper_rad - right.lower_rad))
    at = [
        TreeKinematics(tree, tuple(shadow.tips(side).values()), torch.float64)(angles).numpy()
        for side, tree in (("right", right), ("left", left))
    ]
    assert np.allclose(at[0] * [-1, 1, 1], at[1], atol=1e-9)


def test_a_hand_of_the_users_own(tmp_path):
    path = tmp_path / "two.urdf"
    fingers = [FINGER.format(n="a", y=0.02), FINGER.format(n="b", y=-0.02)]
    path.write_text(TWO_FINGERS.format(fingers="\n".join(fingers)))
    robot = {
        "name": "two_fingers",
        "urdf": {"right": str(path)},
        "wrist": "wrist",
        "tips": {"index": "a_tip", "ring": "b_tip"},
    }
    operator = LibraryRetarget(LibraryParams.model_validate({"robot": robot, "scaling": 1.0}))
    operator.load()
    table = operator.run(None, {"hamer": hand_pose(seconds=0.5)}, 16)
    assert set(table["hand_id"].to_pylist()) == {0}  # it has no left side
    row = table.to_pylist()[0]
    assert (row["robot"], row["joints"]) == ("two_fingers", ["a_0", "a_1", "b_0", "b_1"])
    assert np.isnan(np.array(row["tip_error_m"])).tolist() == [False, True, False, True]
    with pytest.raises(RobotFileInvalid, match="has no link c_tip"):
        LibraryRetargeter(LibraryHand("x", "right", path, "wrist", {"index": "c_tip"}))
    with pytest.raises(RobotFileInvalid, match="joint a_0 moves the wrist a_base"):
        LibraryRetargeter(LibraryHand("x", "right", path, "a_base", {"index": "a_tip"}))
    with pytest.raises(UnknownRobot, match="tips some of thumb"):
        LibraryHand("x", "right", path, "wrist", {"sixth": "a_tip"})


def test_missing_points_are_held_and_flagged():
    retargeter = LibraryRetargeter(allegro_hand("right"))
    hands = hand_pose(("right",), 0.3)
    points = np.stack(hands["pose"].to_numpy()).astype(float).reshape(-1, 21, 3)
    points[2, 8], points[4] = np.nan, np.nan  # an index tip, then the whole hand
    motion = retargeter.retarget(points, "right", hands["timestamp_s"].to_numpy())
    assert (motion.flags[[2, 4]] & 3).tolist() == [1, 2]
    assert (
        np.isnan(motion.tip_error_m[2]).tolist() == [True, False, False, False]
        and np.isnan(motion.tip_error_m[4]).all()
    )
    assert np.isfinite(motion.angles_rad).all()
    with pytest.raises(WrongHand):
        retargeter.retarget(points, "left", hands["timestamp_s"].to_numpy())


def test_the_operator_is_found_by_its_name():
    assert operator_class("dex_retarget", "dex_retargeting") is LibraryRetarget
