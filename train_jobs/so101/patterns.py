"""What is printed on the simulated table: flat patterns, which a network must learn to tell from things that lie there.

In: the name of a kind, LookRanges, a random generator. Out: pixels of the table's texture. Used by look.py.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np

from train_jobs.so101.ranges import LookRanges

Draw = Callable[[int, int, np.random.Generator], np.ndarray]  # (H, W) levels, about -0.5 to 0.5


def table_pattern(kind: str, height_px: int, width_px: int, ranges: LookRanges, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8: one of KINDS in shades of a muted colour. Raises ValueError for a kind that is not known."""
    value, contrast = rng.uniform(*ranges.table_value), rng.uniform(*ranges.table_contrast)
    tint = np.array(colorsys.hsv_to_rgb(rng.uniform(0.05, 0.95), rng.uniform(0.0, 0.35), 1.0))
    if kind not in KINDS:
        raise ValueError(f"unknown pattern {kind!r}; known: {', '.join(KINDS)}")
    grey = np.clip(value * (1 + 2 * contrast * KINDS[kind](height_px, width_px, rng)), 0.0, 1.0)
    return (255 * grey[..., None] * tint).astype(np.uint8)


def _plain(height_px: int, width_px: int, rng: np.random.Generator) -> np.ndarray:
    return np.zeros((height_px, width_px))


def _checker(height_px: int, width_px: int, rng: np.random.Generator) -> np.ndarray:
    period = int(rng.choice([16, 32, 64, 128]))
    y, x = np.mgrid[0:height_px, 0:width_px]
    return ((x // period + y // period) % 2) - 0.5


def _noise(height_px: int, width_px: int, rng: np.random.Generator) -> np.ndarray:
    return _smooth(height_px, width_px, int(rng.choice([4, 16, 64])), rng)


def _stripes(height_px: int, width_px: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:height_px, 0:width_px]
    return np.sin(2 * np.pi * (x * rng.integers(0, 6) + y * rng.integers(1, 6)) / width_px) / 2


def _cloth(height_px: int, width_px: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:height_px, 0:width_px]
    return (np.sin(x * np.pi / 4) * np.sin(y * np.pi / 4)) / 2 + 0.3 * rng.normal(size=x.shape)


def _blots(height_px: int, width_px: int, rng: np.random.Generator) -> np.ndarray:
    return np.sign(_smooth(height_px, width_px, int(rng.choice([6, 12])), rng)) / 2


def _shards(height_px: int, width_px: int, rng: np.random.Generator) -> np.ndarray:
    """Cells around random points, each of its own shade."""
    count = int(rng.choice([6, 20, 60]))
    seeds_px, shades = rng.uniform(0, (height_px, width_px), (count, 2)), rng.uniform(-0.5, 0.5, count)
    y, x = np.mgrid[0:height_px, 0:width_px]
    nearest, least = np.zeros((height_px, width_px), np.int64), np.full((height_px, width_px), np.inf)
    for index, (at_y, at_x) in enumerate(seeds_px):
        away = (y - at_y) ** 2 + (x - at_x) ** 2
        nearest[away < least] = index
        least = np.minimum(least, away)
    return shades[nearest]


def _prints(height_px: int, width_px: int, rng: np.random.Generator) -> np.ndarray:
    """Flat discs, boxes and bars of any shade: the outlines of things without the things."""
    levels = np.full((height_px, width_px), rng.uniform(-0.3, 0.3), np.float32)
    for _ in range(int(rng.integers(3, 25))):
        at = (float(rng.uniform(0, width_px)), float(rng.uniform(0, height_px)))
        size = tuple(float(side) for side in width_px * rng.uniform(0.03, 0.3, 2))
        turn_deg, shade = float(rng.uniform(0, 180)), float(rng.uniform(-0.5, 0.5))
        if rng.random() < 0.5:
            cv2.ellipse(levels, (at, size, turn_deg), shade, thickness=-1)
        else:
            corners = cv2.boxPoints((at, size, turn_deg)).astype(np.int32)
            cv2.fillConvexPoly(levels, corners, shade)
    return levels


def _strokes(height_px: int, width_px: int, rng: np.random.Generator) -> np.ndarray:
    """Scratches and wet paths, over slow changes of shade."""
    levels = _smooth(height_px, width_px, 4, rng) / 2
    for _ in range(int(rng.integers(4, 40))):
        path = np.cumsum(rng.normal(0, 0.08 * width_px, (6, 2)), 0) + rng.uniform(0, width_px, 2)
        shade, thickness_px = float(rng.uniform(-0.5, 0.5)), int(rng.integers(1, 9))
        cv2.polylines(levels, [path.astype(np.int32)], isClosed=False, color=shade, thickness=thickness_px)
    return levels


def _smooth(height_px: int, width_px: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    coarse = rng.uniform(-0.5, 0.5, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_CUBIC)


KINDS: dict[str, Draw] = {
    "plain": _plain,
    "checker": _checker,
    "noise": _noise,
    "stripes": _stripes,
    "cloth": _cloth,
    "blots": _blots,
    "shards": _shards,
    "prints": _prints,
    "strokes": _strokes,
}
