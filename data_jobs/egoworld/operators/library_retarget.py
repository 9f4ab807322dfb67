"""`dex_retarget:dex_retargeting`: the hands of `hamer` as angles of a robot hand, by that library. Writes mapping.

An Allegro or a Shadow hand of the hand's own side, or any hand with a URDF. Frame by frame, smoothed; reads hand_pose
only. Run by task.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.operators.hand_tracks import SIDES, RobotTrack, mapping_of
from data_jobs.egoworld.records import Clip
from data_jobs.runs.strict import Strict

if TYPE_CHECKING:
    from models.retarget.library import LibraryRetargeter


class RobotHand(Strict):
    """A robot hand of the user's: one URDF per side that it has."""

    name: str = Field(min_length=1)
    urdf: dict[Literal["left", "right"], str] = Field(min_length=1, description="side → file")
    wrist: str = Field(description="link with z towards the middle knuckle, x out of the palm")
    tips: dict[Literal["thumb", "index", "middle", "ring", "little"], str] = Field(
        min_length=1, description="finger → link"
    )


class LibraryParams(Strict):
    """Parameters of `dex_retarget:dex_retargeting`."""

    objective: Literal["pinch", "vector"] = Field("vector", description="pinch: fingers touch where the person's do")
    scaling: float | None = Field(
        None,
        gt=0.2,
        lt=5,
        description="size of the robot's hand over the person's; default: allegro 1.22, shadow 1.03, other hands 1",
    )
    smoothing: float = Field(0.6, gt=0, le=1, description="share of the new angles in each frame; 1: none")
    robot: Literal["allegro", "shadow"] | RobotHand = "allegro"
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
        """URDFs of the user's: another file gives other angles."""
        given = {} if isinstance(params.robot, str) else params.robot.urdf
        return {f"{side}.urdf": (Path(path), None) for side, path in sorted(given.items())}

    def load(self) -> None:
        """Build the hands."""
        from models.retarget.library import HANDS, LibraryHand, LibraryRetargeter

        params, robot = self._params, self._params.robot
        if isinstance(robot, str):
            hands = [HANDS[robot](side) for side in SIDES]
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
        return mapping_of(upstream["hamer"], self._track)

    def _track(self, points_m: np.ndarray, side: str, time_s: np.ndarray) -> RobotTrack | None:
        retargeter = self._retargeters.get(side)
        if retargeter is None:
            return None
        motion = retargeter.retarget(points_m, side, time_s)
        return RobotTrack(retargeter.hand.name, motion.joints, motion.angles_rad, motion.flags, motion.tip_error_m)

    def close(self) -> None:
        """Drop the retargeters."""
        self._retargeters = {}
