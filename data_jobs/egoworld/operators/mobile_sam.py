"""`sam2:mobile_sam`: one mask per object on prompted frames, with MobileSAM. Writes masks.

Every `prompt_interval_s` a frame is segmented: hands from their boxes, the object in a hand from the pinch point, other
objects from detector boxes. Each object keeps its identity from prompt to prompt. Frames between prompts have no
rows: image-mode SAM does not track, and nothing is invented. Run by task.py; embedded default.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from actors.messages import Mask
from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.operators.geometry import encode_rle, mask_box, mask_iou
from data_jobs.egoworld.operators.identity import ObjectIdentities
from data_jobs.egoworld.operators.prompts import Ask, detector_asks, hand_asks
from data_jobs.egoworld.operators.sampling import frames_every
from data_jobs.egoworld.records import Clip, Window
from data_jobs.egoworld.schemas import schema_of
from data_jobs.runs.strict import Strict

if TYPE_CHECKING:
    from actors.detector import ObjectDetector
    from actors.segmenter import PromptSegmenter

# A point prompt between two fingers can return the hand, the table or nothing of use. What is kept as "held" must be
# its own thing: barely overlapping any hand, no table or wall (compared with the hand that holds it), and stable.
HELD_MAX_HAND_OVERLAP = 0.3
HELD_MAX_AREA_IN_HANDS = 3.0
HELD_MIN_PREDICTED_IOU = 0.7
HELD_MIN_STABILITY = 0.8

# A detector box around clutter can give a striped mask of half the picture; those measure 0.2 to 0.5, good ones 0.9.
DETECTED_MIN_STABILITY = 0.6

# Two prompts that return the same pixels are one object; the first asked wins (hands, then held, then detections).
SAME_OBJECT_IOU = 0.7


class Prompting(Strict):
    """When and how prompts are made; the seed's keys, thresholds and defaults."""

    source: Literal["hands+detector", "hands", "detector", "groundingdino"] = Field(
        "hands+detector", description="groundingdino (the seed's word) asks for text prompts: here as hands+detector"
    )
    prompt_interval_s: float = Field(2.0, gt=0, description="seconds between prompted frames")
    max_prompts_per_clip: int = Field(60, ge=1)
    max_boxes_per_frame: int = Field(6, ge=0, description="detector boxes used per frame, best first")
    box_threshold: float = Field(0.35, ge=0, le=1)
    text_threshold: float | None = Field(None, ge=0, le=1, description="text prompts only")
    nms_iou: float = Field(0.5, ge=0, le=1)
    min_box_area: float = Field(256, ge=0, description="pixels")
    gd_config: str | None = None
    gd_checkpoint: str | None = None
    gd_device: str | None = None
    prompt_text: str | None = Field(None, description="text prompts only")


class MasksParams(Strict):
    """Parameters of `sam2:mobile_sam`, and those of the seed's SAM 2 block, which it accepts and names as unused."""

    prompting: Prompting = Prompting()
    checkpoint: str | None = None
    config: str | None = None
    device: str | None = None
    precision: str | None = None
    vos_optimized: bool | None = None


