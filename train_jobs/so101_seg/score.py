"""Intersection over union from a confusion matrix that grows frame by frame.

In: true and predicted ids. Out: IoU per class and their mean. Used by trainer.py and evaluate.py.
"""

from __future__ import annotations

import numpy as np


class Confusion:
    """Counts of pixels: row = true class, column = predicted class."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Two arrays of ids of one shape."""
        classes = len(self.counts)
        pairs = truth.astype(np.int64).ravel() * classes + predicted.astype(np.int64).ravel()
        self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def iou(self) -> np.ndarray:
        """(C,) float64; NaN for a class that is neither there nor predicted."""
        common = np.diag(self.counts)
        either = self.counts.sum(0) + self.counts.sum(1) - common
        return np.divide(common, either, out=np.full(len(common), np.nan), where=either > 0)

    def mean_iou(self) -> float:
        """Over the classes that are there; one that is only predicted counts as 0."""
        values = self.iou()
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
