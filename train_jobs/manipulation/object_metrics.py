"""How far a predicted object pose is from the true one, and how well contacts are told.

In: poses (4, 4) and model points, or probabilities and labels. Out: metres, shares, areas. Called by evaluate.py and
the tests. ADD and ADD-S after Hinterstoisser et al. (2012) and Xiang et al. (2018, PoseCNN); contact is a rare event,
hence F1 and average precision instead of accuracy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree
from scipy.spatial.distance import pdist

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
# A pose counts as right when the mean distance is below this share of the object's diameter.
RIGHT_SHARE = 0.1


def add_m(predicted: FloatArray, true: FloatArray, points_m: FloatArray) -> float:
    """Mean distance in metres of model points (P, 3) under two poses (4, 4)."""
    return float(np.linalg.norm(_moved(predicted, points_m) - _moved(true, points_m), axis=1).mean())


def add_s_m(predicted: FloatArray, true: FloatArray, points_m: FloatArray) -> float:
    """Mean distance from each truly placed point to the nearest predicted one: blind to symmetry."""
    apart, _ = KDTree(_moved(predicted, points_m)).query(_moved(true, points_m))
    return float(np.mean(apart))


def diameter_m(points_m: FloatArray) -> float:
    """The largest distance between two of the model's points (P, 3)."""
    return float(pdist(points_m).max())


def right_share(errors_m: FloatArray, diameters_m: FloatArray, share: float = RIGHT_SHARE) -> float:
    """Share of poses (N,) whose error is below `share` of their object's diameter."""
    return float(np.mean(errors_m < share * diameters_m))


def area_below(errors_m: FloatArray, most_m: FloatArray | float) -> float:
    """Area under the curve of accuracy over thresholds from 0 to `most_m`, as a share: exact, not in steps.

    Each error e is right for thresholds above e, so its curve's area is 1 − e / most, or 0. `most_m` may differ per
    pose: a tenth of each diameter gives the area of ADD@0.1d, 0.1 m that of PoseCNN.
    """
    return float(np.clip(1 - errors_m / most_m, 0, None).mean())


def f1(scores: FloatArray, true: BoolArray, threshold: float = 0.5) -> float:
    """Harmonic mean of precision and recall of `scores >= threshold`; 0 without any hit, 1 if nothing was to be found
    and nothing was.
    """
    told = scores >= threshold
    hits, wrong = int((told & true).sum()), int((told != true).sum())
    return 2 * hits / (2 * hits + wrong) if hits or wrong else 1.0


def average_precision(scores: FloatArray, true: BoolArray) -> float:
    """Area under precision over recall as a sum of steps, equal scores taken together; NaN without a positive."""
    if not true.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(true[order])
    last = np.append(np.diff(scores[order]) != 0, True)  # of each group of equal scores
    precision = hits[last] / (np.flatnonzero(last) + 1)
    recall = hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def _moved(pose: FloatArray, points_m: FloatArray) -> FloatArray:
    return np.asarray(points_m @ pose[:3, :3].T + pose[:3, 3])
