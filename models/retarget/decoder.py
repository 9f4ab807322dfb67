"""The action decoder: a short history of a hand → where it will be over the next third of a second, frame by frame.

In: keypoints in the wrist's frame and wrist poses of the last frames. Out: a chunk of both, which head.py turns into 22
joint angles per frame. Trained by train_jobs/manipulation/actions.py; differentiable, so that both can end a larger
network. It corrects a guess of constant, fading speed: an untrained decoder is that guess. No weights ship with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.kinematics.rigid import rotation_from_axes
from models.retarget.keypoints import KEYPOINTS

HISTORY, CHUNK = 8, 10  # frames at 30 Hz
WIDTH = 256
# How much of the last speed is left after each frame of the guess.
FADE = 0.85
PER_METRE = 10.0
# Speeds are taken over this many frames: over one they would be mostly noise.
SPEED_OVER = 3


class ActionDecoder(nn.Module):
    """A recurrent encoder of the history, and one layer that writes the whole chunk at once."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        frame = 3 * KEYPOINTS + 9
        self.encoder = nn.GRU(frame, width, batch_first=True)
        self.write = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, CHUNK * frame))
        nn.init.zeros_(self.write[-1].weight)
        nn.init.zeros_(self.write[-1].bias)
        ahead = torch.cumsum(FADE ** torch.arange(CHUNK, dtype=torch.float32), 0)
        self.register_buffer("ahead", ahead)

    def forward(self, points_m: Tensor, base_from_wrist: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 8, 21, 3) and (B, 8, 4, 4) → the next (B, 10, 21, 3) and (B, 10, 4, 4)."""
        batch = len(points_m)
        now, turn = base_from_wrist[:, -1:, :3, 3], base_from_wrist[:, -1:, :3, :3]
        # Everything is told relative to where the wrist is now: it does not matter where in the room that is.
        place = ((base_from_wrist[..., :3, 3] - now)[..., None, :] @ turn)[..., 0, :]
        seen = torch.cat([points_m, place[:, :, None]], 2)  # (B, 8, 22, 3)
        turned = (turn.mT @ base_from_wrist[..., :3, :3])[..., :2]  # two axes hold a rotation
        history = torch.cat([PER_METRE * seen.flatten(2), turned.flatten(2)], -1)
        _, last = self.encoder(history)
        told = self.write(last[0]).unflatten(1, (CHUNK, -1))
        moved, axes = told[..., : 3 * KEYPOINTS + 3], told[..., 3 * KEYPOINTS + 3 :]
        speed = (seen[:, -1] - seen[:, -1 - SPEED_OVER]) / SPEED_OVER
        guess = seen[:, -1:] + self.ahead[None, :, None, None] * speed[:, None]
        chunk = guess + moved.unflatten(2, (KEYPOINTS + 1, 3)) / PER_METRE
        spun = rotation_from_axes(axes.unflatten(2, (3, 2)) + torch.eye(3)[:, :2].to(axes))
        poses = torch.eye(4).to(chunk).repeat(batch, CHUNK, 1, 1)
        poses[..., :3, :3] = turn @ spun
        poses[..., :3, 3] = now + (turn @ chunk[:, :, KEYPOINTS, :, None])[..., 0]
        return chunk[:, :, :KEYPOINTS], poses
