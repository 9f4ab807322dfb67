"""Boxes and masks in plain NumPy: overlap, suppression, run lengths. Shared by the operators."""

from __future__ import annotations

import json

import numpy as np
from pycocotools import mask as coco


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two xyxy boxes; 0 when either is empty."""
    overlap = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if overlap.min() <= 0:
        return 0.0
    inter = float(overlap.prod())
    return inter / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - inter)


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two (H, W) bool masks; 0 when both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def clipped(box_px: np.ndarray, width: int, height: int) -> np.ndarray:
    """The box cut to the image."""
    return np.clip(box_px, 0, np.array([width, height, width, height], np.float32)).astype(np.float32)


def grown(box_px: np.ndarray, share: float) -> np.ndarray:
    """The box made larger by `share` of its size on every side."""
    margin = (box_px[2:] - box_px[:2]) * share
    return np.concatenate([box_px[:2] - margin, box_px[2:] + margin]).astype(np.float32)


def area(box_px: np.ndarray) -> float:
    """Pixels inside the box."""
    return float(np.maximum(box_px[2:] - box_px[:2], 0).prod())


def mask_box(mask: np.ndarray) -> np.ndarray:
    """Tight xyxy box of a (H, W) bool mask, far edge exclusive; zeros when the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def encode_rle(mask: np.ndarray) -> str:
    """COCO-compressed run lengths of a (H, W) bool mask as JSON."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return json.dumps({"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")})
