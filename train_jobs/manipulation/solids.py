"""Boxes, cylinders, balls: signed distance, symmetry, points on the surface.

In: kinds and half extents, points in the object's frame. Out: metres, rotations. Called by the losses, the generator
of synthetic hands and evaluation. A cylinder stands along z. Differentiable in points and extents.
"""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = ("box", "cylinder", "ball")
BOX, CYLINDER, BALL = range(3)
# Keeps square roots differentiable at 0; far below any length here.
TINY = 1e-18


def signed_distance(kind: Tensor, half_m: Tensor, points_m: Tensor) -> Tensor:
    """Metres (..., P), negative inside: solids of `kind` (...) with halves (..., 3), points (..., P, 3).

    Of a cylinder the halves are radius, radius, half its height; of a ball three times the radius.
    """
    half, kinds = half_m[..., None, :], kind[..., None]
    beyond_box = points_m.abs() - half
    across = _length(points_m[..., :2])
    beyond_can = torch.stack([across - half[..., 0], points_m[..., 2].abs() - half[..., 2]], -1)
    ball = _length(points_m) - half[..., 0]
    return torch.where(kinds == BALL, ball, torch.where(kinds == BOX, _outside(beyond_box), _outside(beyond_can)))


def _outside(beyond: Tensor) -> Tensor:
    """Distance to a product of intervals, from how far (..., A) a point lies beyond each."""
    return _length(beyond.clamp(min=0)) + beyond.amax(-1).clamp(max=0)


def _length(vectors: Tensor) -> Tensor:
    return (vectors**2).sum(-1).add(TINY).sqrt()


def half_turns(dtype: torch.dtype = torch.float32) -> Tensor:
    """(4, 3, 3) rotations that leave a box as it is: none, and half a turn about each axis."""
    signs = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=dtype)
    return torch.diag_embed(signs)


def surface_points(kind: int, half_m: Tensor, count: int = 200, seed: int = 0) -> Tensor:
    """(count, 3) points on the surface, evenly for a ball, by area for the others."""
    rng = torch.Generator().manual_seed(seed)
    way = torch.nn.functional.normalize(torch.randn(count, 3, generator=rng, dtype=torch.float64), dim=-1)
    half = half_m.double()
    if kind == BALL:
        return way * half[0]
    if kind == BOX:
        areas = torch.stack([half[1] * half[2], half[0] * half[2], half[0] * half[1]])
        axis = torch.multinomial(areas, count, replacement=True, generator=rng)
        points = (2 * torch.rand(count, 3, generator=rng, dtype=torch.float64) - 1) * half
        side = torch.where(way[:, 0] > 0, 1.0, -1.0).double() * half[axis]
        return points.scatter(1, axis[:, None], side[:, None])
    return _can_points(half, count, rng)


def _can_points(half: Tensor, count: int, rng: torch.Generator) -> Tensor:
    radius, height = half[0], half[2]
    draw = torch.rand(count, 4, generator=rng, dtype=torch.float64)
    on_side = draw[:, 0] < 2 * height / (2 * height + radius)  # 2πr·2h of 2πr·2h + 2πr²
    angle, reach = 2 * torch.pi * draw[:, 1], torch.where(on_side, 1.0, draw[:, 2].sqrt()) * radius
    lid = torch.where(draw[:, 3] > 0.5, 1.0, -1.0) * height
    z = torch.where(on_side, (2 * draw[:, 2] - 1) * height, lid)
    return torch.stack([reach * angle.cos(), reach * angle.sin(), z], -1)
