"""What travels between a hand follower and whoever asks it: frozen records of plain numbers and arrays.

Made by actors/hand_follower.py, carried by serve. Knows nothing of torch, so that the gateway can read it cheaply.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDES = ("left", "right")


@dataclass(frozen=True, slots=True)
class HandRig:
    """Which robot, and where the camera is. Raises ValueError, one sentence."""

    side: str
    arm: str | None = None
    intrinsics: tuple[float, ...] | None = None  # fx, fy, cx, cy in pixels
    base_from_camera: tuple[float, ...] | None = None  # 16 numbers, row by row; metres

    def __post_init__(self) -> None:
        """Check it once; the arm's name is checked by who knows the arms."""
        if self.side not in SIDES:
            raise ValueError(f"side is {' or '.join(SIDES)}, not {self.side!r}")
        if self.arm is None:
            return
        if self.intrinsics is None or self.base_from_camera is None:
            raise ValueError("an arm needs intrinsics (fx, fy, cx, cy) and base_from_camera (16 numbers)")
        if len(self.intrinsics) != 4 or len(self.base_from_camera) != 16:
            raise ValueError("intrinsics are 4 numbers and base_from_camera 16")
        if not np.isfinite([*self.intrinsics, *self.base_from_camera]).all() or min(self.intrinsics[:2]) <= 0:
            raise ValueError("intrinsics and base_from_camera are finite numbers, focal lengths above 0")
        turn = np.array(self.base_from_camera).reshape(4, 4)[:3, :3]
        if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-3 or np.linalg.det(turn) < 0:
            raise ValueError("base_from_camera is no rigid transform: its rotation does not only turn")


@dataclass(frozen=True, slots=True)
class HandState:
    """What the next call needs to know of those before. Opaque to whoever carries it."""

    regions: tuple[tuple[float, float, float, float], ...]  # where hands were
    shape: tuple[int, ...]  # of the picture
    captured_ns: int
    points_m: np.ndarray  # (21, 3) the filter's
    speed_m_s: np.ndarray  # (21, 3)
    hand_rad: np.ndarray  # (16,)
    arm_rad: np.ndarray | None  # (6,)


@dataclass(frozen=True, slots=True)
class HandCommand:
    """What the robot is to do now."""

    hand_rad: np.ndarray  # (16,) float64 index, middle, ring, thumb
    arm_rad: np.ndarray | None  # (6,) float64
    flags: int  # models.retarget.motion.Flag of hand and arm
    seen: bool  # whether a hand of the wanted side was in the picture
    ms: dict[str, float]  # per stage
