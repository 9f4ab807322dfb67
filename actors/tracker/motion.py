"""How a patch of points moves from one frame to the next: pyramidal Lucas-Kanade, checked both ways.

In: grey pictures and points. Out: points, and the similarity transform that fits them. Called by flow.py (to follow an
object) and by tracker.py (to carry a found mask from the frame that was searched to the newest one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

# Longest side of the pictures that motion is measured in: finer ones add noise and time, not accuracy.
LONGEST_PX = 640
# A point that does not come back to within this of where it started is on nothing that can be followed.
ROUND_TRIP_PX = 1.0
WINDOW_PX = (21, 21)
PYRAMID_LEVELS = 4  # reaches about 160 px of the measured picture
LEAST_POINTS = 4
RANSAC_PX = 2.0


@dataclass(frozen=True, slots=True)
class Grey:
    """A frame as motion is measured in."""

    pixels: np.ndarray  # (h, w) uint8
    scale: float  # its pixels per pixel of the frame

    @classmethod
    def of(cls, image: np.ndarray) -> Grey:
        """From (H, W, 3) uint8 RGB."""
        scale = min(1.0, LONGEST_PX / max(image.shape[:2]))
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return cls(grey, scale)

    def corners(self, most: int, mask: np.ndarray | None = None) -> np.ndarray:
        """(N, 2) float32 points of the frame that can be found again, inside `mask` (of the frame's size)."""
        inside = None
        if mask is not None:
            height, width = self.pixels.shape
            inside = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        found = cv2.goodFeaturesToTrack(self.pixels, most, 0.01, 4, mask=inside, blockSize=5)
        return np.zeros((0, 2), np.float32) if found is None else (found.reshape(-1, 2) / self.scale).astype(np.float32)


def follow(before: Grey, after: Grey, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) points of the frame before → where they are after, and (N,) bool whether that can be believed."""
    if not len(points):
        return points, np.zeros(0, bool)
    start = (points * before.scale).astype(np.float32)[:, None]
    there, found = _flow(before, after, start)
    back, returned = _flow(after, before, there)
    error = np.linalg.norm((back - start)[:, 0], axis=1)
    size = np.array(after.pixels.shape[::-1])
    inside = ((there[:, 0] >= 0) & (there[:, 0] < size)).all(axis=1)
    good = (found[:, 0] == 1) & (returned[:, 0] == 1) & (error < ROUND_TRIP_PX) & inside
    return there[:, 0] / after.scale, good


def _flow(before: Grey, after: Grey, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    no_guess: Any = None
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        before.pixels, after.pixels, points, no_guess, winSize=WINDOW_PX, maxLevel=PYRAMID_LEVELS
    )
    return there, found


def similarity(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(3, 3) transform of shift, turn and scale that most points agree on, and (N,) bool which do; None if none."""
    if len(before) < LEAST_POINTS:
        return None
    transform, agree = cv2.estimateAffinePartial2D(before, after, method=cv2.RANSAC, ransacReprojThreshold=RANSAC_PX)
    if transform is None or int(agree.sum()) < LEAST_POINTS:
        return None
    return np.vstack([transform, [0, 0, 1]]), agree[:, 0].astype(bool)


def warp(mask: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """The (H, W) bool mask moved by a (3, 3) transform of the frame's pixels."""
    height, width = mask.shape
    moved = cv2.warpAffine(mask.astype(np.uint8), transform[:2], (width, height), flags=cv2.INTER_LINEAR)
    return moved > 0


class Carrier:
    """Remembers one frame, and carries masks found in it to the frame seen last."""

    MOST_POINTS = 800

    def __init__(self, grey: Grey) -> None:
        self._last = grey
        self._start = grey.corners(self.MOST_POINTS)
        self._now = self._start.copy()

    def see(self, grey: Grey) -> None:
        """One frame later."""
        self._now, good = follow(self._last, grey, self._now)
        self._now, self._start, self._last = self._now[good], self._start[good], grey

    def carry(self, mask: np.ndarray) -> np.ndarray | None:
        """Where `mask` is now; None when too little of it could be followed."""
        if not len(self._start):
            return None
        x, y = self._start.astype(int).T
        on_it = mask[np.clip(y, 0, mask.shape[0] - 1), np.clip(x, 0, mask.shape[1] - 1)]
        fitted = similarity(self._start[on_it], self._now[on_it])
        return None if fitted is None else warp(mask, fitted[0])
