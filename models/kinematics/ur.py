"""Universal Robots arms: forward kinematics, and inverse kinematics in closed form with all eight branches.

In: joint angles or flange poses as batched torch tensors. Out: poses or angles, with flags. Called by
models/retarget and by whoever drives such an arm. Differentiable where the branch does not change.

Frames: `base` is the controller's base frame, `flange` the frame of the last Denavit-Hartenberg row, as in the
manufacturer's tables. Angles in radians, lengths in metres. The solution follows from the arm's geometry: joints
2, 3 and 4 are parallel, so the wrist point fixes joint 1 (shoulder left or right), the flange's axis joint 5 (wrist
up or down), the flange's turn joint 6, and what is left is a planar triangle (elbow up or down).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import UnknownRobot

BRANCHES = 8
# Below these a joint's angle is not determined by the pose (sines; metres for the shoulder).
SINGULAR_SINE, SINGULAR_M = 1e-6, 1e-6
# Rounding of a pose at the very edge of the workspace must not make it unreachable.
EDGE_M = 1e-9

HALF, TURN = math.pi, 2 * math.pi


@dataclass(frozen=True, slots=True)
class UrArm:
    """Denavit-Hartenberg lengths and limits of one arm, from the manufacturer's published tables."""

    name: str
    d1: float
    a2: float
    a3: float
    d4: float
    d5: float
    d6: float
    speed_rad_s: tuple[float, ...]  # per joint
    limit_rad: float = TURN  # ± for every joint


def _degrees(*values: float) -> tuple[float, ...]:
    return tuple(math.radians(value) for value in values)


ARMS = {
    arm.name: arm
    for arm in (
        UrArm("ur3", 0.1519, -0.24365, -0.21325, 0.11235, 0.08535, 0.0819, _degrees(180, 180, 180, 360, 360, 360)),
        UrArm("ur5", 0.089159, -0.425, -0.39225, 0.10915, 0.09465, 0.0823, _degrees(*[180] * 6)),
        UrArm("ur10", 0.1273, -0.612, -0.5723, 0.163941, 0.1157, 0.0922, _degrees(120, 120, 180, 180, 180, 180)),
        UrArm("ur3e", 0.15185, -0.24355, -0.2132, 0.13105, 0.08535, 0.0921, _degrees(180, 180, 180, 360, 360, 360)),
        UrArm("ur5e", 0.1625, -0.425, -0.3922, 0.1333, 0.0997, 0.0996, _degrees(*[180] * 6)),
        UrArm("ur10e", 0.1807, -0.6127, -0.57155, 0.17415, 0.11985, 0.11655, _degrees(120, 120, 180, 180, 180, 180)),
    )
}


def arm_named(name: str) -> UrArm:
    """An arm by name. Raises UnknownRobot, which lists the names."""
    if name not in ARMS:
        raise UnknownRobot(f"there is no arm {name!r}; choose one of {', '.join(ARMS)}")
    return ARMS[name]


def joint_poses(arm: UrArm, angles_rad: Tensor) -> Tensor:
    """Poses (..., 6, 4, 4) of the six Denavit-Hartenberg frames in the base, for angles (..., 6)."""
    zero = torch.zeros_like(angles_rad[..., 0])
    lengths = ((arm.d1, 0.0, 1), (0.0, arm.a2, 0), (0.0, arm.a3, 0), (arm.d4, 0.0, 1), (arm.d5, 0.0, -1),
               (arm.d6, 0.0, 0))  # fmt: skip
    at, poses = None, []
    for k, (d, a, quarter) in enumerate(lengths):
        s, c, one = angles_rad[..., k].sin(), angles_rad[..., k].cos(), zero + 1
        # Rz(θ) Tz(d) Tx(a) Rx(quarter · 90°)
        if quarter:
            rows = [c, zero, quarter * s, a * c, s, zero, -quarter * c, a * s, zero, quarter * one, zero, d * one]
        else:
            rows = [c, -s, zero, a * c, s, c, zero, a * s, zero, zero, one, d * one]
        step = torch.stack([*rows, zero, zero, zero, one], -1).reshape(*zero.shape, 4, 4)
        at = step if at is None else at @ step
        poses.append(at)
    return torch.stack(poses, -3)


def forward(arm: UrArm, angles_rad: Tensor) -> Tensor:
    """`base_from_flange` (..., 4, 4) for angles (..., 6)."""
    return joint_poses(arm, angles_rad)[..., -1, :, :]


