"""mIoU of a segmentation network on held-out frames: other seeds, other ranges, other patterns than it was trained on.

In: a checkpoint and a number of frames. Out: IoU per class at camera size and at the policy's size, and the same of a
baseline that has seen only how often which class lies where. Called by __main__.py. Frames are rendered at 640 × 480,
spoilt, segmented by the actor that the robot uses, and forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from actors.so101_segmenter import So101Segmenter
from robot.contract import SEGMENTER_CLASSES
from robot.observation import centre_square
from train_jobs.so101.ranges import HELD_OUT_LOOK, HELD_OUT_SPOIL
from train_jobs.so101.spoil import spoil
from train_jobs.so101.spread import spread
from train_jobs.so101_seg.score import Confusion
from train_jobs.so101_seg.studio import Studio

HELD_OUT_SEED = 900
CAMERA_PX = (640, 480)
POLICY_PX = 84
CLASSES = len(SEGMENTER_CLASSES)


@dataclass(slots=True)
class Tally:
    """What a part of the frames adds up to."""

    camera: Confusion  # at 640 × 480
    policy: Confusion  # the middle square at 84 × 84
    places: np.ndarray  # (84, 84, C) int64: how often which class lay where

    def baseline(self) -> Confusion:
        """Always the class that is most frequent at a pixel, over these very frames."""
        guess = Confusion(CLASSES)
        best = self.places.argmax(2)
        for predicted in range(CLASSES):
            guess.counts[:, predicted] = self.places[best == predicted].sum(0)
        return guess


def evaluate(checkpoint: Path, frames: int, *, seed: int = HELD_OUT_SEED, workers: int | None = None) -> dict[str, Any]:
    """Numbers by name. Raises OSError or UnexpectedModel for the checkpoint."""
    loaded = So101Segmenter(checkpoint)
    loaded.load()
    return summed(spread(partial(tally, checkpoint, seed), range(frames), workers), frames)


def summed(tallies: Sequence[Tally], frames: int) -> dict[str, Any]:
    """What the parts of so many frames tell together."""
    whole = Tally(Confusion(CLASSES), Confusion(CLASSES), np.zeros((POLICY_PX, POLICY_PX, CLASSES), np.int64))
    for part in tallies:
        whole.camera.counts += part.camera.counts
        whole.policy.counts += part.policy.counts
        whole.places += part.places
    return {
        "frames": frames,
        "640x480": _told(whole.camera),
        "84x84": _told(whole.policy),
        "84x84 most frequent class per pixel": _told(whole.baseline()),
    }


def tally(checkpoint: Path, seed: int, numbers: list[int]) -> Tally:
    """Render and segment the numbered frames."""
    segmenter = So101Segmenter(checkpoint)
    segmenter.load()
    result = Tally(Confusion(CLASSES), Confusion(CLASSES), np.zeros((POLICY_PX, POLICY_PX, CLASSES), np.int64))
    studio = Studio(HELD_OUT_LOOK, seed, *CAMERA_PX)
    try:
        for number in numbers:
            rgb, truth = studio.frame(number)
            seen = segmenter.segment(spoil(rgb, HELD_OUT_SPOIL, np.random.default_rng([seed, number, 1])))
            result.camera.add(truth, seen)
            small = policy_size(truth)
            result.policy.add(small, policy_size(seen))
            result.places += np.eye(CLASSES, dtype=np.int64)[small]
    finally:
        studio.close()
    return result


def policy_size(ids: np.ndarray) -> np.ndarray:
    """(H, W) ids to (84, 84), as the policy's pipeline does it."""
    return cv2.resize(centre_square(ids), (POLICY_PX, POLICY_PX), interpolation=cv2.INTER_NEAREST)


def _told(confusion: Confusion) -> dict[str, float]:
    values = dict(zip(SEGMENTER_CLASSES, confusion.iou().tolist(), strict=True))
    return {"mIoU": confusion.mean_iou(), **{name: value for name, value in values.items() if np.isfinite(value)}}
