"""Segmenter of the SO-101's wrist camera: owns one EfficientViT-B0 and turns a picture into class ids.

In: RGB pictures. Out: ids of six classes, same size. Called by the robot's worker thread (through robot.networks) and
by serve. Knows nothing of Ray, robots or files but its checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from models.shipped import SO101_SEGMENTER as SHIPPED
from models.so101_seg import SegCheckpoint, So101Seg, for_inference, load_checkpoint, normalise

__all__ = ["SHIPPED", "So101Segmenter", "strongest"]  # the weights that ship, for those who may not know `models`

THREADS = 1


def strongest(coarse: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """(K, h, w) float32 logits, enlarged bilinearly, to the (height, width) uint8 id of the largest, lowest id first.

    One plane after the other: an arg-max over the outer axis of all planes strides through memory and takes ten times
    as long. OpenCV's half-pixel bilinear is the network's own (`align_corners=False`).
    """
    best = cv2.resize(coarse[0], (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    ids = np.zeros(best.shape, np.uint8)
    for number, plane in enumerate(coarse[1:], start=1):
        logits = cv2.resize(plane, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
        np.copyto(ids, np.uint8(number), where=logits > best)
        np.maximum(best, logits, out=best)
    return ids


class So101Segmenter:
    """Four verbs: load, warm_up, segment, close."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._path = Path(path)
        self._device = device
        self._checkpoint: SegCheckpoint | None = None
        self._network: So101Seg

    def load(self) -> None:
        """Read the checkpoint. Raises OSError without a file, UnexpectedModel when it is of another layout."""
        checkpoint = load_checkpoint(self._path)
        self._network = for_inference(checkpoint.network).to(self._device)
        self._checkpoint = checkpoint

    def describe(self) -> dict[str, Any]:
        """Which training run it comes from, for the robot's contract check."""
        loaded = self._loaded
        return {"run": loaded.run, "sha256": loaded.sha256, "classes": loaded.classes}

    def warm_up(self) -> None:
        """One pass on a grey picture."""
        loaded = self._loaded
        self.segment(np.full((loaded.height_px, loaded.width_px, 3), 128, np.uint8))

    def segment(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB to (H, W) uint8 ids. Other sizes are stretched to the network's, as it was trained."""
        loaded = self._loaded
        height_px, width_px = rgb.shape[:2]
        picture = rgb
        if (height_px, width_px) != (loaded.height_px, loaded.width_px):
            picture = cv2.resize(rgb, (loaded.width_px, loaded.height_px), interpolation=cv2.INTER_LINEAR)
        torch.set_num_threads(THREADS)
        with torch.inference_mode():
            batch = torch.tensor(picture, device=self._device).permute(2, 0, 1)[None]
            picture_BCHW = normalise(batch).contiguous(memory_format=torch.channels_last)
            coarse = self._network.coarse(picture_BCHW)[0].cpu().numpy()
        ids = strongest(coarse, loaded.width_px, loaded.height_px)
        if ids.shape != (height_px, width_px):
            ids = cv2.resize(ids, (width_px, height_px), interpolation=cv2.INTER_NEAREST)
        return ids

    def close(self) -> None:
        """Free the network. Safe before load() and when called twice."""
        self._checkpoint = None

    @property
    def _loaded(self) -> SegCheckpoint:
        if self._checkpoint is None:
            raise RuntimeError("load() the segmenter before using it")
        return self._checkpoint
