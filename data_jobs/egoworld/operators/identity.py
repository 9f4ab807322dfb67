"""Which mask of this prompt is which object of earlier prompts. Called by mobile_sam.py, pure NumPy and SciPy.

Prompts lie seconds apart, so overlap alone is not enough: hands keep the identity of their track, other objects are
matched within their class by overlap, then by nearness and size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_jobs.egoworld.operators.geometry import mask_iou

HAND_LABELS = ("left_hand", "right_hand")

# Centres may move this share of the picture's diagonal between two prompts two seconds apart and still be one object.
MAX_MOVE_SHARE = 0.15

# An object may look this much larger or smaller from one prompt to the next (turning, half hidden).
MAX_AREA_RATIO = 3.0


@dataclass(slots=True)
class _Known:
    label: str
    mask: np.ndarray
    centre_px: np.ndarray
    area_px: int


class ObjectIdentities:
    """Object ids of one clip, counted from 0 in order of appearance."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._hands: dict[int, int] = {}  # hand_id → object_id
        self._next_id = 0

    def assign(self, found: Sequence[tuple[str, np.ndarray]], hand_ids: Sequence[int | None]) -> list[int]:
        """Ids for (label, (H, W) bool mask) pairs, which must not be empty masks."""
        seen = [_seen(label, mask) for label, mask in found]
        ids: dict[int, int] = {}
        for i, (one, hand_id) in enumerate(zip(seen, hand_ids, strict=True)):
            if one.label in HAND_LABELS and hand_id is not None:
                if hand_id not in self._hands:
                    self._hands[hand_id] = self._new()
                ids[i] = self._hands[hand_id]
        ids |= self._matched([i for i in range(len(seen)) if i not in ids], seen)
        for i, one in enumerate(seen):
            if i not in ids:
                ids[i] = self._new()
            self._known[ids[i]] = one
        return [ids[i] for i in range(len(seen))]

    def _new(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _matched(self, open_: list[int], seen: list[_Known]) -> dict[int, int]:
        """Best one-to-one pairing of the open masks with known objects of their class."""
        from scipy.optimize import linear_sum_assignment  # here: it takes seconds to import, and every start pays

        known = [(k, v) for k, v in sorted(self._known.items()) if v.label not in HAND_LABELS]
        if not open_ or not known:
            return {}
        gain = np.array([[_likeness(seen[i], one) for _, one in known] for i in open_])
        return {open_[r]: known[c][0] for r, c in zip(*linear_sum_assignment(-gain), strict=True) if gain[r, c] > 0}


def _seen(label: str, mask: np.ndarray) -> _Known:
    ys, xs = np.nonzero(mask)
    return _Known(label, mask, np.array([xs.mean(), ys.mean()]), len(xs))


def _likeness(a: _Known, b: _Known) -> float:
    """0: cannot be the same object. Overlap counts most, then nearness."""
    ratio = max(a.area_px, b.area_px) / max(min(a.area_px, b.area_px), 1)
    if a.label != b.label or ratio > MAX_AREA_RATIO:
        return 0.0
    diagonal = float(np.hypot(*a.mask.shape))
    near = 1.0 - float(np.linalg.norm(a.centre_px - b.centre_px)) / (MAX_MOVE_SHARE * diagonal)
    return mask_iou(a.mask, b.mask) + max(near, 0.0)
