"""`hamer:mediapipe`: 21 hand landmarks per hand and frame with MediaPipe's models. Writes hand_pose.

Every frame of the clip is looked at, in order, by one tracking stream; hands keep their id while they overlap from
frame to frame. Run by task.py; embedded default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from actors.messages import Hand
from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.operators.geometry import iou
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import schema_of
from data_jobs.runs.strict import Strict

if TYPE_CHECKING:
    from actors.hand_finder import HandFinder

# A hand that moved so far between two frames that the boxes barely overlap is taken for a new one.
SAME_HAND_IOU = 0.2

# A hand out of sight for longer than this comes back under a new id.
MEMORY_S = 0.5


class HandsParams(Strict):
    """Parameters of `hamer:mediapipe`."""

    variant: Literal["full", "lite"] = Field("full", description="size of both MediaPipe networks")
    max_hands: int = Field(2, ge=1, le=8, description="hands tracked at a time")
    model_path: str | None = Field(None, description="accepted from the seed's config; belongs to other backends")


class MediapipeHands:
    """Owns a HandFinder; one clip at a time."""

    Params: ClassVar[type[BaseModel]] = HandsParams
    FOREIGN: ClassVar[tuple[str, ...]] = ("model_path",)
    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="hamer",
        backend="mediapipe",
        version=1,
        table="hand_pose",
        licence="Apache-2.0",
        upstream=(),
        preload=("actors.hand_finder", "ai_edge_litert.interpreter", "data_jobs.egoworld.clip"),
    )

    def __init__(self, params: HandsParams) -> None:
        self._params = params
        self._finder: HandFinder | None = None

    @staticmethod
    def weights(params: HandsParams) -> tuple[str, ...]:
        """Palm detector and landmark network of the chosen variant."""
        return (f"palm_detection_{params.variant}", f"hand_landmark_{params.variant}")

    def load(self) -> None:
        """Load and warm up the two networks."""
        from actors.hand_finder import HandFinder  # here: the command line must not wait for the runtime

        self._finder = HandFinder(variant=self._params.variant, max_hands=self._params.max_hands, threads=1)
        self._finder.warm_up()

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """One row per hand per frame; frames without hands have none."""
        if self._finder is None:
            raise RuntimeError("hamer:mediapipe is not loaded; call load() first")
        stream, identities, schema = self._finder.open_stream(), HandIdentities(), schema_of("hand_pose")
        tables = [schema.empty_table()]
        for window in ClipReader(clip, window_frames).windows():
            rows: list[dict[str, object]] = []
            for i, image in enumerate(window.images):
                frame = (int(window.frame_index[i]), float(window.timestamp_s[i]), int(window.pts[i]))
                hands = stream.next(image)
                ids = identities.assign(hands, frame[1])
                rows += [_row(frame, hand_id, hand) for hand_id, hand in zip(ids, hands, strict=True)]
            # Kept as columns, not as Python objects, so that a long clip takes little more memory than a short one.
            tables.append(pa.Table.from_pylist(rows, schema=schema))
        return pa.concat_tables(tables).combine_chunks()

    def close(self) -> None:
        """Free the networks."""
        if self._finder is not None:
            self._finder.close()
            self._finder = None


class HandIdentities:
    """Gives each hand the id of the recent hand that it overlaps most, else a new one."""

    def __init__(self) -> None:
        self._next_id = 0
        self._recent: dict[int, tuple[float, np.ndarray]] = {}  # id → (time_s, box_px)

    def assign(self, hands: list[Hand], time_s: float) -> list[int]:
        """Ids in the order of `hands`; pairs are taken greedily by overlap, so the result is order-free."""
        self._recent = {k: v for k, v in self._recent.items() if time_s - v[0] <= MEMORY_S}
        pairs = sorted(
            (-iou(hand.box_px, box), known, i)
            for i, hand in enumerate(hands)
            for known, (_, box) in self._recent.items()
            if iou(hand.box_px, box) >= SAME_HAND_IOU
        )
        ids: dict[int, int] = {}
        for _, known, i in pairs:
            if i not in ids and known not in ids.values():
                ids[i] = known
        for i in range(len(hands)):
            if i not in ids:
                ids[i] = self._next_id
                self._next_id += 1
        self._recent |= {ids[i]: (time_s, hand.box_px) for i, hand in enumerate(hands)}
        return [ids[i] for i in range(len(hands))]


def _row(frame: tuple[int, float, int], hand_id: int, hand: Hand) -> dict[str, object]:
    return {
        "frame_index": frame[0],
        "timestamp_s": frame[1],
        "pts": frame[2],
        "pose": hand.world_landmarks_m.ravel(),
        "hand_id": hand_id,
        "handedness": hand.side,
        "handedness_score": hand.side_score,
        "score": hand.presence_score,
        "landmarks_px": hand.landmarks_px.ravel(),
        "box": hand.box_px,
    }
