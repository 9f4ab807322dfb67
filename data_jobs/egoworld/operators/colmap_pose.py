"""`fast3r:pycolmap`: where the camera was, and sparse points of the scene. Writes fast3r_pose.

The unit is the clip's own: one moving camera does not tell metres. A few frames, spread over the clip, are matched with
each other and reconstructed (actors/reconstructor.py). Every clip gets its rows: one that only turns, stands still or
shows nothing says so in `outcome`. Run by task.py. Needs the optional package pycolmap.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.operators.sampling import frames_every
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import schema_of
from data_jobs.runs.errors import RunError
from data_jobs.runs.strict import Strict


class ColmapParams(Strict):
    """Parameters of `fast3r:pycolmap`."""

    interval_s: float = Field(0.5, gt=0, description="seconds between views")
    max_views: int = Field(20, ge=3, le=200, description="in a clip that would need more they lie further apart")
    focal_px: float | None = Field(None, gt=0, description="of an undistorted camera, if known; else it is found too")
    image_size: int = Field(800, ge=128, description="longest side of the pictures that are matched, pixels")


class ColmapPose:
    """Owns nothing between clips."""

    Params: ClassVar[type[BaseModel]] = ColmapParams
    FOREIGN: ClassVar[tuple[str, ...]] = ()
    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="fast3r",
        backend="pycolmap",
        version=1,
        table="fast3r_pose",
        licence="BSD-3-Clause",
        upstream=(),
        preload=("actors.reconstructor", "data_jobs.egoworld.clip"),
    )

    def __init__(self, params: ColmapParams) -> None:
        self._params = params

    @staticmethod
    def weights(params: ColmapParams) -> tuple[str, ...]:
        """None: geometry needs no weights."""
        return ()

    @classmethod
    def specified(cls, params: ColmapParams) -> OperatorSpec:
        """Refuse a plan that could not run; RunError says what to install."""
        if importlib.util.find_spec("pycolmap") is None:
            raise RunError("fast3r:pycolmap needs the package pycolmap: install the extra `sfm` (pip install pycolmap)")
        return cls.spec

    def load(self) -> None:
        """Nothing to load."""

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """One row per view. Poses are NaN where the view could not be placed."""
        from actors.reconstructor import reconstruct

        reader = ClipReader(clip, window_frames)
        times_s = reader.times_s()
        spread_s = float(times_s[-1] - times_s[0]) / self._params.max_views * (1 + 1e-9)
        views = frames_every(clip, reader, max(self._params.interval_s, spread_s), self._params.max_views)
        shrink = min(1.0, self._params.image_size / max(clip.width, clip.height))
        frames: list[tuple[int, float, int]] = []
        with tempfile.TemporaryDirectory(prefix="reafference-sfm-") as name:
            pictures, work = Path(name) / "pictures", Path(name) / "work"
            pictures.mkdir()
            work.mkdir()
            for window in reader.frames_at(views):
                frames.append((int(window.frame_index[0]), float(window.timestamp_s[0]), int(window.pts[0])))
                small = cv2.resize(window.images[0], None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
                cv2.imwrite(str(pictures / _file(frames[-1][0])), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
            focal_px = self._params.focal_px
            pinhole = (focal_px * shrink, clip.width * shrink / 2, clip.height * shrink / 2) if focal_px else None
            found = reconstruct(pictures, [_file(index) for index, _, _ in frames], work, pinhole)
        rows = [
            {
                "frame_index": index,
                "timestamp_s": time_s,
                "pose": found.camera_from_world[i].astype(np.float32),
                "pts": pts,
                "outcome": found.outcome,
                "camera": (found.camera_px[i] / shrink).astype(np.float32),
                "reprojection_px": float(found.reprojection_px[i] / shrink),
                "points": found.points[i].astype(np.float32).ravel(),
            }
            for i, (index, time_s, pts) in enumerate(frames)
        ]
        return pa.Table.from_pylist(rows, schema=schema_of("fast3r_pose"))

    def close(self) -> None:
        """Nothing is held between clips."""


def _file(frame_index: int) -> str:
    return f"{frame_index:09d}.png"