@dataclass(frozen=True, slots=True)
class Inverse:
    """All solutions for poses of shape (...)."""

    angles_rad: Tensor  # (..., 8, 6) in [−π, π)
    excess_m: Tensor  # (..., 8) by how much the branch misses the position, its orientation kept; 0 where it reaches
    shoulder_singular: Tensor  # (...) the wrist point lies on the shoulder's inner cylinder: joint 1's branches meet
    elbow_singular: Tensor  # (..., 8) arm stretched or folded: the elbow's branches meet
    wrist_singular: Tensor  # (..., 8) joint 5 at 0 or π: only the sum of joints 4 and 6 is determined

    @property
    def reachable(self) -> Tensor:
        """(...) bool: whether any branch reaches the pose."""
        return self.excess_m.amin(-1) <= EDGE_M


def inverse(arm: UrArm, base_from_flange: Tensor, wrist_3_rad: Tensor | float = 0.0) -> Inverse:
    """Joint angles for flange poses (..., 4, 4), eight branches: shoulder × wrist × elbow.

    `wrist_3_rad` (...) is the angle that joint 6 takes where the wrist is singular. A branch that cannot reach the
    position keeps the orientation and stretches (or folds) towards it in the arm's plane; its `excess_m` says by how
    much it misses.
    """
    turn, position = base_from_flange[..., :3, :3], base_from_flange[..., :3, 3]
    wrist = position - arm.d6 * turn[..., :, 2]
    reach = wrist[..., :2].norm(dim=-1)
    inside = (arm.d4 - reach).clamp(min=0)
    # Closer to the axis than the shoulder's offset allows: move the wrist point straight outwards.
    outward = torch.where((reach > 1e-9)[..., None], wrist[..., :2] / reach.clamp(min=1e-9)[..., None], _x_axis(wrist))
    moved = torch.cat([inside[..., None] * outward, torch.zeros_like(wrist[..., 2:])], -1)
    wrist, position = wrist + moved, position + moved
    reach2 = wrist[..., 0] ** 2 + wrist[..., 1] ** 2
    swing = torch.atan2((reach2 - arm.d4**2).clamp(min=0).sqrt(), torch.full_like(reach2, arm.d4))
    heading = torch.atan2(wrist[..., 1], wrist[..., 0]) + HALF / 2
    first = torch.stack([heading + swing, heading - swing], -1)  # (..., 2)
    fifth, sixth, loose = _wrist(turn, first, torch.as_tensor(wrist_3_rad, dtype=turn.dtype, device=turn.device))
    first = first[..., None].expand_as(fifth)  # (..., 2, 2)
    planar = _planar(arm, turn, position, first, fifth, sixth)
    rest, excess, straight = _triangle(arm, *planar)  # (..., 2, 2, 2, 3)
    angles = torch.stack(
        [first[..., None].expand_as(straight), rest[..., 0], rest[..., 1], rest[..., 2],
         fifth[..., None].expand_as(straight), sixth[..., None].expand_as(straight)], -1,
    )  # fmt: skip
    shape = base_from_flange.shape[:-2]
    excess = (excess + inside[..., None, None])[..., None].expand_as(straight)
    return Inverse(
        wrapped(angles).reshape(*shape, BRANCHES, 6),
        excess.reshape(*shape, BRANCHES),
        (reach - arm.d4).abs() < SINGULAR_M,
        straight.reshape(*shape, BRANCHES),
        loose[..., None].expand_as(straight).reshape(*shape, BRANCHES),
    )


def beyond(arm: UrArm, base_from_flange: Tensor) -> Tensor:
    """By how many metres (...) poses (..., 4, 4) are outside of what the arm reaches in that orientation; < 0 inside.

    Of the branches the one that is least outside counts. Differentiable in the position but where branches meet.
    """
    turn, position = base_from_flange[..., :3, :3], base_from_flange[..., :3, 3]
    wrist = position - arm.d6 * turn[..., :, 2]
    reach2 = (wrist[..., :2] ** 2).sum(-1)
    swing = torch.atan2((reach2 - arm.d4**2).clamp(min=1e-12).sqrt(), torch.full_like(reach2, arm.d4))
    heading = torch.atan2(wrist[..., 1], wrist[..., 0]) + HALF / 2
    first = torch.stack([heading + swing, heading - swing], -1)
    fifth, sixth, _ = _wrist(turn, first, torch.zeros_like(heading))
    across, up, _ = _planar(arm, turn, position, first[..., None].expand_as(fifth), fifth, sixth)
    far = (across**2 + up**2).clamp(min=1e-18).sqrt()
    most, least = abs(arm.a2) + abs(arm.a3), abs(abs(arm.a2) - abs(arm.a3))
    outside = torch.maximum(far - most, least - far).flatten(-2).amin(-1)
    return torch.maximum(outside, arm.d4 - reach2.clamp(min=1e-18).sqrt())


def _x_axis(like: Tensor) -> Tensor:
    return torch.tensor([1.0, 0.0], dtype=like.dtype, device=like.device).expand(*like.shape[:-1], 2)


