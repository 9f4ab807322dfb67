"""What travels inside the control loop: frozen records with read-only arrays.

Made by robots, policies and the governor; read by the loop and the recorder. Knows nothing of files or devices.
Images are RGB uint8; depth is metres along the optical axis; instants are integer nanoseconds of the loop's
monotonic clock; joint order is JOINTS everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
N_JOINTS = len(JOINTS)
N_ARM_JOINTS = 5  # the gripper does not move the tool point


def read_only(array: npt.ArrayLike, dtype: npt.DTypeLike, shape: tuple[int | None, ...], name: str) -> np.ndarray:
    """A read-only view of the given dtype; `None` in `shape` stands for any length. Raises ValueError."""
    result = np.asarray(array, dtype=dtype)
    if result.ndim != len(shape) or any(w is not None and h != w for h, w in zip(result.shape, shape, strict=True)):
        wanted = "×".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} has shape {result.shape}, expected {wanted}")
    if result.flags.writeable:
        result = result.copy() if result is array else result.view()
        result.flags.writeable = False
    return result


@dataclass(frozen=True, slots=True)
class Joints:
    """The arm's joints as measured at one instant."""

    position_rad: np.ndarray  # (6,) float64
    velocity_rad_s: np.ndarray  # (6,) float64
    measured_ns: int

    def __post_init__(self) -> None:
        """Check shapes once and make the arrays read-only."""
        set_ = object.__setattr__
        set_(self, "position_rad", read_only(self.position_rad, np.float64, (N_JOINTS,), "position_rad"))
        set_(self, "velocity_rad_s", read_only(self.velocity_rad_s, np.float64, (N_JOINTS,), "velocity_rad_s"))


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of the wrist camera, with the planes its sensor gives beside colour."""

    rgb: np.ndarray  # (H, W, 3) uint8
    captured_ns: int
    depth_m: np.ndarray | None = None  # (H, W) float32
    class_ids: np.ndarray | None = None  # (H, W) uint8 in the six classes of the segmenter (SEGMENTER_CLASSES)

    def __post_init__(self) -> None:
        """Check shapes once and make the arrays read-only."""
        set_ = object.__setattr__
        set_(self, "rgb", read_only(self.rgb, np.uint8, (None, None, 3), "rgb"))
        size = self.rgb.shape[:2]
        if self.depth_m is not None:
            set_(self, "depth_m", read_only(self.depth_m, np.float32, size, "depth_m"))
        if self.class_ids is not None:
            set_(self, "class_ids", read_only(self.class_ids, np.uint8, size, "class_ids"))


@dataclass(frozen=True, slots=True)
class Observation:
    """What the loop knows at one tick."""

    joints: Joints
    frame: Frame | None  # None where the robot has no camera
    object_position_m: np.ndarray | None = None  # (3,) float64 in the base frame; only a simulator knows it

    def __post_init__(self) -> None:
        """Check the shape once and make the array read-only."""
        if self.object_position_m is not None:
            value = read_only(self.object_position_m, np.float64, (3,), "object_position_m")
            object.__setattr__(self, "object_position_m", value)


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """What a policy is given: exactly the tensors its contract names."""

    image: np.ndarray | None  # float32, (3, 2, 84, 84) or (6, 84, 84) as the contract's layout says
    low_dim: np.ndarray | None  # (3, 18) float32, oldest first
    observation: Observation  # the newest observation, for policies that look at the simulator's truth


@dataclass(frozen=True, slots=True)
class Decision:
    """A policy's answer, tied to the observation it was made from."""

    action: np.ndarray  # (A,) float32 in the space its contract names
    tick: int  # index of the tick whose observation it answers
    observed_ns: int
    decided_ns: int
    planes: np.ndarray | None = None  # (2, H, W) uint8: what the pipeline made of the newest frame
    depth: int = 0  # observations the policy had seen since it was last reset; 0 = it started anew with this one

    @property
    def compute_ms(self) -> float:
        """From the observation to the decision, in milliseconds."""
        return (self.decided_ns - self.observed_ns) / 1e6


class LoopState(StrEnum):
    """What the arm is being told to do."""

    MOVE = "move"
    HOLD = "hold"
    RETURN = "return"
    ESTOP = "estop"


@dataclass(frozen=True, slots=True)
class Command:
    """What the governor lets through to the motors."""

    target_rad: np.ndarray  # (6,) float64
    state: LoopState
    reason: str = ""  # why it holds, empty while moving freely
    clamped: tuple[str, ...] = field(default=())  # which limits shaped it: velocity, acceleration, position, workspace

    def __post_init__(self) -> None:
        """Check the shape once and make the array read-only."""
        value = read_only(self.target_rad, np.float64, (N_JOINTS,), "target_rad")
        object.__setattr__(self, "target_rad", value)
