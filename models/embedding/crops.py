"""From a picture and a mask to the square that an embedder looks at: cut, mask while in 0..1, pad, resize, normalise.

In: (H, W, 3) uint8 RGB and (H, W) bool. Out: (N, 3, S, S) float32 squares and (N, S, S) float32 coverage. Called by
embedder.py, for templates and for proposals alike: a bank carries this recipe's fingerprint.

The order matters. Normalised first and masked after, the background becomes 0, which is the mean colour of ImageNet:
grey. Masked first, it is black and stays black, for templates on black and for cut-outs alike.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

MEAN_RGB = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION_RGB = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True, slots=True)
class CropSpec:
    """The recipe. Any change gives another fingerprint, and banks made before it are refused."""

    side_px: int = 224
    margin: float = 0.05  # of the longer side, black, on each side: outlines are features too
    background: str = "black"
    order: str = "mask, pad, resize, normalise"
    resize: str = "area down, linear up"

    def fingerprint(self, embedder: str, weights_sha256: str) -> str:
        """16 hex digits over the recipe, the network and its weights."""
        held = {**dataclasses.asdict(self), "embedder": embedder, "weights_sha256": weights_sha256}
        return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Crops:
    """Squares of the masks that held anything, and which ones those were."""

    squares: np.ndarray  # (K, 3, S, S) float32 in 0..1, black outside the object
    coverage: np.ndarray  # (K, S, S) float32 in 0..1: how much of each pixel is object
    index: np.ndarray  # (K,) int64: position of each square's mask among those that were given


def cut(image: np.ndarray, masks: Sequence[np.ndarray] | np.ndarray, spec: CropSpec) -> Crops:
    """One square per mask that is not empty; `index` leads back from a square to its mask."""
    kept = [number for number, mask in enumerate(masks) if mask.any()]
    squares = np.zeros((len(kept), spec.side_px, spec.side_px, 3), np.float32)
    coverage = np.zeros((len(kept), spec.side_px, spec.side_px), np.float32)
    for row, number in enumerate(kept):
        squares[row], coverage[row] = _square(image, masks[number], spec)
    return Crops(squares.transpose(0, 3, 1, 2), coverage, np.array(kept, np.int64))


def _square(image: np.ndarray, mask: np.ndarray, spec: CropSpec) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = mask[window].astype(np.float32)
    pixels = image[window].astype(np.float32) / 255 * inside[..., None]
    height, width = inside.shape
    side = max(1, round(max(height, width) * (1 + 2 * spec.margin)))
    top, left = (side - height) // 2, (side - width) // 2
    padded = np.zeros((side, side, 4), np.float32)
    padded[top : top + height, left : left + width, :3] = pixels
    padded[top : top + height, left : left + width, 3] = inside
    how = cv2.INTER_AREA if side > spec.side_px else cv2.INTER_LINEAR
    resized = cv2.resize(padded, (spec.side_px, spec.side_px), interpolation=how)
    return resized[..., :3], resized[..., 3]


def normalise(squares: np.ndarray, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
    """(N, 3, S, S) in 0..1 → what the networks were trained on. The last step before a network, and the only one."""
    shape = (1, 3, 1, 1)
    return torch.tensor((squares - MEAN_RGB.reshape(shape)) / DEVIATION_RGB.reshape(shape)).to(device, dtype)
