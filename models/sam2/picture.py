"""From a picture to SAM 2's square and back: one preparation for automatic masks and for tracking.

In: (H, W, 3) uint8 RGB. Out: normalised squares; logits in the picture's size. Called by stream.py and automatic.py.

The rule is the package's `SAM2Transforms` (its image predictor): 0..1, bilinear with antialiasing to the square
without keeping the aspect, ImageNet normalisation last. The package's video loader resizes with Pillow instead, which
gives slightly other pixels (mean difference 0.19 deviations on noise); one backbone needs one rule.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

MEAN_RGB = (0.485, 0.456, 0.406)
DEVIATION_RGB = (0.229, 0.224, 0.225)


def prepare(image: np.ndarray, side_px: int, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
    """(H, W, 3) uint8 RGB → (1, 3, side, side). Raises ValueError for another shape or dtype."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"a frame must be (H, W, 3) uint8 RGB, this one is {image.shape} {image.dtype}")
    pixels = torch.tensor(image, device=device).permute(2, 0, 1)[None].float().contiguous() / 255
    square = F.interpolate(pixels, (side_px, side_px), mode="bilinear", align_corners=False, antialias=True)
    mean, deviation = (torch.tensor(x, device=device).view(1, 3, 1, 1) for x in (MEAN_RGB, DEVIATION_RGB))
    return ((square - mean) / deviation).to(dtype)


def to_picture(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(N, h, w) logits → (N, H, W) float32 logits in the picture's pixels."""
    return F.interpolate(logits[None].float(), (height, width), mode="bilinear", align_corners=False)[0]
