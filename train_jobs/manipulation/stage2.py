"""Stage 2: on the frozen answers of stage 1, train what frames say together and where the hand goes.

In: a Request. Out: `temporal.safetensors` and `temporal_report.json` in stage 1's folder. Called by __main__.py. Beside
the network stand the single frames, the wrist that stays where it is, and the wrist that goes on at its last speed: all
three from the same predicted joints.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.manipulation.checkpoint import load, save_temporal
from models.manipulation.network import ManipulationTransformer
from models.manipulation.temporal import STEPS_AHEAD, Frames, Fused, TemporalFusion, frame_tokens
from models.retarget.keypoints import from_wrist
from train_jobs.errors import CannotStart
from train_jobs.manipulation.pose_losses import position_loss, rounded_norm
from train_jobs.manipulation.sequences import RATE_HZ, Clips, generate_clips

BATCH = 16
RATE, WEIGHT_DECAY, CLIP = 1e-3, 0.01, 1.0
PER_M, PER_RAD = 10.0, 0.3
REPORTED = (3, 10)


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    output: Path  # of stage 1
    clips: int = 300
    test_clips: int = 40
    length: int = 16
    steps: int = 600
    seed: int = 0


def run(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    """Train, measure, write. Raises CannotStart without stage 1, UnexpectedModel for weights that are none."""
    weights = request.output / "manipulation.safetensors"
    if not weights.is_file():
        raise CannotStart(f"stage 2 stands on stage 1: there is no {weights}; run `stage1` with this --output first")
    torch.manual_seed(request.seed)
    network, _ = load(weights)
    size = network.size
    made = [generate_clips(split, 0, count, request.length, size.image_px)  # type: ignore[arg-type]
            for split, count in (("train", request.clips), ("test", request.test_clips))]  # fmt: skip
    say(f"{request.clips} clips of {request.length} frames")
    (train, truth), (test, test_truth) = ((answers(network, clips), clips) for clips in made)
    fusion = TemporalFusion(size)
    optimiser = torch.optim.AdamW(fusion.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, request.steps)
    for step in range(request.steps):
        rows = torch.randint(len(train.time_s), (min(BATCH, len(train.time_s)),))
        value = loss(fusion(chosen(train, rows)), truth.joints_m[rows], truth.time_s[rows])
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(fusion.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == request.steps - 1:
            say(f"step {step}: loss {float(value.detach()):.4f}")
    found = measure(fusion.eval(), test, test_truth)
    note = {"clips": request.clips, "length": request.length, "steps": request.steps, "size": size.name}
    save_temporal(fusion, request.output / "temporal.safetensors", note)
    (request.output / "temporal_report.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


@torch.no_grad()
def answers(network: ManipulationTransformer, clips: Clips) -> Frames:
    """Stage 1's answers to every frame."""
    count, length = clips.time_s.shape
    tokens, joints = [], []
    for at in range(0, count * length, 64):
        some = clips.frames[slice(at, at + 64)]
        answer = network(some.pictures, some.intrinsics)
        tokens.append(frame_tokens(answer))
        joints.append(answer.hand.joints_m)
    shape = (count, length)
    return Frames(torch.cat(tokens).unflatten(0, shape), torch.cat(joints).unflatten(0, shape), clips.time_s)


def chosen(frames: Frames, rows: Tensor) -> Frames:
    """These clips."""
    return Frames(frames.tokens[rows], frames.joints_m[rows], frames.time_s[rows])


def ways(joints_m: Tensor) -> Tensor:
    """(..., 10, 6) the wrist's way and turn from now, of joints now and at the ten steps after (..., 11, 21, 3)."""
    turn = from_wrist(joints_m, "right").rotation
    apart = turn[..., 1:, :, :] @ turn[..., :1, :, :].mT
    return torch.cat([joints_m[..., 1:, 0, :] - joints_m[..., :1, 0, :], rotation_vector(apart)], -1)


def rotation_vector(turn: Tensor) -> Tensor:
    """(..., 3, 3) → (..., 3): axis times angle, for turns of less than half a circle."""
    skew = torch.stack([turn[..., 2, 1] - turn[..., 1, 2], turn[..., 0, 2] - turn[..., 2, 0],
                        turn[..., 1, 0] - turn[..., 0, 1]], -1)  # fmt: skip
    size = skew.norm(dim=-1, keepdim=True)
    angle = torch.atan2(size, turn.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - 1)
    return torch.where(size > 1e-6, angle / size.clamp(min=1e-6), 0.5) * skew


def loss(told: Fused, joints_m: Tensor, time_s: Tensor) -> Tensor:
    """Joints of every frame; the way and the aperture from the last one, whose steps ahead are regular."""
    length = time_s.shape[1]
    every = torch.ones(joints_m[:, :length].shape[:-1], dtype=torch.bool)
    root = joints_m[:, :length, :1]
    off = position_loss(told.joints_m - told.joints_m[:, :, :1], joints_m[:, :length] - root, every)
    away = position_loss(told.joints_m, joints_m[:, :length], every)
    way, want = told.ee_target_poses[:, -1], ways(joints_m[:, length - 1 :])
    ahead = PER_M * rounded_norm(way[..., :3] - want[..., :3]) + PER_RAD * rounded_norm(way[..., 3:] - want[..., 3:])
    wide = (joints_m[:, length:, 4] - joints_m[:, length:, 8]).norm(dim=-1)
    return PER_M * (off + 0.2 * away + (told.grasp_apertures_m[:, -1] - wide).abs().mean()) + ahead.mean()


@torch.no_grad()
def measure(fusion: TemporalFusion, frames: Frames, truth: Clips) -> dict[str, Any]:
    """Millimetres: of the joints beside single frames, and of the wrist ahead beside two who do not learn."""
    told, length = fusion(frames), frames.time_s.shape[1]
    true = truth.joints_m[:, :length]

    def error(joints: Tensor) -> float:
        return 1000 * float((joints - joints[:, :, :1] - true + true[:, :, :1]).norm(dim=-1).mean())

    want = ways(truth.joints_m[:, length - 1 :])[..., :3]
    span = (frames.time_s[:, -1] - frames.time_s[:, -4])[:, None, None]
    speed = (frames.joints_m[:, -1:, 0] - frames.joints_m[:, -4:-3, 0]) / span
    on = speed * (torch.arange(1, STEPS_AHEAD + 1) / RATE_HZ)[:, None]
    guesses = {"network": told.ee_target_poses[:, -1, :, :3], "stays": torch.zeros_like(on), "goes on": on}
    return {
        "joints_from_wrist_mm": {"single frames": error(frames.joints_m), "fused": error(told.joints_m)},
        "wrist_ahead_mm": {
            name: {k: 1000 * float((way - want).norm(dim=-1)[:, k - 1].mean()) for k in REPORTED}
            for name, way in guesses.items()
        },
    }
