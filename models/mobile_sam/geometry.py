"""From a picture to the square that SAM looks at, and from its logits back to the picture.

In: RGB uint8 pictures, pixel coordinates. Out: normalised tensors, coordinates on the square, masks.
Called by actors/segmenter.py. Knows nothing of networks.

The rules are those of Segment Anything (Kirillov et al. 2023, `ResizeLongestSide` and `Sam.preprocess`):
longest side to 1024, ImageNet normalisation on the 0..255 scale, zeros below and to the right.
"""

# H W pixels of the picture, C channels

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

SIDE_PX = 1024  # SAM's input square
LOGITS_PX = 256  # the mask decoder's output square

# ImageNet mean and deviation on the 0..255 scale, as SAM was trained with.
_MEAN_RGB = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
_DEVIATION_RGB = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a picture lies on the square: its own size, and the size that it is resized to."""

    height: int
    width: int
    resized_height: int
    resized_width: int

    @classmethod
    def of(cls, height: int, width: int) -> Fit:
        """Longest side to 1024 px, the other rounded half up. ValueError if the picture has no pixels."""
        if height < 1 or width < 1:
            raise ValueError(f"a picture of {height}×{width} pixels cannot be segmented; it needs at least 1×1")
        scale = SIDE_PX / max(height, width)
        # A sliver would round to no rows at all.
        return cls(height, width, max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))

    def to_square(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 2) x, y in pixels of the picture → float32 pixels of the square."""
        scale = np.array([self.resized_width / self.width, self.resized_height / self.height])
        return (np.asarray(points_px, dtype=np.float64) * scale).astype(np.float32)


def prepare(image: np.ndarray) -> tuple[torch.Tensor, Fit]:
    """(H, W, 3) uint8 RGB → (1, 3, 1024, 1024) float32 on the CPU, and how the picture lies in it.

    Pillow's antialiased bilinear filter on uint8 is what SAM's own transform uses; other libraries' filters
    differ by up to two grey levels. Raises ValueError for another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a picture must be (H, W, 3) uint8 RGB, this one is {image.shape} {image.dtype}")
    fit = Fit.of(*image.shape[:2])
    size = (fit.resized_width, fit.resized_height)
    resized = np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    pixels_CHW = (torch.from_numpy(resized).permute(2, 0, 1) - _MEAN_RGB) / _DEVIATION_RGB
    square = torch.zeros(1, 3, SIDE_PX, SIDE_PX)
    square[0, :, : fit.resized_height, : fit.resized_width] = pixels_CHW
    return square, fit


def to_picture(logits: torch.Tensor, fit: Fit) -> torch.Tensor:
    """(256, 256) logits → (H, W) bool mask: up to the square, crop the padding, to the picture, above 0."""
    square = F.interpolate(logits[None, None], (SIDE_PX, SIDE_PX), mode="bilinear", align_corners=False)
    cropped = square[:, :, : fit.resized_height, : fit.resized_width]
    picture = F.interpolate(cropped, (fit.height, fit.width), mode="bilinear", align_corners=False)
    return picture[0, 0] > 0.0


def stability(logits: torch.Tensor, fit: Fit, offset: float = 1.0) -> float:
    """IoU of the mask cut at +offset and at −offset, where the (256, 256) logits show the picture.

    Segment Anything §5 ("stability score"); the higher cut lies inside the lower one, so IoU is a ratio of
    areas. 0 when even the lower cut is empty: nothing was segmented.
    """
    rows = max(1, round(fit.resized_height * LOGITS_PX / SIDE_PX))
    columns = max(1, round(fit.resized_width * LOGITS_PX / SIDE_PX))
    shown = logits[:rows, :columns]
    lower = int((shown > -offset).sum())
    return int((shown > offset).sum()) / lower if lower else 0.0
