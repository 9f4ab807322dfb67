"""The observation pipeline: class ids, depth and joints to the tensors a policy was trained on.

In: observations with class ids and depth or disparity (from sensor, simulator or networks). Out: PolicyInput.
Called by worker.py. Every step's order, crop and interpolation comes from the contract; nothing is decided here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from robot.arm import Arm
from robot.contract import DisparityTerms, ImageTerms, PolicyContract, SegmenterOffer
from robot.errors import ObservationError
from robot.records import Frame, Observation, PolicyInput

INTERPOLATION = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR}

# A training-time guard of ggand0/pick-101 so101_factory.py: flatter disparity than this is taken as all near.
FLAT = 1e-6


@dataclass(frozen=True, slots=True)
class Planes:
    """What perception makes of a frame, at camera resolution."""

    class_ids: np.ndarray  # (H, W) uint8 in SEGMENTER_CLASSES
    disparity: np.ndarray  # (H, W) float32, larger = nearer, any scale


class Perception(Protocol):
    """Where class ids and disparity come from."""

    segmenter: SegmenterOffer

    def perceive(self, frame: Frame) -> Planes:
        """Raises ObservationError when the frame cannot serve."""


def normalise_disparity(disparity: np.ndarray, range_epsilon: float) -> np.ndarray:
    """(H, W) float to uint8, nearest = 255, farthest = 0, by the frame's own range. Rounds down, as in training."""
    low, high = float(disparity.min()), float(disparity.max())
    if not np.isfinite(low + high):
        raise ObservationError("disparity holds NaN or infinity")
    if range_epsilon == 0.0 and high - low <= FLAT:
        return np.full(disparity.shape, 255, np.uint8)
    return ((disparity - low) / (high - low + range_epsilon) * 255).astype(np.uint8)


def centre_square(plane: np.ndarray) -> np.ndarray:
    """The middle square of a picture that is wider than high."""
    height, width = plane.shape
    left = (width - height) // 2
    return plane[:, left : left + height]


def _disparity_plane(disparity: np.ndarray, terms: DisparityTerms, size_px: int) -> np.ndarray:
    if terms.order == "crop_then_normalise":
        plane = normalise_disparity(centre_square(disparity), terms.range_epsilon)
    else:
        plane = centre_square(normalise_disparity(disparity, terms.range_epsilon))
    return cv2.resize(plane, (size_px, size_px), interpolation=INTERPOLATION[terms.interpolation])


def policy_planes(planes: Planes, terms: ImageTerms) -> np.ndarray:
    """(2, S, S) uint8: policy class ids and normalised disparity of one frame."""
    table = np.array(terms.classes.policy_ids, np.uint8)
    if planes.class_ids.max() >= len(table):
        raise ObservationError(f"class id {planes.class_ids.max()} is outside the contract's {len(table)} classes")
    ids = cv2.resize(
        centre_square(table[planes.class_ids]), (terms.size_px, terms.size_px), interpolation=cv2.INTER_NEAREST
    )
    return np.stack([ids, _disparity_plane(planes.disparity, terms.disparity, terms.size_px)])


class ObservationPipeline:
    """Keeps the stack of one episode. `reset` at its start; `push` per processed observation."""

    def __init__(self, contract: PolicyContract, perception: Perception | None) -> None:
        self._terms = contract.image
        self._fields = contract.proprioception
        self._perception = perception
        self._arm = Arm()
        self._images: deque[np.ndarray] = deque(maxlen=contract.image.stack)
        self._states: deque[np.ndarray] = deque(maxlen=contract.image.stack)

    def reset(self) -> None:
        """Forget the stack; the next frame fills it with copies of itself."""
        self._images.clear()
        self._states.clear()

    def push(self, observation: Observation) -> tuple[PolicyInput, np.ndarray | None]:
        """The policy's input, and the (2, S, S) uint8 planes of the newest frame."""
        planes = None
        if self._perception is not None:
            if observation.frame is None:
                raise ObservationError("the policy needs a camera frame and there is none")
            planes = policy_planes(self._perception.perceive(observation.frame), self._terms)
        return self.push_planes(planes, observation), planes

    def push_planes(self, planes: np.ndarray | None, observation: Observation) -> PolicyInput:
        """The same from planes that were made before (replay of a recording)."""
        if planes is not None:
            self._extend(self._images, planes)
        self._extend(self._states, self.proprioception(observation))
        image = self._image() if planes is not None else None
        low_dim = np.stack(self._states) if self._fields else None
        return PolicyInput(image, low_dim, observation)

    def proprioception(self, observation: Observation) -> np.ndarray:
        """(N,) float32, raw units, in the contract's order; the tool's pose from forward kinematics."""
        joints = observation.joints
        position_m, rpy_rad = self._arm.tool_pose(joints.position_rad)
        parts = {
            "joint_position_rad": joints.position_rad,
            "joint_velocity_rad_s": joints.velocity_rad_s,
            "tool_position_m": position_m,
            "tool_rpy_rad": rpy_rad,
        }
        return np.concatenate([parts[name] for name in self._fields] or [np.zeros(0)]).astype(np.float32)

    def _extend(self, stack: deque[np.ndarray], item: np.ndarray) -> None:
        stack.extend([item] * (self._terms.stack if not stack else 1))

    def _image(self) -> np.ndarray:
        image = np.stack(self._images).astype(np.float32)
        if self._terms.normalised_by == "pipeline":
            image /= 255.0
        return image if self._terms.layout == "time_planes" else image.reshape(-1, *image.shape[2:])
