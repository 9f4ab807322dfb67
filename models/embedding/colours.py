"""Which colours an object has, whatever its shape: a histogram over hue and saturation, blind to how bright it is lit.

In: squares and coverage as crops.py cuts them. Out: (K, COLOURS) shares. Called by embedder.py.

The networks of embedder.py are trained to call a thing by its shape; a red duck and a blue one are one thing to them.
"""

from __future__ import annotations

import cv2
import numpy as np

# CIELAB's a and b: a bin for every 8 units up to ±44 (a bright toy), one beyond.
EDGES = np.concatenate([[-128.0], np.arange(-44, 45, 8), [128.0]])
SIDE = len(EDGES) - 1
COLOURS = SIDE * SIDE
# Light and white balance shift colours by a few units: neighbours share.
BLUR_BINS = 0.8
# The outline's pixels are mixed with black.
LEAST_COVERAGE = 0.99


def colours(squares: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """(K, 3, S, S) RGB in 0..1 and (K, S, S) → (K, COLOURS) float32 shares that sum to 1."""
    found = np.zeros((len(squares), COLOURS), np.float32)
    for row, (square, covered) in enumerate(zip(squares, coverage, strict=True)):
        # A sliver may have outline only.
        pixels = square[:, covered >= min(LEAST_COVERAGE, covered.max())].T
        lab = cv2.cvtColor(np.ascontiguousarray(pixels[None], np.float32), cv2.COLOR_RGB2LAB)[0]
        counts, _, _ = np.histogram2d(lab[:, 1], lab[:, 2], bins=[EDGES, EDGES])
        shared = cv2.GaussianBlur(counts.astype(np.float32), (3, 3), BLUR_BINS)
        found[row] = (shared / max(float(shared.sum()), 1e-9)).ravel()
    return found


def without_colour(histograms: np.ndarray) -> bool:
    """Whether all that these objects show is grey, as a model drawn without its colours: then there is no telling."""
    grey = cv2.GaussianBlur(_only(SIDE // 2), (3, 3), BLUR_BINS).ravel()
    return bool(np.abs(histograms - grey).max(initial=0) < 1e-3)


def alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Share of colours that two histograms have in common (their intersection), over the last axis."""
    return np.minimum(first, second).sum(axis=-1)


def _only(index: int) -> np.ndarray:
    one = np.zeros((SIDE, SIDE), np.float32)
    one[index, index] = 1
    return one
