"""What wrong contacts and impossible grasps cost, by signed distance: touching is free, going inside is not.

In: contact points, logits, joints, and one true solid per sample with its pose. Out: scalars. Called by objective.py.
One threshold, CONTACT_M, makes the labels and the metric alike.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from train_jobs.manipulation.pose_losses import difference, masked_mean, rounded_norm
from train_jobs.manipulation.solids import signed_distance

# Skin within this distance of a surface touches it.
CONTACT_M = 0.005
# More than a hand presses with in everyday grasps.
MOST_FORCE_N = 10.0


def distance_to(points_m: Tensor, pose: Tensor, kind: Tensor, half_m: Tensor) -> Tensor:
    """Signed metres (B, P) from camera points (B, P, 3) to solids with poses `camera_from_object` (B, 4, 4)."""
    local = (points_m - pose[:, None, :3, 3]) @ pose[:, :3, :3]
    return signed_distance(kind, half_m, local)


def confidence_loss(logits: Tensor, touching: Tensor, labelled: Tensor, yes_weighs: float = 1.0) -> Tensor:
    """Binary cross-entropy of (B, Q) logits with (B, Q) labels."""
    weight = torch.tensor(yes_weighs).to(logits)
    values = functional.binary_cross_entropy_with_logits(
        logits, touching.to(logits), reduction="none", pos_weight=weight
    )
    return masked_mean(values, labelled)


def contact_point_loss(points_m: Tensor, true_m: Tensor, surface_m: Tensor, touching: Tensor) -> Tensor:
    """Where there is contact: distance from the true point, and from the object's surface, in metres.

    `surface_m` (B, Q) is distance_to of the predicted points: outside and inside are equally wrong for a contact.
    """
    off = (surface_m**2 + 1e-8).sqrt() - 1e-4
    return masked_mean(rounded_norm(difference(points_m, true_m, touching)) + off, touching)


def penetration_loss(joint_distance_m: Tensor, held: Tensor) -> Tensor:
    """Mean depth in metres of joints (B, 21) inside the object: joints are bones, none belongs there.

    `held` (B,) says where there is an object. Touching skin keeps its bone a finger's radius outside: costs nothing.
    """
    return masked_mean((-joint_distance_m).clamp(min=0).mean(-1), held)


def type_loss(logits: Tensor, true: Tensor, labelled: Tensor) -> Tensor:
    """Cross-entropy of (B, Q, 4) logits with classes (B, Q)."""
    values = functional.cross_entropy(logits.movedim(-1, 1), true.clamp(min=0), reduction="none")
    return masked_mean(values, labelled)


def force_loss(forces_n: Tensor, true_n: Tensor, labelled: Tensor) -> Tensor:
    """Mean error in newtons of (B, Q, 3), and what exceeds MOST_FORCE_N, where forces are known at all."""
    size = (forces_n**2).sum(-1).add(1e-12).sqrt()
    return masked_mean(
        rounded_norm(difference(forces_n, true_n, labelled)) + (size - MOST_FORCE_N).clamp(min=0), labelled
    )
