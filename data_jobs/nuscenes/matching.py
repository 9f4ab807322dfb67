"""Which track box could be which true box: overlaps within a frame, and best assignments over the pairs that
overlap.

In: flat arrays of boxes with frame numbers. Out: sparse pairs and matchings. Called by metrics.py,
evaluate.py and association.py. Knows nothing of classes, files or scores. Only pairs that overlap are kept: a
frame with 100 × 100 boxes has some hundred of them, and everything after works on those.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Areas at or below this count as no area; the value that TrackEval compares with, so that edge cases agree.
EPS = float(np.finfo("float").eps)

# Pairs whose overlap is computed at once: bounds scratch memory to some tens of megabytes.
BATCH_PAIRS = 1 << 20


@dataclass(frozen=True, slots=True)
class Boxes:
    """N boxes of a sequence, sorted by frame."""

    frame: IntArray  # (N,) any integers, ascending
    id: IntArray  # (N,) unique within a frame
    xywh_px: FloatArray  # (N, 4)

    def chosen(self, rows: np.ndarray) -> Boxes:
        """These rows (index or mask) only."""
        return Boxes(self.frame[rows], self.id[rows], self.xywh_px[rows])

    @classmethod
    def sorted(cls, frame: IntArray, identity: IntArray, xywh_px: FloatArray) -> Boxes:
        """From rows in any order; rows of a frame keep their order."""
        order = np.argsort(frame, kind="stable")
        return cls(frame[order], identity[order], xywh_px[order])


@dataclass(frozen=True, slots=True)
class Pairs:
    """P overlapping pairs, sorted by frame, then true box, then track box."""

    truth: IntArray  # (P,) row of the true box
    track: IntArray  # (P,) row of the track box
    iou: FloatArray  # (P,) in (0, 1]

    def chosen(self, rows: np.ndarray) -> Pairs:
        """These rows (index or mask) only."""
        return Pairs(self.truth[rows], self.track[rows], self.iou[rows])


def overlapping(truth: Boxes, track: Boxes) -> Pairs:
    """All pairs within a frame with IoU > 0."""
    first = np.searchsorted(track.frame, truth.frame, side="left")
    count = np.searchsorted(track.frame, truth.frame, side="right") - first
    ends = np.cumsum(count)
    parts, start = [], 0
    while start < len(count):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + BATCH_PAIRS, side="right")))
        parts.append(_overlaps(truth, track, np.arange(start, stop), first, count))
        start = stop
    if not parts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _overlaps(
    truth: Boxes, track: Boxes, rows: IntArray, first: IntArray, count: IntArray
) -> tuple[IntArray, IntArray, FloatArray]:
    repeat = count[rows]
    a = np.repeat(rows, repeat)
    b = np.repeat(first[rows] - (np.cumsum(repeat) - repeat), repeat) + np.arange(len(a))
    # Most boxes of a frame are apart: the test on one axis each is far cheaper than the whole overlap.
    ta, tb = truth.xywh_px.T, track.xywh_px.T
    meet = (ta[0] + ta[2])[a] > tb[0][b]
    meet &= (tb[0] + tb[2])[b] > ta[0][a]
    a, b = a[meet], b[meet]
    iou = pairwise_iou(truth.xywh_px[a], track.xywh_px[b])
    kept = iou > 0
    return a[kept], b[kept], iou[kept]


def pairwise_iou(first: FloatArray, second: FloatArray) -> FloatArray:
    """IoU (N,) of box n with box n, both (N, 4) xywh; 0 where a box has no area.

    The order of operations is that of TrackEval's own IoU, so that thresholds fall on the same side to the
    last bit.
    """
    x0, y0 = first[:, 0], first[:, 1]
    u0, v0 = second[:, 0], second[:, 1]
    x1, y1, u1, v1 = x0 + first[:, 2], y0 + first[:, 3], u0 + second[:, 2], v0 + second[:, 3]
    width = np.maximum(np.minimum(x1, u1) - np.maximum(x0, u0), 0)
    inter = width * np.maximum(np.minimum(y1, v1) - np.maximum(y0, v0), 0)
    area, other = (x1 - x0) * (y1 - y0), (u1 - u0) * (v1 - v0)
    union = area + other - inter
    good = (area > EPS) & (other > EPS) & (union > EPS)
    return np.where(good, inter, 0.0) / np.where(union > EPS, union, 1.0)


def best_pairs(pairs: Pairs, score: FloatArray, frame: IntArray) -> npt.NDArray[np.bool_]:
    """Mask (P,) of the one-to-one matching with the largest total `score` (P,) > 0, frame by frame.

    `frame` (P,) is ascending. A pair whose two boxes are in no other pair is matched without solving
    anything; only the others go to the Hungarian algorithm, per frame.
    """
    matched = _alone(pairs)
    contested = np.flatnonzero(~matched)
    bounds = np.flatnonzero(np.diff(frame[contested], prepend=-(2**62), append=2**62))
    for start, end in pairwise(bounds.tolist()):
        rows = contested[start:end]
        matched[rows[solve(pairs.truth[rows], pairs.track[rows], score[rows])]] = True
    return matched


def _alone(pairs: Pairs) -> npt.NDArray[np.bool_]:
    """Pairs whose boxes occur in no other pair."""
    return (np.bincount(pairs.truth)[pairs.truth] == 1) & (np.bincount(pairs.track)[pairs.track] == 1)


def solve(truth: IntArray, track: IntArray, score: FloatArray) -> IntArray:
    """Positions, in these pairs, of the matching with the largest total of positive scores."""
    rows, row = np.unique(truth, return_inverse=True)
    columns, column = np.unique(track, return_inverse=True)
    matrix = np.zeros((len(rows), len(columns)))
    position = np.full(matrix.shape, -1)
    matrix[row, column], position[row, column] = score, np.arange(len(score))
    found = position[linear_sum_assignment(matrix, maximize=True)]
    return found[found >= 0]
