"""How far 21 predicted hand joints are from the true ones, by the conventions of DexYCB's and FreiHAND's evaluations.

In: joints (N, 21, 3) in metres in the camera's frame, which of them are labelled. Out: millimetres, shares, areas.
Called by evaluate.py and the tests. Three alignments: none, wrist on wrist, and Procrustes (rotation, translation and
scale). Curves go from 0 to 50 mm in 100 steps. Samples without any label are left out.

One deviation, on purpose: the toolkits' Procrustes may mirror, ours may not; a left hand is no right hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Alignment = Literal["absolute", "root", "procrustes"]
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)
ROOT = 0
CURVE_TO_M, CURVE_STEPS = 0.05, 100
# The thresholds at which a short curve is told: 20 to 50 mm.
PCK_MM = (20, 25, 30, 35, 40, 45, 50)


@dataclass(frozen=True, slots=True)
class HandScores:
    """One alignment's numbers over N samples."""

    samples: int  # those with at least one labelled joint
    mpjpe_mm: float  # mean over joints of the mean over samples
    interval_mm: tuple[float, float]  # 95 %, over samples
    per_joint_mm: tuple[float, ...]
    auc: float  # 0..1, of the share of joints within 0 to 50 mm
    pck: dict[int, float]  # share of joints within so many millimetres


def score(predicted_m: FloatArray, true_m: FloatArray, labelled: BoolArray, alignment: Alignment) -> HandScores:
    """Scores of (N, 21, 3) predictions; `labelled` (N, 21). ValueError if nothing is labelled."""
    used: BoolArray = np.asarray(labelled.any(axis=1))
    if alignment == "root":
        used &= labelled[:, ROOT]  # without a true wrist nothing can be laid upon it
    if not used.any():
        raise ValueError(f"no sample of {len(labelled)} can be scored with alignment {alignment!r}: no labels")
    labelled = np.asarray(labelled[used])
    errors = joint_errors(predicted_m[used], true_m[used], labelled, alignment)
    present: BoolArray = np.asarray(labelled.any(axis=0))
    per_joint = np.array([errors[labelled[:, k], k].mean() if present[k] else np.nan for k in range(labelled.shape[1])])
    thresholds, shares = pck_curve(errors, labelled)
    per_sample = np.array([row[kept].mean() for row, kept in zip(errors, labelled, strict=True)])
    low, high = bootstrap_interval(per_sample)
    return HandScores(
        samples=int(used.sum()),
        mpjpe_mm=1000 * float(np.nanmean(per_joint)),
        interval_mm=(1000 * low, 1000 * high),
        per_joint_mm=tuple(1000 * float(value) for value in per_joint),
        auc=area(thresholds, shares),
        pck={mm: float(np.mean(errors[labelled] <= mm / 1000)) for mm in PCK_MM},
    )


def joint_errors(predicted_m: FloatArray, true_m: FloatArray, labelled: BoolArray, alignment: Alignment) -> FloatArray:
    """Distances (N, 21) in metres after the alignment; those of unlabelled joints mean nothing."""
    if alignment == "root":
        predicted_m = predicted_m - predicted_m[:, ROOT : ROOT + 1]
        true_m = true_m - true_m[:, ROOT : ROOT + 1]
    elif alignment == "procrustes":
        rows = zip(predicted_m, true_m, labelled, strict=True)
        predicted_m = np.stack([aligned(ours, theirs, kept) for ours, theirs, kept in rows])
    elif alignment != "absolute":
        raise ValueError(f"unknown alignment {alignment!r}; there are {', '.join(ALIGNMENTS)}")
    return np.asarray(np.linalg.norm(predicted_m - true_m, axis=-1))


def aligned(points_m: FloatArray, target_m: FloatArray, used: BoolArray) -> FloatArray:
    """`points_m` (K, 3) moved, turned and scaled onto `target_m` by least squares over the used ones.

    Umeyama (1991), "Least-squares estimation of transformation parameters between two point patterns".
    """
    ours, theirs = points_m[used], target_m[used]
    middle, target_middle = ours.mean(axis=0), theirs.mean(axis=0)
    ours, theirs = ours - middle, theirs - target_middle
    spread = float((ours**2).sum())
    if spread < 1e-18:  # one point, or all in one place: nothing to turn or scale
        return np.asarray(points_m - middle + target_middle)
    left, sizes, right = np.linalg.svd(theirs.T @ ours)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    turn = (left * signs) @ right
    scale = float((sizes * signs).sum()) / spread
    return np.asarray(scale * (points_m - middle) @ turn.T + target_middle)


def pck_curve(errors_m: FloatArray, labelled: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Thresholds (100,) in metres, and the share of labelled joints within each: the mean of every joint's curve."""
    thresholds = np.linspace(0, CURVE_TO_M, CURVE_STEPS)
    curves = [
        (errors_m[labelled[:, k], k, None] <= thresholds).mean(axis=0)
        for k in range(errors_m.shape[1])
        if labelled[:, k].any()
    ]
    return np.asarray(thresholds, np.float64), np.asarray(np.mean(curves, axis=0), np.float64)


def area(thresholds: FloatArray, shares: FloatArray) -> float:
    """Area under a curve as a share of the largest possible, by trapezoids."""
    return float(np.trapezoid(shares, thresholds) / (thresholds[-1] - thresholds[0]))


def bootstrap_interval(values: FloatArray, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of independent values, by resampling them."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))
