"""A small differentiable world: one rigid object between finger tips and on a table, with soft contacts, in torch.

In: an object, how finger tips move, a time step. Out: the object's motion, with gradients to every input. Called by
benchmarks/contact_model.py. Penalty contacts: a spring and a damper along the normal, Coulomb friction that is
smooth below a small slip speed. Springs, dampers and friction are taken at the end of each step (linearly implicit,
one 6 × 6 solve per object), so that stiff contacts and steps of milliseconds are stable. What it leaves out: fingers
are balls that follow their path whatever they touch, and friction does not twist. Objects creep where they should
stick, at most at `slip_m_s`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from models.kinematics.rigid import cross_matrix, rotation_about

GRAVITY_M_S2 = 9.81
# Shifts keep square roots differentiable at 0; they are far below any length here.
TINY = 1e-18


@dataclass(frozen=True, slots=True)
class Material:
    """What a contact is like."""

    stiffness_n_m: float = 3000.0
    damping_n_s_m: float = 40.0
    friction: float = 1.0
    table_friction: float = 0.6
    slip_m_s: float = 2e-3
    smooth_m: float = 1e-4  # over which depth a contact begins


RUBBER = Material()


@dataclass(frozen=True, slots=True)
class Block:
    """B objects: boxes, or balls where all three halves are the radius."""

    half_m: Tensor  # (B, 3)
    mass_kg: Tensor  # (B,)
    ball: bool = False

    def inertia(self) -> Tensor:
        """(B, 3) kg m² about the object's axes."""
        square = self.half_m**2
        if self.ball:
            return 0.4 * self.mass_kg[:, None] * square
        return self.mass_kg[:, None] / 3 * (square.sum(-1, keepdim=True) - square)

    def outside(self, points_m: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance (B, K) of points (B, K, 3) in the object's frame, and the outward normal (B, K, 3)."""
        if self.ball:
            apart = (points_m**2).sum(-1).add(TINY).sqrt()
            return apart - self.half_m[:, None, 0], points_m / apart[..., None]
        beyond = points_m.abs() - self.half_m[:, None]
        out = beyond.clamp(min=0)
        far = (out**2).sum(-1).add(TINY).sqrt()
        deepest = beyond.argmax(-1)
        inward = torch.nn.functional.one_hot(deepest, 3).to(points_m)
        is_out = (beyond > 0).any(-1)
        normal = torch.where(is_out[..., None], out / far[..., None], inward) * points_m.sign()
        return torch.where(is_out, far, beyond.amax(-1)), normal

    def feet(self) -> Tensor:
        """(B, F, 3) points in the object's frame that can stand on a table, for boxes: the corners."""
        signs = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]).to(self.half_m)
        return self.half_m[:, None] * signs


@dataclass(frozen=True, slots=True)
class Motion:
    """Where B objects are, and how they move."""

    place_m: Tensor  # (B, 3)
    turn: Tensor  # (B, 3, 3) world from object
    velocity: Tensor  # (B, 6) m/s of the centre, then rad/s, in the world's axes


@dataclass(frozen=True, slots=True)
class _Touch:
    """K contacts per object."""

    arm_m: Tensor  # (B, K, 3) from the object's centre
    normal: Tensor  # (B, K, 3) the way in which the object is pushed
    depth_m: Tensor  # (B, K)
    velocity: Tensor  # (B, K, 3) of the other side
    friction: float


def at_rest(place_m: Tensor, turn: Tensor | None = None) -> Motion:
    """Objects that stand still at places (B, 3)."""
    eye = torch.eye(3).to(place_m).expand(len(place_m), 3, 3)
    return Motion(place_m, eye if turn is None else turn, torch.zeros(len(place_m), 6).to(place_m))


