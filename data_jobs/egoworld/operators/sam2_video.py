"""`sam2:sam2`: masks of every object in every frame with SAM 2's video memory. Writes masks.

Every `prompt_interval_s` a frame is asked for objects: by name with GroundingDINO, or for the hands of hand_pose. Masks
are carried forwards from there, and backwards from what appears later (propagate.py). Run by task.py. The weights are
the user's to fetch from a hub: none of a package index hold SAM 2's memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field, field_validator, model_validator

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.operators.geometry import encode_rle
from data_jobs.egoworld.operators.prompts import Ask, detector_asks, hand_asks
from data_jobs.egoworld.operators.propagate import Propagation
from data_jobs.egoworld.operators.sampling import frames_every
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import schema_of
from data_jobs.runs.strict import Strict

if TYPE_CHECKING:
    from actors.text_detector import TextDetector
    from actors.video_segmenter import VideoSegmenter

# The seed's own prompt: hands and what they hold in a kitchen.
SEED_TEXT = (
    "hand . left hand . right hand . person hand . glove . utensil . knife . spoon . fork . spatula . ladle . tongs . "
    "cup . mug . bottle . bowl . plate . pan . pot . lid . cutting board . food . container . jar . can . package . "
    "bag . towel . sponge . soap . faucet . sink . stove . microwave . refrigerator . drawer . cabinet . phone . "
    "remote . key . pen . scissors"
)
HUB_DETECTOR = "IDEA-Research/grounding-dino-tiny"


class VideoPrompting(Strict):
    """When and how prompts are made; the seed's keys, thresholds and defaults."""

    source: Literal["groundingdino", "hands"] = "groundingdino"
    prompt_interval_s: float = Field(2.0, gt=0, description="seconds between prompted frames")
    max_prompts_per_clip: int = Field(60, ge=1, description="in a clip that would need more they lie further apart")
    max_boxes_per_frame: int = Field(6, ge=1, description="boxes used per prompted frame, best first")
    box_threshold: float = Field(0.35, ge=0, le=1)
    text_threshold: float = Field(0.25, ge=0, le=1)
    nms_iou: float = Field(0.5, ge=0, le=1)
    min_box_area: float = Field(256, ge=0, description="pixels")
    gd_config: str | None = Field(None, description="accepted from the seed's config; the folder holds its own")
    gd_checkpoint: str = Field(HUB_DETECTOR, description="folder in transformers' format, or a hub name in the cache")
    gd_device: str | None = Field(None, description="default: the segmenter's")
    prompt_text: str = Field(SEED_TEXT, description="names, each ended by a full stop")

    @field_validator("prompt_text")
    @classmethod
    def _names_something(cls, text: str) -> str:
        if not text.replace(".", " ").strip():
            raise ValueError("names nothing; write names with full stops, e.g. 'hand . cup . knife'")
        return text


class VideoMasksParams(Strict):
    """Parameters of `sam2:sam2`."""

    prompting: VideoPrompting = VideoPrompting()
    checkpoint: str | None = Field(None, description="a SAM 2 or 2.1 video checkpoint; default: the hub's cache")
    checkpoint_sha256: str | None = Field(None, description="refuse a checkpoint of another content")
    config: str = Field("sam2.1_hiera_small", description="architecture, or the name or path of SAM 2's YAML")
    image_size: int = Field(1024, ge=64, multiple_of=32, description="side of the network's input, pixels")
    device: str = Field("cpu", description="cpu or cuda")
    precision: Literal["fp32", "bf16"] | None = Field(None, description="default: bf16 on cuda, fp32 on the CPU")
    vos_optimized: bool | None = Field(None, description="accepted from the seed's config")

    @model_validator(mode="after")
    def _config_is_known(self) -> VideoMasksParams:
        from actors.video_segmenter import architecture_named

        architecture_named(self.config)
        return self