class MobileSamMasks:
    """Owns a PromptSegmenter and an ObjectDetector; one clip at a time."""

    Params: ClassVar[type[BaseModel]] = MasksParams
    FOREIGN: ClassVar[tuple[str, ...]] = (
        "checkpoint",
        "config",
        "device",
        "precision",
        "vos_optimized",
        "prompting.text_threshold",
        "prompting.gd_config",
        "prompting.gd_checkpoint",
        "prompting.gd_device",
        "prompting.prompt_text",
    )
    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="sam2",
        backend="mobile_sam",
        version=1,
        table="masks",
        licence="Apache-2.0",
        upstream=("hamer",),
        preload=("actors.segmenter", "actors.detector", "torch", "scipy.optimize", "timm", "data_jobs.egoworld.clip"),
    )

    def __init__(self, params: MasksParams) -> None:
        self._prompting = params.prompting
        self._segmenter: PromptSegmenter | None = None
        self._detector: ObjectDetector | None = None

    @staticmethod
    def weights(params: MasksParams) -> tuple[str, ...]:
        """The segmenter, and the detector unless only hands prompt."""
        return ("mobile_sam",) if params.prompting.source == "hands" else ("mobile_sam", "efficientdet_lite0")

    def load(self) -> None:
        """Load and warm up what the prompts need."""
        from actors.detector import ObjectDetector  # here: the command line must not wait for torch
        from actors.segmenter import PromptSegmenter

        self._segmenter = PromptSegmenter(threads=1)
        self._segmenter.warm_up()
        if self._prompting.source != "hands":
            self._detector = ObjectDetector(score_threshold=self._prompting.box_threshold, threads=1)
            self._detector.warm_up()

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """One row per object per prompted frame; a prompted frame without objects has one row, object_id -1."""
        reader = ClipReader(clip, window_frames)
        wanted = frames_every(clip, reader, self._prompting.prompt_interval_s, self._prompting.max_prompts_per_clip)
        hands_at = defaultdict(list)
        if self._prompting.source != "detector":
            hands = upstream["hamer"]  # as Python objects only where they are needed: a clip may have 100,000 rows
            for row in hands.filter(pc.is_in(hands["frame_index"], pa.array(wanted, pa.int64()))).to_pylist():
                hands_at[row["frame_index"]].append(row)
        identities, rows = ObjectIdentities(), []
        for window in reader.frames_at(wanted):
            for i in range(len(window.images)):
                rows += self._frame_rows(window, i, hands_at[int(window.frame_index[i])], identities)
        return pa.Table.from_pylist(rows, schema=schema_of("masks"))

    def _frame_rows(
        self, window: Window, i: int, hands: list[dict[str, Any]], identities: ObjectIdentities
    ) -> list[dict[str, Any]]:
        image = window.images[i]
        height, width = image.shape[:2]
        asks = hand_asks(hands, width, height)
        if self._detector is not None:
            asks += detector_asks(
                self._detector.detect(image),
                self._prompting.max_boxes_per_frame,
                self._prompting.min_box_area,
                self._prompting.nms_iou,
                width,
                height,
            )
        found = self._segment(image, asks)
        ids = identities.assign([(ask.label, mask.mask) for ask, mask in found], [ask.hand_id for ask, _ in found])
        frame = {
            "frame_index": int(window.frame_index[i]),
            "timestamp_s": float(window.timestamp_s[i]),
            "pts": int(window.pts[i]),
        }
        if not found:
            return [frame | _empty_row(height, width)]
        return [frame | _row(object_id, ask, mask) for object_id, (ask, mask) in zip(ids, found, strict=True)]

    def _segment(self, image: np.ndarray, asks: list[Ask]) -> list[tuple[Ask, Mask]]:
        """Masks that hold up, in the order hands, held objects, detections; duplicates dropped."""
        if self._segmenter is None:
            raise RuntimeError("sam2:mobile_sam is not loaded; call load() first")
        if not asks:
            return []
        asks = sorted(asks, key=lambda ask: ("hand_box", "pinch_point", "detector_box").index(ask.source))
        masks = self._segmenter.segment(self._segmenter.embed(image), [ask.prompt for ask in asks])
        kept: list[tuple[Ask, Mask]] = []
        for ask, mask in zip(asks, masks, strict=True):
            hands = {its.hand_id: other.mask for its, other in kept if its.source == "hand_box"}
            if not mask.mask.any() or (ask.source == "pinch_point" and not _is_held(mask, ask.hand_id, hands)):
                continue
            if ask.source == "detector_box" and mask.stability < DETECTED_MIN_STABILITY:
                continue
            if all(mask_iou(mask.mask, other.mask) < SAME_OBJECT_IOU for _, other in kept):
                kept.append((ask, mask))
        return kept

    def close(self) -> None:
        """Free the networks."""
        for actor in (self._segmenter, self._detector):
            if actor is not None:
                actor.close()
        self._segmenter = self._detector = None


def _is_held(mask: Mask, hand_id: int | None, hands: Mapping[int | None, np.ndarray]) -> bool:
    own, holder = np.count_nonzero(mask.mask), hands.get(hand_id)
    return (
        holder is not None
        and mask.predicted_iou >= HELD_MIN_PREDICTED_IOU
        and mask.stability >= HELD_MIN_STABILITY
        and own <= HELD_MAX_AREA_IN_HANDS * np.count_nonzero(holder)
        and all(np.count_nonzero(mask.mask & hand) <= HELD_MAX_HAND_OVERLAP * own for hand in hands.values())
    )


def _row(object_id: int, ask: Ask, mask: Mask) -> dict[str, Any]:
    return {
        "mask_rle": encode_rle(mask.mask),
        "object_id": object_id,
        "class": ask.label,
        "score": mask.predicted_iou * ask.score if ask.source == "pinch_point" else ask.score,
        "box": mask_box(mask.mask),
        "predicted_iou": mask.predicted_iou,
        "stability": mask.stability,
        "prompt": ask.source,
    }


def _empty_row(height: int, width: int) -> dict[str, Any]:
    return {
        "mask_rle": encode_rle(np.zeros((height, width), bool)),
        "object_id": -1,
        "class": "",
        "score": 0.0,
        "box": np.zeros(4, np.float32),
        "predicted_iou": 0.0,
        "stability": 0.0,
        "prompt": "",
    }