def step(
    block: Block, now: Motion, tips_m: Tensor, tips_m_s: Tensor, radius_m: float, dt_s: float, how: Material
) -> Motion:
    """One step, with balls at (B, K, 3) that move at (B, K, 3), and a table at z = 0."""
    touches = (_tips(block, now, tips_m, tips_m_s, radius_m, how), _table(block, now, how))
    inertia = now.turn @ torch.diag_embed(block.inertia()) @ now.turn.mT
    mass = torch.zeros(len(tips_m), 6, 6).to(tips_m)
    mass[:, :3, :3] = torch.diag_embed(block.mass_kg[:, None].expand(-1, 3))
    mass[:, 3:, 3:] = inertia
    spin = now.velocity[:, 3:]
    weight = torch.zeros_like(now.velocity)
    weight[:, 2] = -GRAVITY_M_S2 * block.mass_kg
    weight[:, 3:] = -torch.linalg.cross(spin, (inertia @ spin[..., None])[..., 0])
    left, right = mass, (mass @ now.velocity[..., None])[..., 0] + dt_s * weight
    for touch in touches:
        more_left, more_right = _pushed(touch, now.velocity, dt_s, how)
        left, right = left + more_left, right + more_right
    velocity = torch.linalg.solve(left, right[..., None])[..., 0]
    angle = (velocity[:, 3:] ** 2).sum(-1).add(TINY).sqrt()
    turn = rotation_about(velocity[:, 3:] / angle[:, None], angle * dt_s) @ now.turn
    return Motion(now.place_m + dt_s * velocity[:, :3], turn, velocity)


def roll_out(
    block: Block, start: Motion, tips_m: Tensor, radius_m: float, dt_s: float, how: Material = RUBBER
) -> list[Motion]:
    """The T motions after each of T − 1 steps along tip paths (T, B, K, 3), and the start."""
    motions = [start]
    for before, after in pairwise(tips_m):
        motions.append(step(block, motions[-1], after, (after - before) / dt_s, radius_m, dt_s, how))
    return motions


def _tips(block: Block, now: Motion, tips_m: Tensor, tips_m_s: Tensor, radius_m: float, how: Material) -> _Touch:
    local = (tips_m - now.place_m[:, None]) @ now.turn
    apart, normal = block.outside(local)
    normal = normal @ now.turn.mT
    depth = radius_m - apart
    arm = tips_m - now.place_m[:, None] - apart[..., None] * normal
    return _Touch(arm, -normal, depth, tips_m_s, how.friction)


def _table(block: Block, now: Motion, how: Material) -> _Touch:
    if block.ball:
        arm = torch.zeros(len(now.place_m), 1, 3).to(now.place_m)
        arm = arm - torch.tensor([0.0, 0.0, 1.0]).to(arm) * block.half_m[:, None, :1]
    else:
        arm = block.feet() @ now.turn.mT
    depth = -(now.place_m[:, None, 2] + arm[..., 2])
    up = torch.tensor([0.0, 0.0, 1.0]).to(arm).expand_as(arm)
    return _Touch(arm, up, depth, torch.zeros_like(arm), how.table_friction)


def _pushed(touch: _Touch, velocity: Tensor, dt_s: float, how: Material) -> tuple[Tensor, Tensor]:
    """What contacts add to the step's matrix (B, 6, 6) and right side (B, 6)."""
    jacobian = torch.cat([torch.eye(3).to(touch.arm_m).expand(*touch.arm_m.shape, 3), -cross_matrix(touch.arm_m)], -1)
    slide = (jacobian @ velocity[:, None, :, None])[..., 0] - touch.velocity
    closing = -(slide * touch.normal).sum(-1)
    touching = torch.sigmoid(touch.depth_m / how.smooth_m)
    depth = how.smooth_m * torch.nn.functional.softplus(touch.depth_m / how.smooth_m)
    spring = how.stiffness_n_m * depth
    force = (spring + how.damping_n_s_m * touching * closing).clamp(min=0)
    along = touch.normal[..., :, None] * touch.normal[..., None, :]
    flat = torch.eye(3).to(along) - along
    slip = ((flat @ slide[..., None])[..., 0] ** 2).sum(-1).add(how.slip_m_s**2).sqrt()
    pressed = touching * (force > 0)
    stiff = pressed * (how.damping_n_s_m + dt_s * how.stiffness_n_m)
    damper = stiff[..., None, None] * along + (touch.friction * force / slip)[..., None, None] * flat
    push = (damper @ touch.velocity[..., None])[..., 0] + spring[..., None] * touch.normal
    left = dt_s * (jacobian.mT @ damper @ jacobian).sum(1)
    right = dt_s * (jacobian.mT @ push[..., None])[..., 0].sum(1)
    return left, right
