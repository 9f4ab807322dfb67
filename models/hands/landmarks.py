"""Landmark model: the region of one hand to its 21 points, its side and whether it is a hand at all.

In: (H, W, 3) uint8 RGB and a Region. Out: Landmarks in image pixels and metres. Called by tracker.py. Knows
nothing of palms or of time. Follows hand_landmark_cpu.pbtxt and the landmark projection calculators.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.hands.regions import Region, crop
from models.litert import LiteRtModel

INPUT_SIZE_PX = 224
COUNT = 21
# The network's z is on another scale than its x and y (normalize_z of the graph).
Z_SCALE = 0.4


@dataclass(frozen=True, slots=True)
class Landmarks:
    """What the model says of one region."""

    presence: float  # 0..1, is this a hand
    left_if_mirrored: float  # 0..1, a left hand IF the image is a mirrored selfie: in a plain image, a right one
    points_px: np.ndarray  # (21, 3) float32: image pixels; z in the same scale, 0 at the wrist, negative = nearer
    world_m: np.ndarray  # (21, 3) float32: metres, axes of the image, origin at the hand's centre


class LandmarkModel:
    """The 224-pixel landmark network with its crop and projection."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load the .tflite file. Raises UnexpectedModel when it is another model."""
        shapes = {"points": (1, 3 * COUNT), "presence": (1, 1), "side": (1, 1), "world": (1, 3 * COUNT)}
        self._model = LiteRtModel(path, (1, INPUT_SIZE_PX, INPUT_SIZE_PX, 3), shapes, threads)

    def __call__(self, image: np.ndarray, region: Region) -> Landmarks:
        """Landmarks of whatever is in `region` of (H, W, 3) uint8 RGB; `presence` says if it is a hand."""
        picture = crop(image, region, INPUT_SIZE_PX, cv2.BORDER_REPLICATE)
        out = self._model(np.multiply(picture, np.float32(1 / 255), dtype=np.float32)[None])
        return Landmarks(
            presence=float(out["presence"][0, 0]),
            left_if_mirrored=float(out["side"][0, 0]),
            points_px=project(out["points"].reshape(COUNT, 3), region),
            world_m=turn(out["world"].reshape(COUNT, 3), region.rotation_rad),
        )


def project(points: np.ndarray, region: Region) -> np.ndarray:
    """Points (21, 3) in pixels of the crop → (21, 3) float32 in pixels of the image."""
    unit = points.astype(np.float64) / INPUT_SIZE_PX
    image_from_unit = region.image_from_unit()
    xy = unit[:, :2] @ image_from_unit[:, :2].T + image_from_unit[:, 2]
    z = unit[:, 2:] / Z_SCALE * region.side_px
    return np.hstack([xy, z]).astype(np.float32)


def turn(world: np.ndarray, rotation_rad: float) -> np.ndarray:
    """Metric points (21, 3) with the crop's axes → (21, 3) float32 with the image's axes."""
    cos, sin = np.cos(rotation_rad), np.sin(rotation_rad)
    image_from_crop = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return (world.astype(np.float64) @ image_from_crop.T).astype(np.float32)
