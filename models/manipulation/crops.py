"""A hand found in a picture → the square that the network reads, with that square's camera; and joints back again.

In: (H, W, 3) uint8 RGB, where the hand's joints are in it, the picture's intrinsics. Out: Crop. Called by
actors/hand_reader.py. Squares stand upright, the middle finger's knuckle above the wrist, because the network is taught
hands that a detector has put so. Left hands are mirrored, with their camera: the network knows right hands only.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from models.errors import WrongInput
from models.manipulation.geometry import changed_intrinsics, crop_map

FloatArray = npt.NDArray[np.float64]
# Share of the square that the joints take: the middle of what the network is trained on, less the flesh around them.
SPAN = 0.6
LEAST_SIDE_PX = 8.0
WRIST, KNUCKLE = 0, 9
MIRROR = np.diag([-1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Crop:
    """What the network reads of one hand."""

    picture: torch.Tensor  # (3, S, S) uint8
    intrinsics: torch.Tensor  # (3, 3) float32 of this picture
    camera_from_crop: FloatArray  # (3, 3): joints read in the square, turned (and mirrored) as the camera stood


def crop_hand(image: np.ndarray, joints_px: np.ndarray, intrinsics: FloatArray, side: str, size_px: int) -> Crop:
    """The square around joints (21, 2 or more), given in pixels whose corners lie at whole numbers.

    Raises WrongInput for joints that are not finite.
    """
    points = np.asarray(joints_px, np.float64)[:, :2]
    if not np.isfinite(points).all():
        raise WrongInput("joints_px holds numbers that are not finite: there is no square around them")
    camera = np.asarray(intrinsics, np.float64)
    crop_from_camera = _upright(points)
    # Turned about the principal point a picture is that of a turned camera: K R K⁻¹.
    turned = (camera @ crop_from_camera @ np.linalg.inv(camera))[:2]
    # The map is of pixels' centres, the joints are counted from the picture's edge.
    points = _moved(points - 0.5, turned) + 0.5
    low, high = points.min(axis=0), points.max(axis=0)
    width = max(float((high - low).max()) / SPAN, LEAST_SIDE_PX)
    left, top = (torch.tensor(value, dtype=torch.float64) for value in (low + high - width) / 2)
    side_px = torch.tensor(width, dtype=torch.float64)
    # Drawn twice as large and averaged: fine structure of a large hand does not turn into noise.
    twice = crop_map(left, top, side_px, 2 * size_px).numpy() @ np.vstack([turned, [0, 0, 1]])
    drawn = cv2.warpAffine(image, twice, (2 * size_px, 2 * size_px), borderMode=cv2.BORDER_REPLICATE)
    drawn = cv2.resize(drawn, (size_px, size_px), interpolation=cv2.INTER_AREA)
    own = changed_intrinsics(torch.from_numpy(camera), crop_map(left, top, side_px, size_px)).float()
    if side == "left":
        drawn, crop_from_camera = drawn[:, ::-1], MIRROR @ crop_from_camera
        own[0, 2] = size_px - 1 - own[0, 2]
    return Crop(torch.from_numpy(np.ascontiguousarray(drawn.transpose(2, 0, 1))), own, crop_from_camera.T)


def _upright(points: FloatArray) -> FloatArray:
    """(3, 3) the turn about the view that puts the middle finger's knuckle above the wrist; none if they coincide."""
    x, y = points[KNUCKLE] - points[WRIST]
    length = float(np.hypot(x, y))
    if length < 1e-6:
        return np.eye(3)
    sine, cosine = -x / length, -y / length
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def _moved(points: FloatArray, picture_from_old: FloatArray) -> FloatArray:
    """Pixels (N, 2) under an affine map (2, 3)."""
    return np.asarray(points @ picture_from_old[:, :2].T + picture_from_old[:, 2])


def unmirrored(points_m: npt.NDArray[np.float32], mirrored: bool) -> npt.NDArray[np.float32]:
    """Points (..., 3) seen in a crop, in the frame of the camera that took the whole picture."""
    return points_m * np.array([-1 if mirrored else 1, 1, 1], np.float32)


def assumed_intrinsics(focal_px: float, width: int, height: int) -> FloatArray:
    """(3, 3) of a camera that looks at its picture's middle; pixels' centres lie at whole numbers."""
    return np.array([[focal_px, 0, width / 2 - 0.5], [0, focal_px, height / 2 - 0.5], [0, 0, 1]])
