"""Stage 3's second half: train the action decoder on synthetic tracks, and measure decoder and head as one.

In: a trained head, seeds. Out: a decoder, and the errors of robot finger tips and wrist in the future: of decoder and
head, beside holding the last frame, beside going on at a fading speed, and beside the head with the true future
(which nobody has). Called by stage3.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from models.kinematics import ur
from models.retarget.decoder import CHUNK, HISTORY, ActionDecoder
from models.retarget.hand import HandRetargeter
from models.retarget.head import ARM_JOINTS, RetargetHead
from models.retarget.keypoints import TIPS, from_wrist
from train_jobs.manipulation.human_hand import hand_track

BATCH, RATE = 256, 2e-3
PER_M, PER_WRIST_M = 20.0, 10.0
# Frames ahead that are reported: a tenth and a third of a second.
REPORTED = (3, 10)

Windows = tuple[Tensor, Tensor]  # points (N, 18, 21, 3) in the wrist's frame, poses (N, 18, 4, 4)


def windows(seeds: range, seconds: float) -> Windows:
    """Every stretch of history and future of the tracks of these seeds."""
    points, poses = [], []
    for seed in seeds:
        track = hand_track(seconds, seed)
        seen = from_wrist(torch.as_tensor(track.keypoints_m), "right").points_m.float()
        where = torch.as_tensor(track.base_from_wrist).float()
        rows = np.arange(len(seen) - HISTORY - CHUNK)[:, None] + np.arange(HISTORY + CHUNK)
        points.append(seen[rows])
        poses.append(where[rows])
    return torch.cat(points), torch.cat(poses)


def train_decoder(data: Windows, steps: int, say: Callable[[str], None]) -> ActionDecoder:
    """A decoder that tells the future of these windows from their past."""
    decoder = ActionDecoder()
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(data[0]), (BATCH,))
        optimiser.zero_grad()
        value = future_loss(decoder, data[0][rows], data[1][rows])
        value.backward()
        optimiser.step()
        schedule.step()
        if step % 500 == 0 or step == steps - 1:
            say(f"decoder step {step}: loss {float(value.detach()):.4f}")
    return decoder


def future_loss(decoder: ActionDecoder, points_m: Tensor, poses: Tensor) -> Tensor:
    """How far the told future of windows is from what came."""
    told, where = decoder(points_m[:, :HISTORY], poses[:, :HISTORY])
    off = (told - points_m[:, HISTORY:]).norm(dim=-1).mean()
    away = (where[..., :3, 3] - poses[:, HISTORY:, :3, 3]).norm(dim=-1).mean()
    turned = (where[..., :3, :3] - poses[:, HISTORY:, :3, :3]).flatten(2).norm(dim=-1).mean()
    return PER_M * off + PER_WRIST_M * away + turned


@torch.no_grad()
def measure_future(
    decoder: ActionDecoder, head: RetargetHead, solver: HandRetargeter, arm: ur.UrArm, data: Windows
) -> dict[str, dict[str, float]]:
    """Errors in millimetres of the robot's tips (seen from its wrist) and of its wrist, frames ahead."""
    points, poses = data
    true = points[:, HISTORY:], poses[:, HISTORY:]
    past = points[:, :HISTORY], poses[:, :HISTORY]
    still = tuple(values[:, HISTORY - 1 : HISTORY].expand(-1, CHUNK, *values.shape[2:]) for values in data)
    ways = {
        "decoder and head": decoder(*past),
        "fading speed and head": ActionDecoder()(*past),
        "last frame and head": still,
        "true future and head": true,
    }
    wanted = solver.scaling * true[0][:, :, list(TIPS.values())]
    report = {}
    for name, (hand, wrist) in ways.items():
        angles = head(hand.flatten(0, 1), wrist.flatten(0, 1)).unflatten(0, wrist.shape[:2])
        tips = solver.solver.kinematics(angles[..., ARM_JOINTS:])
        off = 1000 * (tips[..., :4, :] - tips[..., 4:, :] - wanted).norm(dim=-1)
        reached = ur.forward(arm, angles[..., :ARM_JOINTS])[..., :3, 3]
        away = 1000 * (reached - true[1][..., :3, 3]).norm(dim=-1)
        beyond = (angles[..., ARM_JOINTS:] < solver.solver.lower) | (angles[..., ARM_JOINTS:] > solver.solver.upper)
        report[name] = {
            **{f"tip_mm_{k}_ahead": round(float(off[:, k - 1].mean()), 2) for k in REPORTED},
            **{f"wrist_mm_{k}_ahead": round(float(away[:, k - 1].mean()), 2) for k in REPORTED},
            "limit_violations": int(beyond.sum()),
        }
    return report
