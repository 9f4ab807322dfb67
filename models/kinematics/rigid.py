"""Rigid transforms as batched tensors: rotations (..., 3, 3), poses (..., 4, 4), metres and radians.

In and out: tensors. Called by models/retarget, models/manipulation and what measures pose errors. Differentiable
throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cross_matrix(axis: Tensor) -> Tensor:
    """(..., 3) → (..., 3, 3) with `cross_matrix(a) @ b = a × b`."""
    x, y, z = axis.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(*axis.shape[:-1], 3, 3)


def rotation_about(axis: Tensor, angle_rad: Tensor) -> Tensor:
    """Rotation (..., 3, 3) about a unit axis (..., 3) by an angle (...): Rodrigues' formula."""
    k = cross_matrix(axis)
    s, c = angle_rad.sin()[..., None, None], angle_rad.cos()[..., None, None]
    return torch.eye(3, dtype=k.dtype, device=k.device) + s * k + (1 - c) * (k @ k)


def rotation_from_axes(axes: Tensor) -> Tensor:
    """(..., 3, 2) → rotations (..., 3, 3): Gram and Schmidt (Zhou et al. 2019, arXiv 1812.07035)."""
    first = torch.nn.functional.normalize(axes[..., 0], dim=-1)
    second = axes[..., 1] - (axes[..., 1] * first).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def pose(rotation: Tensor, position_m: Tensor) -> Tensor:
    """(..., 3, 3) and (..., 3) → (..., 4, 4)."""
    shape = torch.broadcast_shapes(rotation.shape[:-2], position_m.shape[:-1])
    top = torch.cat([rotation.expand(*shape, 3, 3), position_m.expand(*shape, 3)[..., None]], -1)
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=top.dtype, device=top.device).expand(*shape, 1, 4)
    return torch.cat([top, bottom], -2)


def inverse(transform: Tensor) -> Tensor:
    """Inverse of rigid poses (..., 4, 4)."""
    turned = transform[..., :3, :3].mT
    return pose(turned, -(turned @ transform[..., :3, 3:])[..., 0])


def rotation_angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle (...) in [0, π] between rotations (..., 3, 3); exact near 0 and π, where arccos of a trace is not."""
    apart = first.mT @ second
    skew = torch.stack(
        [apart[..., 2, 1] - apart[..., 1, 2], apart[..., 0, 2] - apart[..., 2, 0], apart[..., 1, 0] - apart[..., 0, 1]],
        -1,
    )
    return torch.atan2(skew.norm(dim=-1), apart.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)
