"""EfficientDet-Lite0: boxes of the 80 COCO classes in one picture, suppressed and sorted inside the model.

In: (H, W, 3) uint8 RGB. Out: boxes in pixels with class names and scores. Called by actors/detector.py.
Knows nothing of where the file comes from or of thresholds.

The file carries its own label list (COCO's 90 ids, ten of them never used), so no copy of it can drift from
the model.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.errors import UnexpectedModel
from models.litert import LiteRtModel

SIDE_PX = 320
CANDIDATES = 25  # the model's own limit after its non-maximum suppression (IoU 0.5)
CLASSES = 90  # COCO category ids 1..90, in order

# What zero is after the model's normalisation (x − 127) / 128: the training pipeline pads with it
# (google/automl efficientdet/dataloader.py, InputProcessor).
PADDING_GREY = 127

# COCO left ten of its 90 ids empty; the label file shows them like this and the model never learned them.
UNUSED_LABEL = "???"


@dataclass(frozen=True, slots=True)
class Found:
    """One detection."""

    label: str
    score: float  # 0..1
    box_px: np.ndarray  # (4,) float32 xyxy, inside the picture


class EfficientDet:
    """The model on LiteRT. Equal pictures give bit-equal results."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Read the file. Raises UnexpectedModel when it is another model or carries no label list."""
        outputs = {
            "boxes": (1, CANDIDATES, 4),
            "classes": (1, CANDIDATES),
            "scores": (1, CANDIDATES),
            "count": (1,),
        }
        self._model = LiteRtModel(path, (1, SIDE_PX, SIDE_PX, 3), outputs, threads)
        if self._model.input_dtype != np.uint8:
            raise UnexpectedModel(f"{path} takes {self._model.input_dtype}, expected uint8 pictures")
        self.labels = read_labels(path)

    def __call__(self, image: np.ndarray) -> list[Found]:
        """At most 25 detections, best first. Raises ValueError unless (H, W, 3) uint8."""
        square, scale = fit(image)
        found = self._model(square[None])
        count = int(found["count"][0])
        # The model gives ymin, xmin, ymax, xmax as shares of the square.
        boxes = found["boxes"][0, :count, [1, 0, 3, 2]].T * (SIDE_PX / scale)
        height, width = image.shape[:2]
        boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
        scores, classes = found["scores"][0, :count], found["classes"][0, :count].astype(int)
        return [Found(self.labels[c], float(score), box) for c, score, box in zip(classes, scores, boxes, strict=True)]


def fit(image: np.ndarray) -> tuple[np.ndarray, float]:
    """(H, W, 3) uint8 → (320, 320, 3) uint8 and the scale of the picture, which lies at the top left.

    Its shape is kept, as in training; some runtimes stretch it instead. Raises ValueError for anything else.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"a picture must be (H, W, 3) uint8 RGB, this one is {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    scale = SIDE_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Averaging when it shrinks: the thin parts of distant objects survive.
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    square = np.full((SIDE_PX, SIDE_PX, 3), PADDING_GREY, np.uint8)
    square[: size[1], : size[0]] = resized
    return square, scale


def read_labels(path: Path) -> tuple[str, ...]:
    """The 90 class names in the zip that TensorFlow Lite metadata appends to the model."""
    try:
        with zipfile.ZipFile(path) as archive:
            labels = tuple(archive.read("labelmap.txt").decode().split("\n")[:CLASSES])
    except (zipfile.BadZipFile, KeyError) as error:
        raise UnexpectedModel(f"{path} carries no labelmap.txt: {error}") from error
    if len(labels) != CLASSES:
        raise UnexpectedModel(f"{path} names {len(labels)} classes, expected {CLASSES}")
    return labels
