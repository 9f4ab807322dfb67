"""`dex_retarget:dex_retargeting`: the hands of `hamer` as angles of a robot hand, by that library. Writes mapping.

An Allegro of the hand's own side, or any hand with a URDF. Frame by frame, smoothed; reads hand_pose only. Run by
task.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.operators.batched_retarget import SIDES
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import schema_of
from data_jobs.runs.strict import Strict

if TYPE_CHECKING:
    from models.retarget.library import LibraryRetargeter


class RobotHand(Strict):
    """A robot hand of the user's: one URDF per side that it has."""

    name: str = Field(min_length=1)
    urdf: dict[Literal["left", "right"], str] = Field(min_length=1, description="side → file")
    wrist: str = Field(description="link with z towards the middle knuckle, x out of the palm")
    tips: dict[Literal["thumb", "index", "middle", "ring"], str] = Field(min_length=1, description="finger → link")


class LibraryParams(Strict):
    """Parameters of `dex_retarget:dex_retargeting`."""

    objective: Literal["pinch", "vector"] = Field("vector", description="pinch: fingers touch where the person's do")
    scaling: float = Field(1.22, gt=0.2, lt=5, description="size of the robot's hand over the person's")
    smoothing: float = Field(0.6, gt=0, le=1, description="share of the new angles in each frame; 1: none")
    robot: RobotHand | None = Field(None, description="default: an Allegro of the hand's side")
    model_path: str | None = Field(None, description="accepted from the seed's config")


class LibraryRetarget:
    """Owns one retargeter per side that the robot has."""

    Params: ClassVar[type[BaseModel]] = LibraryParams
    FOREIGN: ClassVar[tuple[str, ...]] = ("model_path",)
    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="dex_retarget",
        backend="dex_retargeting",
        version=1,
        table="mapping",
        licence="MIT",
        upstream=("hamer",),
        preload=("models.retarget.library", "dex_retargeting.seq_retarget"),
    )

    def __init__(self, params: LibraryParams) -> None:
        self._params = params
        self._retargeters: dict[str, LibraryRetargeter] = {}

    @staticmethod
    def weights(params: LibraryParams) -> tuple[str, ...]:
        """None: kinematics needs no weights."""
        return ()

    @staticmethod
    def files(params: LibraryParams) -> dict[str, tuple[Path, str | None]]:
        """The robot's URDFs: another file gives other angles."""
        given = params.robot.urdf if params.robot else {}
        return {f"{side}.urdf": (Path(path), None) for side, path in sorted(given.items())}

    def load(self) -> None:
        """Build the hands."""
        from models.retarget.library import LibraryHand, LibraryRetargeter, allegro_hand

        params, robot = self._params, self._params.robot
        if robot is None:
            hands = [allegro_hand(side) for side in SIDES]
        else:
            tips: dict[Any, str] = dict(robot.tips)
            hands = [LibraryHand(robot.name, side, Path(p), robot.wrist, tips) for side, p in robot.urdf.items()]
        self._retargeters = {
            hand.side: LibraryRetargeter(hand, params.objective, params.scaling, params.smoothing) for hand in hands
        }

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """One row per row of hand_pose whose side the robot has, in the same order."""
        if not self._retargeters:
            raise RuntimeError("dex_retarget:dex_retargeting is not loaded; call load() first")
        hands = upstream["hamer"]
        parts = [self._track(hands, identity) for identity in pc.unique(hands["hand_id"]).to_pylist()]
        table = pa.concat_tables([schema_of("mapping").empty_table(), *parts])
        return table.sort_by([("frame_index", "ascending"), ("hand_id", "ascending")]).combine_chunks()

    def _track(self, hands: pa.Table, identity: int) -> pa.Table:
        mine = hands.filter(pc.equal(hands["hand_id"], identity)).sort_by("frame_index")
        seen = mine["handedness"].to_pylist()
        # A track is one hand: frames in which its side was misread do not change the robot's hand.
        side = max(SIDES, key=seen.count)
        if side not in self._retargeters:
            return schema_of("mapping").empty_table()
        retargeter = self._retargeters[side]
        points = np.stack(mine["pose"].to_numpy(zero_copy_only=False)).astype(np.float64).reshape(-1, 21, 3)
        motion = retargeter.retarget(points, side, mine["timestamp_s"].to_numpy())
        values = {
            **{name: mine[name] for name in ("frame_index", "timestamp_s", "pts", "hand_id")},
            "pose": list(motion.angles_rad.astype(np.float32)),
            "robot": [retargeter.hand.name] * len(mine),
            "flags": motion.flags.astype(np.int64),
            "tip_error_m": list(motion.tip_error_m.astype(np.float32)),
            "joints": [list(motion.joints)] * len(mine),
        }
        return pa.table(values, schema=schema_of("mapping"))

    def close(self) -> None:
        """Drop the retargeters."""
        self._retargeters = {}
