"""Labels on a picture that stay readable and off each other.

In: texts with the place that they speak of. Out: boxes with text, drawn last. Called by overlay.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
SCALE = 0.42  # of the font, on a picture whose shorter side is 480 px
# Under this, Hershey letters lose their strokes.
SMALLEST_SCALE = 0.30
DARK, LIGHT = (16, 16, 16), (255, 255, 255)
RELATIVE_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709


@dataclass(frozen=True, slots=True)
class _Label:
    text: str
    left: int
    top: int
    rgb: tuple[int, ...]
    faint: bool


class Labels:
    """Collects labels of one picture, moves each to a free place, draws them all."""

    def __init__(self, width_px: int, height_px: int, unit: float) -> None:
        self._width, self._height = width_px, height_px
        self._scale = max(SCALE * unit, SMALLEST_SCALE)
        self._pad = max(2, round(3 * unit))
        self._thickness = max(1, round(unit))
        self._labels: list[_Label] = []

    def add(
        self,
        text: str,
        at: tuple[int, int],
        rgb: tuple[int, ...],
        *,
        below: bool = False,
        faint: bool = False,
    ) -> None:
        """Label the point `at` (x, y): above it, or below; `faint` for what is not of this frame."""
        printable = text.encode("ascii", "replace").decode()  # OpenCV's fonts hold no other letters
        width, height = self._size(printable)
        left = int(np.clip(at[0], 0, max(0, self._width - width)))
        top = at[1] + self._pad if below else at[1] - height
        top = int(np.clip(top, 0, max(0, self._height - height)))
        self._labels.append(_Label(printable, left, self._free_top(left, top, width, height), rgb, faint))

    def draw(self, picture: np.ndarray) -> None:
        """Draw the labels into `picture`: solid for this frame, dark with a coloured edge for a faint one."""
        for label in self._labels:
            width, height = self._size(label.text)
            corner, opposite = (label.left, label.top), (label.left + width - 1, label.top + height - 1)
            cv2.rectangle(picture, corner, opposite, DARK if label.faint else label.rgb, cv2.FILLED)
            ink = label.rgb if label.faint else self._ink(label.rgb)
            baseline = (label.left + self._pad, label.top + height - self._pad - self._descent())
            cv2.putText(picture, label.text, baseline, FONT, self._scale, ink, self._thickness, cv2.LINE_AA)

    def _free_top(self, left: int, top: int, width: int, height: int) -> int:
        """The next height, downwards then upwards, at which the box covers no other label."""
        for candidate in [*range(top, self._height - height + 1, height), *range(top, -1, -height)]:
            if not any(self._overlaps(label, left, candidate, width, height) for label in self._labels):
                return candidate
        return top  # a picture full of labels: on top of another is better than not at all

    def _overlaps(self, label: _Label, left: int, top: int, width: int, height: int) -> bool:
        other_width, other_height = self._size(label.text)
        beside = left >= label.left + other_width or label.left >= left + width
        return not beside and top < label.top + other_height and label.top < top + height

    def _size(self, text: str) -> tuple[int, int]:
        (width, height), _ = cv2.getTextSize(text, FONT, self._scale, self._thickness)
        return width + 2 * self._pad, height + self._descent() + 2 * self._pad

    def _descent(self) -> int:
        return round(6 * self._scale)

    @staticmethod
    def _ink(rgb: tuple[int, ...]) -> tuple[int, ...]:
        return DARK if np.dot(RELATIVE_LUMINANCE, rgb) > 120 else LIGHT
