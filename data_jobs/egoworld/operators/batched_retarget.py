"""`dex_retarget:batched`: the hands of `hamer` as angles of an Allegro hand of the same side. Writes mapping.

Reads hand_pose only, no image. Each hand's track is retargeted as a whole (models/retarget), so its joints move
smoothly and within their limits and speed. The wrist's place in metres is not known from one picture: arm angles are
not made here. Run by task.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.operators.hand_tracks import SIDES, RobotTrack, mapping_of
from data_jobs.egoworld.records import Clip
from data_jobs.runs.strict import Strict

if TYPE_CHECKING:
    from models.retarget.hand import HandRetargeter


class BatchedParams(Strict):
    """Parameters of `dex_retarget:batched`."""

    objective: Literal["pinch", "vector"] = Field("pinch", description="pinch closes fingers where the person's touch")
    steady: bool = Field(
        True, description="filter the keypoints before the robot follows them (models/retarget/steady.py)"
    )
    scaling: float = Field(1.22, gt=0.2, lt=5, description="size of the robot's hand over the person's")


class BatchedRetarget:
    """Owns one retargeter per side."""

    Params: ClassVar[type[BaseModel]] = BatchedParams
    FOREIGN: ClassVar[tuple[str, ...]] = ()
    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="dex_retarget",
        backend="batched",
        version=2,
        table="mapping",
        licence="Apache-2.0",
        upstream=("hamer",),
        preload=("models.retarget.hand", "models.retarget.steady"),
    )

    def __init__(self, params: BatchedParams) -> None:
        self._params = params
        self._retargeters: dict[str, HandRetargeter] = {}

    @staticmethod
    def weights(params: BatchedParams) -> tuple[str, ...]:
        """None: kinematics needs no weights."""
        return ()

    def load(self) -> None:
        """Build both hands."""
        from models.retarget.hand import HandRetargeter  # here: the command line must not wait for torch

        self._retargeters = {side: HandRetargeter(side, self._params.objective, self._params.scaling) for side in SIDES}

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """One row per row of hand_pose, in the same order."""
        if not self._retargeters:
            raise RuntimeError("dex_retarget:batched is not loaded; call load() first")
        return mapping_of(upstream["hamer"], self._track)

    def _track(self, points_m: np.ndarray, side: str, time_s: np.ndarray) -> RobotTrack:
        from models.retarget.steady import steadied

        points = steadied(points_m, side, time_s) if self._params.steady else points_m
        retargeter = self._retargeters[side]
        motion = retargeter.retarget(points, side, time_s)
        joints = retargeter.hand.tree.joints
        return RobotTrack(f"allegro_{side}", joints, motion.angles_rad, motion.flags, motion.tip_error_m)

    def close(self) -> None:
        """Drop the retargeters."""
        self._retargeters = {}
