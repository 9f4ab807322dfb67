"""TextDetector: owns GroundingDINO and finds what a text names in a picture.

In: (H, W, 3) uint8 RGB pictures. Out: Detections, best first. Called by data_jobs/egoworld/operators/sam2_video.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actors.messages import Detection

if TYPE_CHECKING:
    from models.grounding_dino import GroundingDino


def text_detector_file(name: str) -> Path:
    """The weights file of a folder or hub name. Raises MissingWeight with the command to run."""
    from models.grounding_dino import MODEL_FILE, folder_of

    return folder_of(name) / MODEL_FILE


class TextDetector:
    """Finds objects by name."""

    def __init__(self, name: str, text: str, box_threshold: float, text_threshold: float, device: str = "cpu") -> None:
        from models.grounding_dino import as_prompt

        self._name, self._device = name, device
        self._text = as_prompt(text)
        if not self._text:
            raise ValueError("the text prompt names nothing; write names with full stops, e.g. 'hand . cup . knife'")
        self._thresholds = (box_threshold, text_threshold)
        self._model: GroundingDino | None = None

    def load(self) -> None:
        """Read the model; a second call does nothing. Raises MissingWeight with the command to run."""
        from models.grounding_dino import GroundingDino, folder_of

        if self._model is None:
            self._model = GroundingDino(folder_of(self._name), self._device)

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Objects at or above the thresholds, best first; boxes cut to the picture, those without an area dropped."""
        if self._model is None:
            raise RuntimeError("the text detector is not loaded; call load() first (or again, after close())")
        height, width = image.shape[:2]
        edge = np.array([width, height, width, height], np.float32)
        found = [
            Detection(label=one.label, score=one.score, box_px=np.clip(one.box_px, 0, edge).astype(np.float32))
            for one in self._model(image, self._text, *self._thresholds)
        ]
        return [one for one in found if (one.box_px[2:] > one.box_px[:2]).all()]

    def close(self) -> None:
        """Free the model. Safe before load() and when called twice."""
        self._model = None
