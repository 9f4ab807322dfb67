"""operators/batched_retarget.py: one row per hand and frame, both sides, limits, missing hands, equal bytes."""

import numpy as np
import pyarrow as pa
import pytest

from data_jobs.egoworld.operators.batched_retarget import BatchedParams, BatchedRetarget
from data_jobs.egoworld.operators.registry import operator_class
from data_jobs.egoworld.schemas import schema_of
from models.kinematics.allegro import allegro
from train_jobs.manipulation.human_hand import hand_track


@pytest.fixture(scope="module")
def operator():
    operator = BatchedRetarget(BatchedParams())
    operator.load()
    yield operator
    operator.close()


def hand_pose(sides=("right", "left"), seconds=2.0):
    """A table as `hamer:mediapipe` writes it: landmarks about the hand's own centre, frames before hands."""
    tracks = [hand_track(seconds, seed=k, side=side) for k, side in enumerate(sides)]
    rows = [
        {
            "frame_index": f, "timestamp_s": float(t), "pts": 512 * f, "hand_id": k, "handedness": sides[k],
            "pose": (track.keypoints_m[f] - track.keypoints_m[f].mean(0)).ravel().astype(np.float32),
            "handedness_score": 1.0, "score": 1.0, "landmarks_px": np.zeros(63, np.float32),
            "box": np.zeros(4, np.float32),
        }
        for f, t in enumerate(tracks[0].time_s)
        for k, track in enumerate(tracks)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema_of("hand_pose"))


def test_every_hand_of_every_frame_gets_angles_within_limits(operator):
    hands = hand_pose()
    table = operator.run(None, {"hamer": hands}, 16)
    assert table.schema == schema_of("mapping") and len(table) == len(hands)
    for column in ("frame_index", "timestamp_s", "pts", "hand_id"):
        assert table[column].to_pylist() == hands[column].to_pylist()
    for row in table.to_pylist():
        side = ("right", "left")[row["hand_id"]]
        hand = allegro(side)
        assert row["robot"] == f"allegro_{side}"
        angles = np.array(row["pose"])
        assert (angles >= hand.lower_rad - 1e-6).all() and (angles <= hand.upper_rad + 1e-6).all()
    assert np.nanmedian(np.array(table["tip_error_m"].to_pylist())) < 0.02
    assert operator.run(None, {"hamer": hands}, 3).equals(table)


def test_one_misread_side_does_not_change_the_robots_hand(operator):
    hands = hand_pose(("right",))
    sides = hands["handedness"].to_pylist()
    sides[7] = "left"
    column = hands.column_names.index("handedness")
    table = operator.run(None, {"hamer": hands.set_column(column, "handedness", pa.array(sides))}, 16)
    assert set(table["robot"].to_pylist()) == {"allegro_right"}


def test_a_clip_without_hands_gives_an_empty_table(operator):
    table = operator.run(None, {"hamer": schema_of("hand_pose").empty_table()}, 16)
    assert len(table) == 0 and table.schema == schema_of("mapping")


def test_the_operator_is_found_by_its_seed_name():
    assert operator_class("dex_retarget", None) is BatchedRetarget
    assert operator_class("dex_retarget", "batched") is BatchedRetarget


def test_filtered_keypoints_make_calmer_joints(operator):
    hands = hand_pose(("right",))
    raw = BatchedRetarget(BatchedParams(steady=False))
    raw.load()
    calm, shaking = (
        np.square(np.diff(np.array(one.run(None, {"hamer": hands}, 16)["pose"].to_pylist()), axis=0)).mean()
        for one in (operator, raw)
    )
    assert calm < 0.7 * shaking
