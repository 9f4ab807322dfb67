"""What a real camera does to a rendered picture: exposure, white balance, blur, noise, JPEG.

In: RGB and SpoilRanges. Out: RGB of the same size. Called on training batches and on held-out frames. Pictures are
never flipped: a wrist camera over a table has an up and a down, and fingers a left and a right.
"""

from __future__ import annotations

import cv2
import numpy as np

from train_jobs.so101.ranges import SpoilRanges


def spoil(rgb: np.ndarray, ranges: SpoilRanges, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 to the same."""
    picture = rgb.astype(np.float32) / 255.0
    grey = picture.mean(axis=2, keepdims=True)
    picture += rng.uniform(*ranges.desaturation) * (grey - picture)
    picture *= rng.uniform(*ranges.exposure) * rng.uniform(*ranges.gain, 3).astype(np.float32)
    picture = np.clip(picture, 0.0, 1.0) ** np.float32(rng.uniform(*ranges.gamma))
    sigma_px = rng.uniform(*ranges.blur) * rgb.shape[1] / 1000
    if sigma_px > 0.15:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma_px)
    noise = rng.normal(0.0, rng.uniform(*ranges.noise), rgb.shape).astype(np.float32)
    spoilt = np.clip(picture * 255.0 + noise, 0, 255).astype(np.uint8)
    quality = int(rng.integers(ranges.jpeg[0], ranges.jpeg[1] + 1))
    _, packed = cv2.imencode(".jpg", spoilt, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
