"""What a tracker remembers of N boxes for the residual network, and how it is put to it. NumPy.

In: boxes in pixels, the camera's way between frames. Out: tokens for residual.py and the Kalman filter's boxes that its
answers start from. Used by data_jobs/nuscenes/learned.py, which tracks, and train_jobs/trackssm/samples.py, which plays
recorded tracks to the same code: what is learned on is what is met.

A token is one past observation, seen from here: its box turned with the camera to the present image and put in units of
the box that the filter predicts, how long ago it was, and where the camera stood. Geometry is done, not learned: the
turn is exact, and the camera's shift in metres over a box that is known to be a car high is a shift in boxes.
"""

# N tracks, K remembered observations, F numbers per token

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models import box_kalman
from models.box_kalman import FloatArray

KEPT = 5
CLASSES = 7
# Numbers per token: own box 4, age, there or not, camera's place 3; then what all tokens of a track share.
FEATURES = 9 + 4 + 4 + 4 + 3 + CLASSES + 2
# Sizes and lengths are brought near 1 for the network.
METRES = 5.0
MOST_RATIO = 3.0  # of logarithms of sizes
MOST_SHIFT = 20.0  # in boxes


@dataclass(frozen=True, slots=True)
class Way:
    """The camera's way from the frame before to this one, for each of N tracks."""

    dt_s: FloatArray  # (N,)
    image_from_before: FloatArray  # (N, 3, 3) homography of its rotation, pixels to pixels
    camera_from_before: FloatArray  # (N, 3, 4) metres; the identity where the way is not known
    lens_px: FloatArray  # (N, 3) focal length, principal point x and y
    known: npt.NDArray[np.bool_]  # (N,) whether the camera's way was measured


@dataclass(slots=True)
class Memory:
    """N tracks: the filter's states and the last observations, oldest first, all seen from the present image."""

    mean: FloatArray  # (N, 8)
    covariance: FloatArray  # (N, 8, 8)
    boxes: FloatArray  # (N, K, 4) centre x, centre y, width, height, pixels
    age_s: FloatArray  # (N, K)
    place_m: FloatArray  # (N, K, 3) where the camera stood then, in the present camera's axes
    there: npt.NDArray[np.bool_]  # (N, K) whether there is such an observation
    seen: npt.NDArray[np.int64]  # (N,) observations so far

    def __len__(self) -> int:
        return len(self.mean)

    def chosen(self, rows: np.ndarray | slice) -> Memory:
        """These tracks (index, mask or slice)."""
        return Memory(*(getattr(self, name)[rows] for name in Memory.__slots__))

    def put(self, rows: np.ndarray, other: Memory) -> None:
        """Write other's tracks over these rows."""
        for name in Memory.__slots__:
            getattr(self, name)[rows] = getattr(other, name)

    @classmethod
    def joined(cls, parts: list[Memory]) -> Memory:
        """Tracks of several memories in one."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


def born(boxes: FloatArray) -> Memory:
    """N tracks that were seen once, at boxes (N, 4)."""
    n = len(boxes)
    empty = Memory(
        *box_kalman.born(boxes, box_kalman.TUNED),
        boxes=np.zeros((n, KEPT, 4)),
        age_s=np.zeros((n, KEPT)),
        place_m=np.zeros((n, KEPT, 3)),
        there=np.zeros((n, KEPT), dtype=bool),
        seen=np.zeros(n, dtype=np.int64),
    )
    return _remembered(empty, boxes)


def advanced(memory: Memory, way: Way) -> Memory:
    """The tracks one frame later, nothing seen yet: turned with the camera, predicted by the filter."""
    n = len(memory)
    state = box_kalman.turned(memory.mean, memory.covariance, way.image_from_before)
    mean, covariance = box_kalman.predicted(*state, way.dt_s, box_kalman.TUNED)
    matrices = np.repeat(way.image_from_before, KEPT, axis=0)
    boxes = box_kalman.turned_boxes(memory.boxes.reshape(-1, 4), matrices).reshape(n, KEPT, 4)
    rotation, move = way.camera_from_before[:, :, :3], way.camera_from_before[:, :, 3]
    place = np.einsum("nij,nkj->nki", rotation, memory.place_m) + move[:, None]
    return replace(
        memory,
        mean=mean,
        covariance=covariance,
        boxes=np.where(memory.there[..., None], boxes, 0.0),
        age_s=np.where(memory.there, memory.age_s + way.dt_s[:, None], 0.0),
        place_m=np.where(memory.there[..., None], place, 0.0),
    )


def observed(memory: Memory, boxes: FloatArray) -> Memory:
    """The tracks after each was seen at its box (N, 4)."""
    mean, covariance = box_kalman.corrected(memory.mean, memory.covariance, boxes, box_kalman.TUNED)
    return _remembered(replace(memory, mean=mean, covariance=covariance), boxes)


def _remembered(memory: Memory, boxes: FloatArray) -> Memory:
    def pushed(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.concatenate([old[:, 1:], new[:, None]], axis=1)

    n = len(boxes)
    return replace(
        memory,
        boxes=pushed(memory.boxes, boxes),
        age_s=pushed(memory.age_s, np.zeros(n)),
        place_m=pushed(memory.place_m, np.zeros((n, 3))),
        there=pushed(memory.there, np.ones(n, dtype=bool)),
        seen=memory.seen + 1,
    )


def spread_px(memory: Memory) -> FloatArray:
    """The filter's own standard deviation (N, 4) of its boxes, pixels."""
    return np.sqrt(np.maximum(np.diagonal(memory.covariance, axis1=1, axis2=2)[:, :4], 1e-6))


def tokens(memory: Memory, way: Way, class_id: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(N, K, FEATURES): observations in units of the predicted box, oldest first; zeros where there is none."""
    base, speed = memory.mean[:, :4], memory.mean[:, 4:]
    side = base[:, 2:]
    centre, focal = way.lens_px[:, 1:], way.lens_px[:, :1]
    ray = (base[:, :2] - centre) / focal
    known = way.known[:, None]
    place = np.where(known[..., None], memory.place_m, 0.0) / METRES
    own = np.concatenate(
        [
            np.clip((memory.boxes[..., :2] - base[:, None, :2]) / side[:, None], -MOST_SHIFT, MOST_SHIFT),
            _log_ratio(memory.boxes[..., 2:], side[:, None]),
            memory.age_s[..., None],
            memory.there[..., None],
            place,
        ],
        axis=2,
    )
    last = place[:, -1]
    shared = np.concatenate(
        [
            ray,
            _log_ratio(10 * side, focal),
            np.clip(np.concatenate([speed[:, :2], speed[:, 2:]], axis=1) / np.tile(side, 2), -MOST_SHIFT, MOST_SHIFT),
            np.log(spread_px(memory) / np.tile(side, 2)).clip(-MOST_SHIFT, MOST_SHIFT),
            # A step towards a point moves its image away from the middle in proportion to where it is.
            ray * last[:, 2:],
            memory.age_s[:, -1:],
            (class_id[:, None] == np.arange(CLASSES)).astype(np.float64),
            known.astype(np.float64),
            np.minimum(memory.seen, 2 * KEPT)[:, None] / KEPT,
        ],
        axis=1,
    )
    whole = np.concatenate([own, np.repeat(shared[:, None], KEPT, axis=1)], axis=2)
    return np.where(memory.there[..., None], whole, 0.0).astype(np.float32)


def _log_ratio(first: FloatArray, second: FloatArray) -> FloatArray:
    return np.clip(np.log(np.maximum(first, 1e-3) / np.maximum(second, 1e-3)), -MOST_RATIO, MOST_RATIO)
