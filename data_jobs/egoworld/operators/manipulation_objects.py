"""`foundationpose:manipulation`: objects in and beside hands with our transformer, no CAD model. Writes object_pose.

MediaPipe's networks find the hands; in the crop of each the transformer tells kind and pose of the objects that it is
sure of. It looks for the hands itself, so that any backend of `hamer` may write hand_pose. A video does not tell its
camera's focal length: give `focal_px`, else one is assumed and said so in `flags`. Run by task.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
from pydantic import BaseModel, Field

from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.operators.manipulation_hands import ReaderParams, read_clip
from data_jobs.egoworld.operators.template_pose import GUESSED_CAMERA, pose_7
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import schema_of

if TYPE_CHECKING:
    from actors.hand_reader import HandReader

# Queries of one hand: what is told by query q beside hand h has the identity QUERIES · h + q.
QUERIES = 10


class ManipulationObjectParams(ReaderParams):
    """Parameters of `foundationpose:manipulation`."""

    min_score: float = Field(0.5, ge=0.5, le=1, description="objects that are less sure are left out")


class ManipulationObjects:
    """Owns a HandReader; one clip at a time."""

    Params: ClassVar[type[BaseModel]] = ManipulationObjectParams
    FOREIGN: ClassVar[tuple[str, ...]] = ("model_path",)
    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="foundationpose",
        backend="manipulation",
        version=1,
        table="object_pose",
        licence="Apache-2.0",
        upstream=(),
        preload=("actors.hand_reader", "ai_edge_litert.interpreter", "data_jobs.egoworld.clip"),
    )

    def __init__(self, params: ManipulationObjectParams) -> None:
        self._params = params
        self._reader: HandReader | None = None

    @staticmethod
    def weights(params: ManipulationObjectParams) -> tuple[str, ...]:
        """MediaPipe's, which find the hands."""
        return ("palm_detection_full", "hand_landmark_full")

    @staticmethod
    def files(params: ManipulationObjectParams) -> dict[str, tuple[Path, str | None]]:
        """The transformer's own."""
        return {"manipulation": (params.weights, None)}

    def load(self) -> None:
        """Load and warm up all networks."""
        from actors.hand_reader import HandReader  # here: the command line must not wait for the runtime

        self._reader = HandReader(self._params.weights, temporal=None)
        self._reader.warm_up()

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """One row per object, hand and frame; frames without hands have none."""
        if self._reader is None:
            raise RuntimeError("foundationpose:manipulation is not loaded; call load() first")
        flags = 0 if self._params.focal_px else GUESSED_CAMERA
        rows = []
        for _, frame, identity, reading in read_clip(self._reader, clip, window_frames, self._params.focal_px):
            when = dict(zip(("frame_index", "timestamp_s", "pts"), frame, strict=True))
            rows += [
                {**when, "pose": pose_7(thing.camera_from_object), "object_id": QUERIES * identity + thing.query,
                 "object": thing.kind, "score": thing.confidence, "flags": flags}
                for thing in reading.things
                if thing.confidence >= self._params.min_score
            ]  # fmt: skip
        return pa.Table.from_pylist(rows, schema=schema_of("object_pose"))

    def close(self) -> None:
        """Free the networks."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
