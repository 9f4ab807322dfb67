"""The two networks as a rollout uses them: eyes that segment a batch, a driver that decides for a batch.

In: shipped or trained weights. Out: Eyes and Driver of rollout.py. The same forward passes as actors/so101_segmenter.py
and actors/so101_policy.py, for several pictures at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from actors.so101_segmenter import strongest
from models.drqv2 import DrQv2
from models.so101_seg import for_inference, load_checkpoint, normalise
from train_jobs.so101_policy.rollout import Moment
from train_jobs.so101_policy.world import Sight


class NetworkEyes:
    """Eyes over a segmentation checkpoint."""

    def __init__(self, path: Path) -> None:
        self._checkpoint = load_checkpoint(path)
        self._network = for_inference(self._checkpoint.network)

    def see(self, sights: Sequence[Sight]) -> list[np.ndarray]:
        """Predicted ids at the pictures' size."""
        loaded = self._checkpoint
        size = (loaded.width_px, loaded.height_px)
        resized = np.stack([_sized(sight.rgb, size) for sight in sights])
        with torch.inference_mode():
            batch = normalise(torch.from_numpy(resized).permute(0, 3, 1, 2))
            coarse = self._network.coarse(batch.contiguous(memory_format=torch.channels_last)).numpy()
        ids = [strongest(logits, *size) for logits in coarse]
        return [
            cv2.resize(i, s.rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST) if i.shape != s.rgb.shape[:2] else i
            for i, s in zip(ids, sights, strict=True)
        ]


def _sized(rgb: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    return rgb if rgb.shape[1::-1] == size_px else cv2.resize(rgb, size_px, interpolation=cv2.INTER_LINEAR)


class NetworkDriver:
    """Decides for a batch, without exploration noise."""

    def __init__(self, network: DrQv2) -> None:
        self._network = network.eval()
        self._network.encoder.to(memory_format=torch.channels_last)

    def __call__(self, moments: Sequence[Moment]) -> list[np.ndarray]:
        """(4,) float32 each."""
        image = np.stack([_given(m.given.image if m.given else None) for m in moments])
        low_dim = np.stack([_given(m.given.low_dim if m.given else None) for m in moments])
        with torch.inference_mode():
            return list(self._network.act(torch.from_numpy(image), torch.from_numpy(low_dim)).numpy())


def _given(array: np.ndarray | None) -> np.ndarray:
    if array is None:
        raise ValueError("a network needs pictures; build the worlds with a camera")
    return array
