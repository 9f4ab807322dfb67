"""A network that imitates the retargeting solver: keypoints and wrist pose → 22 joint angles in one forward pass.

In: keypoints in the wrist's frame and the wrist's pose. Out: 6 arm angles and 16 hand angles, the latter within their
limits by construction. Trained by train_jobs/manipulation/stage3.py; differentiable, so that it can end a larger
network. No weights ship with it: they come from training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.kinematics.allegro import JOINTS, AllegroHand
from models.retarget.keypoints import KEYPOINTS

ARM_JOINTS = 6
# Keypoints are some decimetres in size: brought near 1 for the network.
PER_METRE = 10.0
WIDTH = 384


class RetargetHead(nn.Module):
    """Three hidden layers; the hand's angles through a sigmoid between the limits, the arm's as directions."""

    def __init__(self, hand: AllegroHand, width: int = WIDTH) -> None:
        super().__init__()
        self.register_buffer("lower", torch.as_tensor(hand.lower_rad, dtype=torch.float32))
        self.register_buffer("upper", torch.as_tensor(hand.upper_rad, dtype=torch.float32))

        def branch(inputs: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for size_in, size_out in ((inputs, width), (width, width), (width, width)):
                layers += [nn.Linear(size_in, size_out), nn.GELU()]
            return nn.Sequential(*layers, nn.Linear(width, outputs))

        # Fingers do not depend on where the wrist is, nor the arm on the fingers.
        self.fingers = branch(3 * KEYPOINTS, JOINTS)
        self.arm = branch(12, 2 * ARM_JOINTS)

    def forward(self, points_m: Tensor, base_from_wrist: Tensor) -> Tensor:
        """(B, 21, 3) and (B, 4, 4) → angles (B, 22): 6 of the arm in (−π, π], then 16 of the hand."""
        shares = self.fingers(PER_METRE * points_m.flatten(1)).sigmoid()
        pose = torch.cat([base_from_wrist[:, :3, :3].flatten(1), PER_METRE / 2 * base_from_wrist[:, :3, 3]], 1)
        sine, cosine = self.arm(pose).chunk(2, 1)
        # Rounding must not carry the last digit past a limit.
        hand = (self.lower + (self.upper - self.lower) * shares).clamp(self.lower, self.upper)
        return torch.cat([torch.atan2(sine, cosine), hand], 1)
