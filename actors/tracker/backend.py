"""What a tracking backend is: it looks at frames, proposes everything in one, and follows what it was told to.

Implemented by flow.py (MobileSAM and optical flow, for a CPU) and video.py (SAM 2 with memory). Called by tracker.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from models.proposals import PointDecoder


@dataclass(frozen=True, slots=True)
class Followed:
    """One object in the present frame."""

    mask: np.ndarray  # (H, W) bool, may be empty
    presence: float  # 0..1: how sure the backend is that the object is there


class Backend(Protocol):
    """Frames go in by `see`; everything else is about the frame that was seen last."""

    def load(self) -> None:
        """Read the model; a second call does nothing. Raises MissingWeight."""

    def decoder(self, image: np.ndarray) -> PointDecoder:
        """`image` through the backbone, ready for automatic masks. May run in another thread than the rest."""

    def see(self, image: np.ndarray, learn: Mapping[str, bool]) -> dict[str, Followed]:
        """The next frame: where everything followed is now. `learn[name]` False: do not let it change the memory."""

    def begin(self, name: str, mask: np.ndarray) -> Followed:
        """Follow what `mask` shows in the frame seen last, from there on; the mask may be corrected."""

    def forget(self, name: str) -> None:
        """Stop following; unknown names are fine."""

    def save(self) -> dict[str, Any]:
        """Plain containers and numpy arrays."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """The inverse of `save`."""

    def close(self) -> None:
        """Free the model."""


def box_of(mask: np.ndarray) -> np.ndarray | None:
    """(4,) float32 xyxy around a mask, the far edge exclusive; None when it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union; 0 when both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0
