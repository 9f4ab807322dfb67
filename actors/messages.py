"""What travels between actors, jobs and the robot: frozen records with read-only arrays.

Made by actors, read by data_jobs and serve. Knows nothing of Ray, files or wire formats.
Conventions: images are RGB uint8 (H, W, 3); boxes are xyxy pixels, the far edge exclusive; instants are integer
nanoseconds (`_ns`) or integer presentation times (`pts`) of their own stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Side = Literal["left", "right"]


def frozen(array: npt.ArrayLike, dtype: npt.DTypeLike, shape: tuple[int | None, ...], name: str) -> np.ndarray:
    """A read-only array of the given dtype; `None` in `shape` stands for any length.

    Raises ValueError that names the field, the shape it has and the shape it should have.
    """
    result = np.asarray(array, dtype=dtype)
    fits = result.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(result.shape, shape, strict=True)
    )
    if not fits:
        wanted = "×".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} has shape {result.shape}, expected {wanted}")
    if result.flags.writeable:
        result = result.copy() if result is array else result.view()
        result.flags.writeable = False
    return result


@dataclass(frozen=True, slots=True)
class Hand:
    """One hand in one image, as the 21 landmarks of MediaPipe (0 wrist, 4/8/12/16/20 finger tips)."""

    side: Side  # the person's own left or right, in an image that is NOT mirrored
    side_score: float  # 0..1, how sure the model is of the side
    presence_score: float  # 0..1, how sure the model is that this is a hand
    landmarks_px: np.ndarray  # (21, 3) float32: x, y in pixels of the image, z in the same scale, wrist = 0
    world_landmarks_m: np.ndarray  # (21, 3) float32: metres, origin at the hand's centre
    box_px: np.ndarray  # (4,) float32 xyxy around the landmarks, may reach past the image edge

    def __post_init__(self) -> None:
        """Check shapes once and make the arrays read-only."""
        set_ = object.__setattr__
        set_(self, "landmarks_px", frozen(self.landmarks_px, np.float32, (21, 3), "landmarks_px"))
        set_(self, "world_landmarks_m", frozen(self.world_landmarks_m, np.float32, (21, 3), "world_landmarks_m"))
        set_(self, "box_px", frozen(self.box_px, np.float32, (4,), "box_px"))


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found by a detector."""

    label: str
    score: float  # 0..1
    box_px: np.ndarray  # (4,) float32 xyxy

    def __post_init__(self) -> None:
        """Check the shape once and make the array read-only."""
        object.__setattr__(self, "box_px", frozen(self.box_px, np.float32, (4,), "box_px"))


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a segmenter is asked for in one image: a box, points, or both."""

    box_px: np.ndarray | None = None  # (4,) float32 xyxy
    points_px: np.ndarray | None = None  # (N, 2) float32
    point_labels: np.ndarray | None = None  # (N,) int32: 1 on the object, 0 off it

    def __post_init__(self) -> None:
        """Check shapes once; a prompt that asks for nothing is refused."""
        set_ = object.__setattr__
        if self.box_px is None and self.points_px is None:
            raise ValueError("a prompt needs a box, points, or both")
        if self.box_px is not None:
            set_(self, "box_px", frozen(self.box_px, np.float32, (4,), "box_px"))
        if self.points_px is not None:
            points = frozen(self.points_px, np.float32, (None, 2), "points_px")
            labels = np.ones(len(points)) if self.point_labels is None else self.point_labels
            set_(self, "points_px", points)
            set_(self, "point_labels", frozen(labels, np.int32, (len(points),), "point_labels"))


@dataclass(frozen=True, slots=True)
class Mask:
    """One segmented object in one image."""

    mask: np.ndarray  # (H, W) bool
    predicted_iou: float  # the model's own estimate, 0..1
    stability: float  # IoU of the mask thresholded a little higher and a little lower, 0..1
    low_res_logits: np.ndarray  # (256, 256) float32, what the model takes back as a mask prompt

    def __post_init__(self) -> None:
        """Check shapes once and make the arrays read-only."""
        set_ = object.__setattr__
        set_(self, "mask", frozen(self.mask, np.bool_, (None, None), "mask"))
        set_(self, "low_res_logits", frozen(self.low_res_logits, np.float32, (256, 256), "low_res_logits"))
