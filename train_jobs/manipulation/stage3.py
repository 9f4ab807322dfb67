"""Stage 3: train the retarget head against the solver's labels, through differentiable forward kinematics.

In: numbers of tracks and steps, a seed. Out: `head.safetensors`, `decoder.safetensors` (actions.py) and `report.json`
in a folder: finger tip and wrist errors and limit violations of the head beside those of the solver itself, on hands
and motions it has not seen. Called by __main__.py. Hands are synthetic (human_hand.py); labels are made by
models/retarget and models/kinematics.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.kinematics import ur
from models.kinematics.rigid import rotation_angle
from models.retarget.arm import READY_RAD
from models.retarget.hand import HandRetargeter
from models.retarget.head import ARM_JOINTS, RetargetHead
from models.retarget.keypoints import TIPS, from_wrist
from train_jobs.manipulation.actions import measure_future, train_decoder, windows
from train_jobs.manipulation.human_hand import hand_track

# Test tracks come from their own range of seeds.
FIRST_TEST_SEED = 1_000_000
TRACK_S = 10.0
# What a radian of a joint and a metre of a tip or wrist weigh in the loss.
PER_RAD, PER_M, PER_WRIST_M = 1.0, 20.0, 5.0


@dataclass(frozen=True, slots=True)
class Stage3:
    """What the command line asked for."""

    output: Path
    tracks: int = 60
    steps: int = 4000
    decoder_steps: int = 1500
    batch: int = 512
    test_tracks: int = 10
    seed: int = 0
    arm: str = "ur5e"


@dataclass(frozen=True, slots=True)
class Labelled:
    """N frames with the solver's answers."""

    points_m: Tensor  # (N, 21, 3) in the wrist's frame
    base_from_wrist: Tensor  # (N, 4, 4)
    angles_rad: Tensor  # (N, 22)
    tips_m: Tensor  # (N, 4, 3) where the finger tips should be, in the robot's wrist frame


def label(seeds: range, solver: HandRetargeter, arm: ur.UrArm) -> Labelled:
    """Tracks of these seeds with hand angles from the solver and arm angles in closed form, nearest to ready."""
    parts = []
    for seed in seeds:
        track = hand_track(TRACK_S, seed)
        view = from_wrist(torch.as_tensor(track.keypoints_m), "right")
        hand = solver.retarget(track.keypoints_m, "right", track.time_s, limit_speed=False)
        poses = torch.as_tensor(track.base_from_wrist)
        ready = torch.as_tensor(READY_RAD).expand(len(poses), ARM_JOINTS)
        found = ur.inverse(arm, poses)
        reach = found.reachable
        angles = torch.cat([ur.nearest(arm, found, ready), torch.as_tensor(hand.angles_rad)], 1)
        tips = view.points_m[:, list(TIPS.values())] * solver.scaling
        parts.append([values[reach].float() for values in (view.points_m, poses, angles, tips)])
    return Labelled(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def train(request: Stage3, say: Callable[[str], None]) -> dict[str, Any]:
    """Label, train, measure, write. Returns the report."""
    torch.manual_seed(request.seed)
    solver, arm = HandRetargeter("right", "vector"), ur.arm_named(request.arm)
    data = label(range(request.seed, request.seed + request.tracks), solver, arm)
    say(f"{len(data.points_m)} labelled frames")
    head = RetargetHead(solver.hand)
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=request.steps)
    started = time.monotonic()
    for step in range(request.steps):
        rows = torch.randint(len(data.points_m), (request.batch,))
        optimiser.zero_grad()
        value = loss(head, solver, arm, Labelled(*(getattr(data, name)[rows] for name in Labelled.__slots__)))
        value.backward()
        optimiser.step()
        schedule.step()
        if step % 500 == 0 or step == request.steps - 1:
            say(f"step {step}: loss {float(value.detach()):.4f}")
    seconds = time.monotonic() - started
    first = FIRST_TEST_SEED + request.seed
    test = label(range(first, first + request.test_tracks), solver, arm)
    seen = windows(range(request.seed, request.seed + request.tracks), TRACK_S)
    decoder = train_decoder(seen, request.decoder_steps, say)
    unseen = windows(range(first, first + request.test_tracks), TRACK_S)
    report = {"request": {k: str(v) for k, v in asdict(request).items()}, "train_s": round(seconds, 1),
              "test_frames": len(test.points_m), **measure(head, solver, arm, test),
              "ahead": measure_future(decoder, head, solver, arm, unseen)}  # fmt: skip
    request.output.mkdir(parents=True, exist_ok=True)
    save_file(head.state_dict(), str(request.output / "head.safetensors"))
    save_file(decoder.state_dict(), str(request.output / "decoder.safetensors"))
    (request.output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def loss(head: RetargetHead, solver: HandRetargeter, arm: ur.UrArm, data: Labelled) -> Tensor:
    """Angles near the solver's, finger tips where the solver puts them, the wrist where it was."""
    angles = head(data.points_m, data.base_from_wrist)
    apart = ur.wrapped(angles - data.angles_rad)
    points, theirs = (solver.solver.kinematics(a[:, ARM_JOINTS:]) for a in (angles, data.angles_rad))
    wrist = ur.forward(arm, angles[:, :ARM_JOINTS])
    turn = (wrist[:, :3, :3] - data.base_from_wrist[:, :3, :3]).flatten(1).norm(dim=1).mean()
    place = (wrist[:, :3, 3] - data.base_from_wrist[:, :3, 3]).norm(dim=1).mean()
    return (
        PER_RAD * torch.nn.functional.smooth_l1_loss(apart, torch.zeros_like(apart), beta=0.1)
        + PER_M * (points - theirs).norm(dim=-1).mean()
        + PER_WRIST_M * place
        + turn
    )


@torch.no_grad()
def measure(head: RetargetHead, solver: HandRetargeter, arm: ur.UrArm, data: Labelled) -> dict[str, Any]:
    """Errors of the head and of the solver on the same frames, in millimetres and degrees."""
    own = head(data.points_m, data.base_from_wrist)
    return {
        name: _errors(angles, solver, arm, data)
        for name, angles in (("head", own), ("solver", data.angles_rad), ("middle of the ranges", _middle(own, solver)))
    }


def _middle(like: Tensor, solver: HandRetargeter) -> Tensor:
    """The trivial answer: every joint in the middle, the arm ready."""
    row = np.concatenate([READY_RAD, solver.middle_rad])
    return torch.as_tensor(row, dtype=like.dtype).expand_as(like)


def _errors(angles: Tensor, solver: HandRetargeter, arm: ur.UrArm, data: Labelled) -> dict[str, float]:
    points = solver.solver.kinematics(angles[:, ARM_JOINTS:])
    tips = 1000 * (points[:, :4] - points[:, 4:] - data.tips_m).norm(dim=-1)
    wrist = ur.forward(arm, angles[:, :ARM_JOINTS].double())
    want = data.base_from_wrist.double()
    place = 1000 * (wrist[:, :3, 3] - want[:, :3, 3]).norm(dim=-1)
    turn = torch.rad2deg(rotation_angle(wrist[:, :3, :3], want[:, :3, :3]))
    hand = angles[:, ARM_JOINTS:]
    beyond = (hand < solver.solver.lower) | (hand > solver.solver.upper)
    return {
        "tip_error_mm_mean": round(float(tips.mean()), 2),
        "tip_error_mm_p95": round(float(tips.flatten().quantile(0.95)), 2),
        "wrist_error_mm_mean": round(float(place.mean()), 3),
        "wrist_error_deg_mean": round(float(turn.mean()), 3),
        "limit_violations": int(beyond.sum()),
    }
