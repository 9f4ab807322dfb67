"""What a wrong hand or object pose costs. Every loss is a mean over what is labelled; nothing labelled costs nothing.

In: predictions and labels as tensors, metres in the camera's frame, and masks. Out: scalars. Called by objective.py.
All are differentiable everywhere, also where the error is 0 or half a turn.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.kinematics.rigid import rotation_angle
from train_jobs.manipulation.solids import BALL, BOX, CYLINDER, half_turns

JOINTS = 21
TIPS = (4, 8, 12, 16, 20)
TIP_IMPORTANCE = 1.5
# Below this an error costs its square, so that its gradient goes to 0 with it.
ROUND_M = 1e-3
# Points nearer to the camera than this are not projected.
NEAR_M = 0.05
# Bends of real fingers between neighbouring bones; beyond them a prediction is no hand.
LEAST_BEND_RAD, MOST_BEND_RAD = -0.5, 2.1
# Bones (from, to) of each finger but the thumb, whose axis is another.
BENDS = tuple((base + k - 1 if k else 0, base + k, base + k + 1) for base in (5, 9, 13, 17) for k in range(3))
INDEX_KNUCKLE, LITTLE_KNUCKLE = 5, 17


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`; 0, with a gradient of 0, where nothing is."""
    mask = mask.to(values)
    return (torch.where(mask > 0, values, 0.0) * mask).sum() / mask.sum().clamp(min=1)


def difference(predicted: Tensor, true: Tensor, labelled: Tensor) -> Tensor:
    """predicted − true (..., 3), 0 where there is no label: a label of −1 or NaN must not reach a gradient."""
    return torch.where(labelled[..., None], predicted - true, 0.0)


def rounded_norm(vectors: Tensor) -> Tensor:
    """Length of (..., 3), rounded off at ROUND_M (Charbonnier): 0 at 0, and smooth there."""
    return ((vectors**2).sum(-1) + ROUND_M**2).sqrt() - ROUND_M


class AdaptiveMpjpe(nn.Module):
    """Mean joint error under learned weights whose geometric mean is 1, finger tips a half more important.

    The weights belong to the optimiser. Were they free they would all go to 0; were their sum fixed, all to the
    easiest joint; with a fixed product the best are those that make all joints' shares of the loss equal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_weights = nn.Parameter(torch.zeros(JOINTS))
        importance = torch.ones(JOINTS)
        importance[list(TIPS)] = TIP_IMPORTANCE
        self.register_buffer("importance", importance / importance.mean())

    def weights(self) -> Tensor:
        """(21,) learned weights, without the importance."""
        return (self.log_weights - self.log_weights.mean()).exp()

    def forward(self, predicted_m: Tensor, true_m: Tensor, labelled: Tensor) -> Tensor:
        """(..., 21, 3), (..., 21, 3), (..., 21) bool → metres."""
        errors = rounded_norm(difference(predicted_m, true_m, labelled))
        return masked_mean(errors * self.weights() * self.importance, labelled)


def position_loss(predicted_m: Tensor, true_m: Tensor, labelled: Tensor) -> Tensor:
    """Mean distance (..., 3) in metres: grows with the error, unlike a squared one, which sleeps below centimetres."""
    return masked_mean(rounded_norm(difference(predicted_m, true_m, labelled)), labelled)


def rotation_loss(predicted: Tensor, true: Tensor, kind: Tensor, labelled: Tensor) -> Tensor:
    """Mean angle in radians between rotations (..., 3, 3) up to the symmetry of solids of `kind` (...).

    A box looks the same after half a turn about any axis, a cylinder after any about z or end over end, a ball after
    any at all. Other kinds (−1) have no symmetry.
    """
    plain = rotation_angle(predicted, true)
    turned = true[..., None, :, :] @ half_turns(true.dtype).to(true.device)
    box = rotation_angle(predicted[..., None, :, :].expand_as(turned), turned).amin(-1)
    ours, theirs = predicted[..., 2], true[..., 2]
    lean = torch.linalg.cross(ours, theirs).norm(dim=-1)
    can = torch.atan2(lean, (ours * theirs).sum(-1).abs())
    angle = torch.where(kind == BOX, box, torch.where(kind == CYLINDER, can, plain))
    return masked_mean(angle, labelled & (kind != BALL))


def reprojection_loss(joints_m: Tensor, intrinsics: Tensor, true_px: Tensor, labelled: Tensor, size_px: int) -> Tensor:
    """Mean distance of projected joints (..., 21, 3) from (..., 21, 2), as a share of the picture's side.

    `intrinsics` (..., 3, 3) are those of the very picture that the labels lie in. Joints at or behind the camera
    cost nothing here: their position does.
    """
    ahead = joints_m[..., 2] > NEAR_M
    seen = joints_m[..., :2] / joints_m[..., 2:].clamp(min=NEAR_M)
    focal, centre = intrinsics.diagonal(dim1=-2, dim2=-1)[..., :2], intrinsics[..., :2, 2]
    skewed = seen[..., 1] * intrinsics[..., None, 0, 1]
    pixels = seen * focal[..., None, :] + centre[..., None, :]
    pixels = torch.stack([pixels[..., 0] + skewed, pixels[..., 1]], -1)
    labelled = labelled & ahead
    apart = torch.where(labelled[..., None], (pixels - true_px) / size_px, 0.0)
    return masked_mean((apart**2).sum(-1).add(1e-6).sqrt() - 1e-3, labelled)


def finger_bends(joints_m: Tensor) -> Tensor:
    """Angles (..., 12) in radians at the joints of four fingers of right hands (..., 21, 3); closing is positive."""
    first, middle, last = (joints_m[..., [row[k] for row in BENDS], :] for k in range(3))
    before, after = middle - first, last - middle
    axis = joints_m[..., INDEX_KNUCKLE, :] - joints_m[..., LITTLE_KNUCKLE, :]
    axis = nn.functional.normalize(axis, dim=-1)[..., None, :].expand_as(before)
    sine = (torch.linalg.cross(before, after) * axis).sum(-1)
    return torch.atan2(sine, (before * after).sum(-1) + 1e-12)


def pointing_loss(logits: Tensor, pixels: Tensor, labelled: Tensor, size_px: int) -> Tensor:
    """Cross-entropy of (B, J, G²) patch logits with where true pixels (B, J, 2) lie between the patches' centres.

    A place is shared among the four nearest centres so that their weighted mean is the place. What lies beyond the
    picture points nowhere and costs nothing.
    """
    side = math.isqrt(logits.shape[-1])
    at = (pixels + 0.5) * side / size_px - 0.5
    inside = labelled & ((at > -0.5) & (at < side - 0.5)).all(-1)
    line = torch.arange(side, device=at.device)
    near = (1 - (at.clamp(0, side - 1)[..., None] - line).abs()).clamp(min=0)  # (B, J, 2, G)
    share = (near[..., 1, :, None] * near[..., 0, None, :]).flatten(-2)
    return masked_mean(-(share * logits.log_softmax(-1)).sum(-1), inside)


def joint_limit_loss(joints_m: Tensor, present: Tensor) -> Tensor:
    """Mean angle by which the fingers of present hands (..., ) bend further than fingers can."""
    bends = finger_bends(joints_m)
    beyond = (bends - MOST_BEND_RAD).clamp(min=0) + (LEAST_BEND_RAD - bends).clamp(min=0)
    return masked_mean(beyond.mean(-1), present)
