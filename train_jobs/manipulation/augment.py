"""Changes of a picture that its labels follow: turns about the view, shifts, scales, mirroring; and colours.

In: Samples. Out: Samples of the same truth in another picture. Called by the trainer, per batch, wherever the samples
live. Only what a camera could do is done: a 3-D label is never moved without its picture. Turning is about the
principal point, where it is a turn of the world; shifting and scaling change the camera.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from models.manipulation.geometry import changed_intrinsics
from train_jobs.manipulation.samples import Samples


@dataclass(frozen=True, slots=True)
class Strength:
    """How far things go."""

    turn_rad: float = 0.3
    shift: float = 0.08  # of the side
    scale: float = 0.15
    light: float = 0.25
    colour: float = 0.12
    noise: float = 0.02


def augment(samples: Samples, strength: Strength, rng: torch.Generator) -> Samples:
    """Each picture changed in its own way."""
    count, size = len(samples), samples.pictures.shape[-1]

    def draw(*shape: int) -> Tensor:
        return (2 * torch.rand(count, *shape, generator=rng) - 1).to(samples.pictures.device)

    turned, picture_from_old = turn(samples, strength.turn_rad * draw())
    scale = (1 + strength.scale * draw())[:, None, None] * torch.eye(2).to(picture_from_old)
    middle = torch.full((count, 2, 1), (size - 1) / 2).to(scale)
    # Turning about a principal point outside the crop carries the hand away: the crop follows it.
    carried = picture_from_old @ torch.cat([middle, torch.ones_like(middle[:, :1])], 1)
    shift = strength.shift * size * draw(2, 1) + middle - scale @ carried
    zoom = torch.cat([scale, shift], -1)
    whole = zoom @ _square(picture_from_old)
    moved = warp(samples.pictures.float(), whole)
    return replace(turned, intrinsics=changed_intrinsics(samples.intrinsics, zoom),
                   pictures=_coloured(moved, strength, draw, rng))  # fmt: skip


def turn(samples: Samples, angle_rad: Tensor) -> tuple[Samples, Tensor]:
    """The world turned about the view by (N,) radians; and the map (N, 2, 3) of the picture that shows it so."""
    sine, cosine = angle_rad.sin(), angle_rad.cos()
    zero, one = torch.zeros_like(sine), torch.ones_like(sine)
    world = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], -1).unflatten(-1, (3, 3))
    # A picture whose pixels are not square turns as its world does: K R K⁻¹.
    plane = samples.intrinsics @ world @ torch.linalg.inv(samples.intrinsics)
    return _moved(samples, world), plane[:, :2]


def mirror(samples: Samples) -> Samples:
    """Left and right exchanged, as in a mirror: pictures of left hands become those of right ones."""
    size = samples.pictures.shape[-1]
    intrinsics = samples.intrinsics.clone()
    intrinsics[:, 0, 2] = size - 1 - intrinsics[:, 0, 2]
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0])).to(intrinsics).expand(len(samples), 3, 3)
    mirrored = _moved(samples, flip)
    # A mirrored frame is no frame: the solids are alike when x is turned round too.
    poses = mirrored.object_poses.clone()
    poses[..., :3, 0] *= -1
    return replace(mirrored, intrinsics=intrinsics, pictures=samples.pictures.flip(-1), object_poses=poses)


def _moved(samples: Samples, world: Tensor) -> Samples:
    poses = samples.object_poses.clone()
    poses[..., :3, :] = world[:, None] @ poses[..., :3, :]
    return replace(samples, joints_m=samples.joints_m @ world.mT, object_poses=poses,
                   contact_points_m=samples.contact_points_m @ world.mT)  # fmt: skip


def warp(pictures: Tensor, picture_from_old: Tensor) -> Tensor:
    """(N, 3, S, S) floats moved by affine maps (N, 2, 3) of pixels; beyond the edge, the edge goes on."""
    size = pictures.shape[-1]
    old_from_picture = torch.linalg.inv(_square(picture_from_old))[:, :2]
    # Pixels p ↔ grid g of grid_sample: g = (2 p + 1) / S − 1.
    line = torch.arange(size, dtype=pictures.dtype, device=pictures.device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], -1)
    source = pixels.flatten(0, 1) @ old_from_picture.mT
    grid = ((2 * source + 1) / size - 1).unflatten(1, (size, size))
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def _square(affine: Tensor) -> Tensor:
    last = torch.tensor([0.0, 0.0, 1.0]).to(affine).expand(len(affine), 1, 3)
    return torch.cat([affine, last], 1)


def _coloured(pictures: Tensor, strength: Strength, draw: Callable[..., Tensor], rng: torch.Generator) -> Tensor:
    gain = (1 + strength.light * draw(1, 1, 1)) * (1 + strength.colour * draw(3, 1, 1))
    grey = pictures.mean((1, 2, 3), keepdim=True)
    contrast = 1 + strength.light * draw(1, 1, 1)
    noise = 255 * strength.noise * torch.randn(pictures.shape, generator=rng).to(pictures.device)
    return (((pictures - grey) * contrast + grey) * gain + noise).clamp(0, 255).to(torch.uint8)