class Sam2VideoMasks:
    """Owns a VideoSegmenter and, for text prompts, a TextDetector; one clip at a time."""

    Params: ClassVar[type[BaseModel]] = VideoMasksParams
    FOREIGN: ClassVar[tuple[str, ...]] = ("vos_optimized", "prompting.gd_config")
    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="sam2",
        backend="sam2",
        version=1,
        table="masks",
        licence="Apache-2.0",
        upstream=("hamer",),
        preload=("actors.video_segmenter", "torch", "scipy.optimize", "data_jobs.egoworld.clip"),
    )

    def __init__(self, params: VideoMasksParams) -> None:
        self._params, self._prompting = params, params.prompting
        self._segmenter: VideoSegmenter | None = None
        self._detector: TextDetector | None = None

    @classmethod
    def specified(cls, params: VideoMasksParams) -> OperatorSpec:
        """Only hand prompts read hand_pose."""
        return cls.spec if params.prompting.source == "hands" else replace(cls.spec, upstream=())

    @staticmethod
    def weights(params: VideoMasksParams) -> tuple[str, ...]:
        """None of the catalogue; see `files`."""
        return ()

    @staticmethod
    def files(params: VideoMasksParams) -> dict[str, tuple[Path, str | None]]:
        """Name → weights file and the sha256 it must have, if any is asked for. Raises MissingWeight."""
        from actors.text_detector import text_detector_file
        from actors.video_segmenter import architecture_named, checkpoint_of

        checkpoint = checkpoint_of(params.checkpoint, architecture_named(params.config))
        files: dict[str, tuple[Path, str | None]] = {checkpoint.name: (checkpoint, params.checkpoint_sha256)}
        if params.prompting.source == "groundingdino":
            files[params.prompting.gd_checkpoint] = (text_detector_file(params.prompting.gd_checkpoint), None)
        return files

    def load(self) -> None:
        """Load what the prompts need."""
        from actors.text_detector import TextDetector  # here: the command line must not wait for torch
        from actors.video_segmenter import VideoSegmenter, architecture_named, checkpoint_of

        params, prompting = self._params, self._prompting
        architecture = architecture_named(params.config)
        precision = params.precision or ("bf16" if params.device.startswith("cuda") else "fp32")
        self._segmenter = VideoSegmenter(
            checkpoint_of(params.checkpoint, architecture), architecture, params.image_size, params.device, precision
        )
        self._segmenter.load()
        if prompting.source == "groundingdino":
            self._detector = TextDetector(
                prompting.gd_checkpoint,
                prompting.prompt_text,
                prompting.box_threshold,
                prompting.text_threshold,
                prompting.gd_device or params.device,
            )
            self._detector.load()

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """One row per object per frame in which it is; a frame without any has one row, object_id -1."""
        if self._segmenter is None:
            raise RuntimeError("sam2:sam2 is not loaded; call load() first")
        reader = ClipReader(clip, window_frames)
        times_s = reader.times_s()
        prompting = self._prompting
        # A clip that would need more prompts gets them further apart, not only at its beginning.
        spread_s = float(times_s[-1] - times_s[0]) / prompting.max_prompts_per_clip
        interval_s = max(prompting.prompt_interval_s, spread_s * (1 + 1e-9))
        prompted = frames_every(clip, reader, interval_s, prompting.max_prompts_per_clip)
        hands: dict[int, list[dict[str, Any]]] = defaultdict(list)
        if prompting.source == "hands":
            for row in upstream["hamer"].to_pylist():
                hands[row["frame_index"]].append(row)
        work = Propagation(self._segmenter.open_stream, partial(self._ask, hands), prompted, window_frames)
        frames = work.run(reader)
        return _table(work, frames, clip)

    def _ask(self, hands: Mapping[int, list[dict[str, Any]]], image: np.ndarray, index: int) -> list[Ask]:
        height, width = image.shape[:2]
        if self._detector is None:
            asks = hand_asks(hands.get(index, []), width, height)
            return [ask for ask in asks if ask.source == "hand_box"]
        p = self._prompting
        found = self._detector.detect(image)
        asks = detector_asks(found, p.max_boxes_per_frame, p.min_box_area, p.nms_iou, width, height)
        return [replace(ask, source="text_box") for ask in asks]

    def close(self) -> None:
        """Free the networks."""
        for actor in (self._segmenter, self._detector):
            if actor is not None:
                actor.close()
        self._segmenter = self._detector = None


def _table(work: Propagation, frames: list[tuple[int, float, int]], clip: Clip) -> pa.Table:
    """Rows by frame, then object; names are each object's most frequent one over the whole clip."""
    names = {k: identity.label for k, identity in work.identities.items()}
    rows = [
        {
            "frame_index": one.frame_index,
            "timestamp_s": one.timestamp_s,
            "pts": one.pts,
            "mask_rle": one.mask_rle,
            "object_id": one.object_id,
            "class": names[one.object_id],
            "score": one.score,
            "box": one.box,
            "predicted_iou": float("nan"),
            "stability": one.stability,
            "prompt": one.prompt,
        }
        for one in work.placed
    ]
    with_objects = {one.frame_index for one in work.placed}
    nothing = {
        "mask_rle": encode_rle(np.zeros((clip.height, clip.width), bool)),
        "object_id": -1,
        "class": "",
        "score": 0.0,
        "box": np.zeros(4, np.float32),
        "predicted_iou": float("nan"),
        "stability": 0.0,
        "prompt": "",
    }
    rows += [
        {"frame_index": index, "timestamp_s": time_s, "pts": pts} | nothing
        for index, time_s, pts in frames
        if index not in with_objects
    ]
    rows.sort(key=lambda row: (row["frame_index"], row["object_id"]))
    return pa.Table.from_pylist(rows, schema=schema_of("masks"))
