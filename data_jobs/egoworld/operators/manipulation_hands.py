"""`hamer:manipulation`: 21 joints in metres per hand and frame with our own transformer. Writes hand_pose.

MediaPipe's networks find the hands and tell their side; the transformer reads each, and, in temporal mode, what the
frames before say of it. Every frame is looked at, in order. A video does not tell its camera's focal length: give
`focal_px`, else one is assumed. Run by task.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.operators.mediapipe_hands import HandIdentities
from data_jobs.egoworld.operators.template_pose import ASSUMED_VIEW_RAD
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import schema_of
from data_jobs.runs.strict import Strict

if TYPE_CHECKING:
    from actors.hand_reader import HandReader, HandReading

SHIPPED = Path(__file__).resolve().parents[3] / "models" / "pretrained"
Frame = tuple[int, float, int]  # number, seconds, pts
Seen = tuple[Frame, int, "HandReading"]


class ReaderParams(Strict):
    """What `hamer:manipulation` and `foundationpose:manipulation` are both told."""

    weights: Path = Field(SHIPPED / "manipulation_tiny.safetensors", description="of stage 1")
    focal_px: float | None = Field(
        None, gt=0, description="of the camera, at the video's size; default: 70° are assumed"
    )
    model_path: str | None = Field(None, description="accepted from the seed's config; belongs to other backends")


class ManipulationParams(ReaderParams):
    """Parameters of `hamer:manipulation`."""

    temporal_weights: Path = Field(SHIPPED / "manipulation_tiny_temporal.safetensors", description="of stage 2")
    temporal: bool = Field(False, description="let the frames before correct each frame")
    min_score: float = Field(0.0, ge=0, le=1, description="hands that are less sure are left out")


class ManipulationHands:
    """Owns a HandReader; one clip at a time."""

    Params: ClassVar[type[BaseModel]] = ManipulationParams
    FOREIGN: ClassVar[tuple[str, ...]] = ("model_path",)
    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="hamer",
        backend="manipulation",
        version=2,
        table="hand_pose",
        licence="Apache-2.0",
        upstream=(),
        preload=("actors.hand_reader", "ai_edge_litert.interpreter", "data_jobs.egoworld.clip"),
    )

    def __init__(self, params: ManipulationParams) -> None:
        self._params = params
        self._reader: HandReader | None = None

    @staticmethod
    def weights(params: ManipulationParams) -> tuple[str, ...]:
        """MediaPipe's, which find the hands."""
        return ("palm_detection_full", "hand_landmark_full")

    @staticmethod
    def files(params: ManipulationParams) -> dict[str, tuple[Path, str | None]]:
        """The transformer's own."""
        return {"manipulation": (params.weights, None), "temporal": (params.temporal_weights, None)}

    def load(self) -> None:
        """Load and warm up all networks."""
        from actors.hand_reader import HandReader  # here: the command line must not wait for the runtime

        self._reader = HandReader(self._params.weights, self._params.temporal_weights)
        self._reader.warm_up()

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """One row per hand per frame; frames without hands have none."""
        if self._reader is None:
            raise RuntimeError("hamer:manipulation is not loaded; call load() first")
        read = list(read_clip(self._reader, clip, window_frames, self._params.focal_px))
        seen: list[Seen] = [(frame, identity, reading) for _, frame, identity, reading in read]
        joints = self._joints(seen)
        rows = [
            _row(frame, identity, reading, joints[k], camera)
            for k, (camera, frame, identity, reading) in enumerate(read)
            if reading.confidence >= self._params.min_score
        ]
        return pa.Table.from_pylist(rows, schema=schema_of("hand_pose"))

    def _joints(self, seen: list[Seen]) -> dict[int, np.ndarray]:
        """Row number → joints: of the frame alone, or of what its track says."""
        found = {k: reading.joints_m for k, (_, _, reading) in enumerate(seen)}
        if not self._params.temporal or self._reader is None:
            return found
        tracks: dict[tuple[int, str], list[int]] = {}
        for k, (_, identity, reading) in enumerate(seen):
            # A frame whose side was misread was mirrored the other way: it is no part of the track.
            tracks.setdefault((identity, reading.side), []).append(k)
        for rows in tracks.values():
            times = np.array([seen[k][0][1] for k in rows])
            found |= zip(rows, self._reader.fused([seen[k][2] for k in rows], times), strict=True)
        return found

    def close(self) -> None:
        """Free the networks."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def read_clip(
    reader: HandReader, clip: Clip, window_frames: int, focal_px: float | None
) -> Iterator[tuple[np.ndarray, Frame, int, HandReading]]:
    """Every hand of every frame, in order: the camera (3, 3), the frame, the hand's identity, what was read."""
    from models.manipulation.crops import assumed_intrinsics

    stream, identities = reader.finder.open_stream(), HandIdentities()
    for window in ClipReader(clip, window_frames).windows():
        for i, image in enumerate(window.images):
            frame = (int(window.frame_index[i]), float(window.timestamp_s[i]), int(window.pts[i]))
            height, width = image.shape[:2]
            focal = focal_px or width / 2 / float(np.tan(ASSUMED_VIEW_RAD / 2))
            camera = assumed_intrinsics(focal, width, height)
            hands = stream.next(image)
            ids = identities.assign(hands, frame[1])
            for pair in zip(ids, reader.read(image, hands, camera), strict=True):
                yield camera, frame, *pair


def _row(
    frame: Frame, identity: int, reading: HandReading, joints_m: np.ndarray, camera: np.ndarray
) -> dict[str, object]:
    depth = np.maximum(joints_m[:, 2:].astype(np.float64), 1e-3)
    # Rows give pixels whose corners lie at whole numbers, and z on the scale of x from the wrist.
    pixels = (joints_m / depth) @ camera.T[:, :2] + 0.5
    behind = (joints_m[:, 2:] - joints_m[:1, 2:]) * camera[0, 0] / depth[0]
    landmarks = np.concatenate([pixels, behind], 1).astype(np.float32)
    return {
        "frame_index": frame[0],
        "timestamp_s": frame[1],
        "pts": frame[2],
        "pose": (joints_m - joints_m.mean(axis=0)).astype(np.float32).ravel(),
        "hand_id": identity,
        "handedness": reading.side,
        "handedness_score": reading.side_score,
        "score": reading.confidence,
        "landmarks_px": landmarks.ravel(),
        "box": np.concatenate([pixels.min(axis=0), pixels.max(axis=0)]).astype(np.float32),
    }
