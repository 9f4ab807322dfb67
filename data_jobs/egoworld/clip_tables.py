"""One clip's published tables, as records that can be drawn.

In: masks.parquet and hand_pose.parquet of a clip's folder. Out: HandRow and MaskRow records by presentation time.
Called by overlay.py's callers and report.py. A table that was not published reads as empty.
"""

from __future__ import annotations

import bisect
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

from actors.messages import Side, frozen

NOTHING_FOUND = -1  # the object_id of a frame that was looked at and held no object
# Decoded masks kept: one prompted frame's objects are drawn for many frames, then never again.
DECODED_MASKS_KEPT = 32


@dataclass(frozen=True, slots=True)
class HandRow:
    """One hand in one frame, as far as it is drawn."""

    hand_id: int
    side: Side
    score: float  # 0..1, confidence that this is a hand
    landmarks_px: np.ndarray  # (21, 2) float32

    def __post_init__(self) -> None:
        """Check the shape once and make the array read-only."""
        object.__setattr__(self, "landmarks_px", frozen(self.landmarks_px, np.float32, (21, 2), "landmarks_px"))


@dataclass(frozen=True, slots=True)
class MaskRow:
    """One object's mask, and how long before the drawn frame it was computed."""

    object_id: int
    label: str
    score: float  # 0..1
    mask: np.ndarray  # (H, W) bool
    age_s: float = 0.0  # 0 on the frame it was computed for

    def __post_init__(self) -> None:
        """Check the shape once and make the array read-only."""
        object.__setattr__(self, "mask", frozen(self.mask, np.bool_, (None, None), "mask"))


class ClipTables:
    """Hands and masks of one clip, looked up by pts or counted by frame index."""

    def __init__(self, hands: Sequence[dict[str, Any]], masks: Sequence[dict[str, Any]]) -> None:
        self._hands: defaultdict[int, list[HandRow]] = defaultdict(list)
        self._sides: dict[Side, set[int]] = {"left": set(), "right": set()}
        self._masks: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        self._found: Counter[int] = Counter()
        self._prompted: Counter[int] = Counter()
        for row in hands:
            self._hands[row["pts"]].append(_hand_row(row))
            self._sides[row["handedness"]].add(row["frame_index"])
            self._found[row["frame_index"]] += 1
        for row in masks:
            objects, is_object = self._masks[row["pts"]], row["object_id"] != NOTHING_FOUND
            self._prompted[row["frame_index"]] += is_object
            self._found[row["frame_index"]] += is_object
            objects += [row] if is_object else []
        self._prompted_pts = sorted(self._masks)

    def hands_at(self, pts: int) -> list[HandRow]:
        """Hands found in the frame."""
        return self._hands.get(pts, [])

    def masks_at(self, pts: int, time_base: Fraction) -> list[MaskRow]:
        """The masks of the last prompted frame at or before `pts`, with their age; none before the first."""
        at = bisect.bisect_right(self._prompted_pts, pts) - 1
        if at < 0:
            return []
        prompted = self._prompted_pts[at]
        age_s = float((pts - prompted) * time_base)
        rows = self._masks[prompted]
        return [MaskRow(row["object_id"], row["class"], row["score"], _decoded(row["mask_rle"]), age_s) for row in rows]

    def found_by_frame(self) -> Mapping[int, int]:
        """Frame index → hands and masks computed for that very frame."""
        return self._found

    def prompted_frames(self) -> Mapping[int, int]:
        """Frame index → masks, for every frame that was segmented, with 0 where nothing was found."""
        return self._prompted

    def frames_with_hand(self, side: Side) -> set[int]:
        """Indices of the frames with a hand of that side."""
        return self._sides[side]


def read_clip_tables(folder: Path) -> ClipTables:
    """The tables in a clip's folder, each empty when its file is absent."""
    hands = ["frame_index", "pts", "hand_id", "handedness", "score", "landmarks_px"]
    masks = ["frame_index", "pts", "object_id", "class", "score", "mask_rle"]
    return ClipTables(_rows(folder / "hand_pose.parquet", hands), _rows(folder / "masks.parquet", masks))


def _rows(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    # partitioning=None: pyarrow would take run_id=…/video_id=… of the path for columns.
    return pq.read_table(path, columns=columns, partitioning=None).to_pylist() if path.exists() else []


def _hand_row(row: dict[str, Any]) -> HandRow:
    landmarks_px = np.array(row["landmarks_px"], np.float32).reshape(21, 3)[:, :2]
    return HandRow(row["hand_id"], row["handedness"], row["score"], landmarks_px)


@lru_cache(DECODED_MASKS_KEPT)
def _decoded(rle: str) -> np.ndarray:
    mask = coco_mask.decode(json.loads(rle)).astype(bool)
    mask.flags.writeable = False  # shared by all frames until the next prompted one
    return mask