def _wrist(turn: Tensor, first: Tensor, fallback: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Joints 5 and 6 (..., 2, 2), and where joint 6 is not determined, from the orientation and joint 1 (..., 2)."""
    s, c = first.sin()[..., None], first.cos()[..., None]
    # The axis of joints 2 to 4, seen from the flange: its share along x, y and z of the flange.
    along = s * turn[..., None, 0, :] - c * turn[..., None, 1, :]  # (..., 2, 3)
    sine = along[..., :2].norm(dim=-1)
    fifth = torch.atan2(sine, along[..., 2])
    sixth = torch.atan2(-along[..., 1], along[..., 0])
    loose = sine < SINGULAR_SINE
    flipped = torch.stack([fifth, -fifth], -1)
    turned = torch.stack([sixth, sixth + HALF], -1)
    loose = loose[..., None].expand_as(flipped)
    return flipped, torch.where(loose, fallback[..., None, None].expand_as(turned), turned), loose


def _planar(
    arm: UrArm, turn: Tensor, position: Tensor, first: Tensor, fifth: Tensor, sixth: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Place (x, y) of joint 4 in the plane of the upper arm, and the sum of joints 2, 3 and 4; each (..., 2, 2)."""
    s1, c1, s5, c5 = first.sin(), first.cos(), fifth.sin(), fifth.cos()
    s6, c6 = sixth.sin(), sixth.cos()
    # The x and z axes of frame 4: rows 1 and 3 of the rotation from 4 to 6 hold them in the flange's frame.
    in_base = turn[..., None, None, :, :]
    x4 = (in_base @ torch.stack([c5 * c6, -c5 * s6, -s5], -1)[..., None])[..., 0]
    z4 = (in_base @ torch.stack([-s6, -c6, torch.zeros_like(s6)], -1)[..., None])[..., 0]
    fourth = position[..., None, None, :] - arm.d6 * turn[..., None, None, :, 2] - arm.d5 * z4
    across = c1 * fourth[..., 0] + s1 * fourth[..., 1]
    up = fourth[..., 2] - arm.d1
    total = torch.atan2(x4[..., 2], c1 * x4[..., 0] + s1 * x4[..., 1])
    return across, up, total


def _triangle(arm: UrArm, across: Tensor, up: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Joints 2, 3, 4 (..., 2, 2, 2, 3), metres beyond the reach (..., 2, 2), and where the elbow's branches meet."""
    far2 = across**2 + up**2
    cosine = (far2 - arm.a2**2 - arm.a3**2) / (2 * arm.a2 * arm.a3)
    # 1 − cos² as a product keeps its digits where the arm is almost straight.
    sine = ((1 - cosine) * (1 + cosine)).clamp(min=0).sqrt()
    far = far2.clamp(min=1e-18).sqrt()
    most, least = abs(arm.a2) + abs(arm.a3), abs(abs(arm.a2) - abs(arm.a3))
    excess = (far - most).clamp(min=0) + (least - far).clamp(min=0)
    third = torch.atan2(sine, cosine.clamp(-1, 1))
    third = torch.stack([third, -third], -1)
    direction = torch.atan2(up, across)[..., None]
    second = direction - torch.atan2(arm.a3 * third.sin(), arm.a2 + arm.a3 * third.cos())
    fourth = total[..., None] - second - third
    return torch.stack([second, third, fourth], -1), excess, (sine < SINGULAR_SINE)[..., None].expand_as(second)


def wrapped(angle_rad: Tensor) -> Tensor:
    """The same angles in [−π, π)."""
    return torch.remainder(angle_rad + HALF, TURN) - HALF


def nearest(arm: UrArm, solutions: Inverse, near_rad: Tensor) -> Tensor:
    """The branch (..., 6) closest to `near_rad` (..., 6), whole turns included, within the joints' limits.

    Close is measured by the slowest joint: the time that the move needs at full speed. Only branches that reach the
    pose count; if none does, those that miss it by least.
    """
    base = near_rad[..., None, :]
    angles = base + wrapped(solutions.angles_rad - base)
    angles = torch.where(angles > arm.limit_rad, angles - TURN, angles)
    angles = torch.where(angles < -arm.limit_rad, angles + TURN, angles)
    speed = torch.tensor(arm.speed_rad_s, dtype=angles.dtype, device=angles.device)
    seconds = ((angles - base).abs() / speed).amax(-1)
    misses = solutions.excess_m > solutions.excess_m.amin(-1, keepdim=True) + EDGE_M
    best = torch.where(misses, torch.inf, seconds).argmin(-1)
    return torch.take_along_dim(angles, best[..., None, None], -2)[..., 0, :]
