"""ObjectDetector: owns EfficientDet-Lite0 and names the COCO objects in a picture.

In: (H, W, 3) uint8 RGB pictures. Out: Detections, best first. Called by data_jobs/egoworld operators
and serve. Knows nothing of Ray or of files beyond the weights catalogue.
"""

from __future__ import annotations

import numpy as np

from actors.messages import Detection
from models import weights
from models.efficientdet import UNUSED_LABEL, EfficientDet

WEIGHT_NAME = "efficientdet_lite0"


class ObjectDetector:
    """Finds up to 25 objects of COCO's 80 classes. The same picture gives bit-identical detections."""

    def __init__(self, score_threshold: float = 0.35, threads: int = 1) -> None:
        if not 0 <= score_threshold <= 1 or threads < 1:
            raise ValueError(
                f"score_threshold must be within 0..1, not {score_threshold}, and threads at least 1, not {threads}"
            )
        self.score_threshold, self.threads = score_threshold, threads
        self._model: EfficientDet | None = None

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Catalogue names of the weights, for `models.weights.fetch` and `sha256_of`."""
        return (WEIGHT_NAME,)

    def load(self) -> None:
        """Read the model; a second call does nothing. Raises MissingWeight with the command to run."""
        if self._model is None:
            self._model = EfficientDet(weights.path_of(WEIGHT_NAME), self.threads)

    def warm_up(self) -> None:
        """Load, and run once, so that the first real picture is not slower than the others."""
        self.load()
        self.detect(np.zeros((720, 1280, 3), np.uint8))

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Objects at or above the threshold, best first; boxes lie inside the picture and have an area.

        Raises ValueError for anything but (H, W, 3) uint8.
        """
        if self._model is None:
            raise RuntimeError("the detector is not loaded; call load() first (or again, after close())")
        return [
            Detection(label=found.label, score=found.score, box_px=found.box_px)
            for found in self._model(image)
            if found.score >= self.score_threshold
            and found.label != UNUSED_LABEL
            and np.all(found.box_px[2:] > found.box_px[:2])
        ]

    def close(self) -> None:
        """Free the model. Safe before load() and when called twice."""
        self._model = None
