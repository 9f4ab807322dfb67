"""Cameras of cropped pictures, and where a point lies in a feature map. Pixels as in OpenCV: centres at whole numbers.

In: intrinsics (…, 3, 3), points in metres in the camera's frame. Out: pixels, metres, features. Called by the heads, by
the augmentations and by whoever cuts crops.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Nothing that a camera sees is nearer.
NEAR_M = 0.05


def changed_intrinsics(intrinsics: Tensor, picture_from_old: Tensor) -> Tensor:
    """The camera of a picture that was moved, scaled, turned or mirrored by an affine map (…, 2, 3) of pixels."""
    last = torch.tensor([0.0, 0.0, 1.0]).to(intrinsics).expand(*picture_from_old.shape[:-2], 1, 3)
    return torch.cat([picture_from_old.to(intrinsics), last], -2) @ intrinsics


def crop_map(left_px: Tensor, top_px: Tensor, side_px: Tensor, size_px: int) -> Tensor:
    """(…, 2, 3) from pixels of a picture to those of its square crop, resized to `size_px`.

    `left_px` and `top_px` are edges, half a pixel before the centre of the first one.
    """
    scale = size_px / side_px
    nothing = torch.zeros_like(scale)
    rows = [torch.stack([scale, nothing, -left_px * scale + scale / 2 - 0.5], -1),
            torch.stack([nothing, scale, -top_px * scale + scale / 2 - 0.5], -1)]  # fmt: skip
    return torch.stack(rows, -2)


def project(points_m: Tensor, intrinsics: Tensor) -> Tensor:
    """(B, N, 3) → pixels (B, N, 2); what is nearer than NEAR_M is taken to be there."""
    seen = points_m[..., :2] / points_m[..., 2:].clamp(min=NEAR_M)
    ahead = torch.cat([seen, torch.ones_like(seen[..., :1])], -1)
    return _times(intrinsics, ahead)[..., :2]


def sample(maps: Tensor, pixels: Tensor, size_px: int) -> Tensor:
    """Features (B, N, C) of maps (B, C, H, H) at pixels (B, N, 2) of the picture; beyond it, those of its edge."""
    places = (2 * pixels + 1) / size_px - 1  # −1 and 1 are the picture's edges, not the centres of its first pixels
    found = functional.grid_sample(maps, places[:, None], padding_mode="border", align_corners=False)
    return found[:, :, 0].mT


def back_project(
    place: Tensor,
    log_width: Tensor,
    intrinsics: Tensor,
    size_px: int,
    usual_width_m: float,
    behind_m: Tensor | float = 0.0,
) -> Tensor:
    """Where in the picture and how wide the view is there → points (B, N, 3) in metres.

    `place` (B, N, 2) from −1 to 1 over the picture. exp(`log_width`) (B, N) times the usual width is what the picture
    spans at the point's depth: sizes in a picture tell that, and the focal length turns it into a depth, to which
    `behind_m` (B, N) is added.
    """
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[:, :2].mean(-1)[:, None]
    depth = usual_width_m * log_width.float().clamp(-3, 3).exp() * focal / size_px + behind_m
    place = place.float()
    pixels = torch.cat([(place + 1) * size_px / 2 - 0.5, torch.ones_like(place[..., :1])], -1)
    return depth[..., None] * _times(torch.linalg.inv(intrinsics), pixels)


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """(B, 3, 3) times each of (B, N, 3). No matrix product: under autocast that would round pixels to bf16."""
    return (matrix[:, None] * vectors[..., None, :]).sum(-1)


def wrist_frames(joints_m: Tensor) -> Tensor:
    """22 rotations (B, 22, 3, 3) of 21 joints (B, 21, 3): one at each, along its bone, and the palm's.

    The columns are: along the bone, across in the palm's plane, out of it.
    """
    before = [0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19]
    palm = joints_m[:, 9] - joints_m[:, 0]
    bones = joints_m - joints_m[:, before]
    bones = torch.cat([palm[:, None], bones[:, 1:], palm[:, None]], 1)
    out = torch.linalg.cross(joints_m[:, 5] - joints_m[:, 0], joints_m[:, 17] - joints_m[:, 0])
    along = functional.normalize(bones, dim=-1, eps=1e-6)
    across = functional.normalize(torch.linalg.cross(out[:, None].expand_as(along), along), dim=-1, eps=1e-6)
    return torch.stack([along, across, torch.linalg.cross(along, across)], -1)


def in_every_frame(joints_m: Tensor) -> Tensor:
    """(B, 21, 66): each joint seen from all joints and from the palm, in metres."""
    origins = torch.cat([joints_m, joints_m[:, [0, 5, 9, 13, 17]].mean(1, keepdim=True)], 1)
    apart = joints_m[:, :, None] - origins[:, None]  # (B, 21 joints, 22 frames, 3)
    return torch.einsum("bjfa,bfac->bjfc", apart, wrist_frames(joints_m)).flatten(2)
