"""A template from a photo: the object inside a box, cut out by the segmenter.

In: a picture file and a box. Out: one View. Called by the command line, for objects without a CAD model.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from actors.messages import Prompt
from actors.segmenter import PromptSegmenter
from actors.tracker.errors import BankUnusable
from actors.tracker.mesh import View


def cut_view(path: Path, box: str) -> View:
    """`box` is `x0,y0,x1,y1` in pixels. Raises BankUnusable for no picture, no such box, or nothing in it."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if picture is None:
        raise BankUnusable(f"{path} is missing or no picture")
    image = np.ascontiguousarray(picture[:, :, ::-1])
    segmenter = PromptSegmenter()
    segmenter.load()
    (found,) = segmenter.segment(segmenter.embed(image), [Prompt(box_px=_parse(box, image.shape[1], image.shape[0]))])
    if not found.mask.any():
        raise BankUnusable(f"nothing was found inside --box {box} of {path}")
    return View(image, found.mask, None)


def _parse(box: str, width: int, height: int) -> np.ndarray:
    try:
        x0, y0, x1, y1 = (float(edge) for edge in box.split(","))
    except ValueError as error:
        raise BankUnusable(f"--box must be x0,y0,x1,y1 in pixels, not {box!r}") from error
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise BankUnusable(f"--box {box} is not inside the picture of {width}×{height}")
    return np.array([x0, y0, x1, y1], np.float32)
