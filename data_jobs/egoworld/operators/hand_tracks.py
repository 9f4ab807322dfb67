"""Hands → a robot's joints, one track after the other: what both backends of `dex_retarget` have in common.

In: hand_pose, and what retargets one track of one side. Out: mapping. Called by batched_retarget.py and
library_retarget.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.egoworld.schemas import schema_of

SIDES = ("left", "right")


@dataclass(frozen=True, slots=True)
class RobotTrack:
    """T frames of one robot hand with J joints."""

    robot: str
    joints: Sequence[str]
    angles_rad: np.ndarray  # (T, J)
    flags: np.ndarray  # (T,) models.retarget.motion.Flag
    tip_error_m: np.ndarray  # (T, 4) index, middle, ring, thumb


# Keypoints (T, 21, 3) in metres, their side, times (T,) in seconds → a track, or None where the robot lacks that side.
Retarget = Callable[[np.ndarray, str, np.ndarray], RobotTrack | None]


def mapping_of(hands: pa.Table, retarget: Retarget) -> pa.Table:
    """One row per row of hand_pose whose side the robot has, in the same order."""
    parts = [_track(hands, identity, retarget) for identity in pc.unique(hands["hand_id"]).to_pylist()]
    table = pa.concat_tables([schema_of("mapping").empty_table(), *parts])
    return table.sort_by([("frame_index", "ascending"), ("hand_id", "ascending")]).combine_chunks()


def _track(hands: pa.Table, identity: int, retarget: Retarget) -> pa.Table:
    mine = hands.filter(pc.equal(hands["hand_id"], identity)).sort_by("frame_index")
    seen = mine["handedness"].to_pylist()
    # A track is one hand: frames in which its side was misread do not change the robot's hand.
    side = max(SIDES, key=seen.count)
    points = np.stack(mine["pose"].to_numpy(zero_copy_only=False)).astype(np.float64).reshape(-1, 21, 3)
    track = retarget(points, side, mine["timestamp_s"].to_numpy())
    if track is None:
        return schema_of("mapping").empty_table()
    values = {
        **{name: mine[name] for name in ("frame_index", "timestamp_s", "pts", "hand_id")},
        "pose": list(track.angles_rad.astype(np.float32)),
        "robot": [track.robot] * len(mine),
        "flags": track.flags.astype(np.int64),
        "tip_error_m": list(track.tip_error_m.astype(np.float32)),
        "joints": [list(track.joints)] * len(mine),
    }
    return pa.table(values, schema=schema_of("mapping"))
