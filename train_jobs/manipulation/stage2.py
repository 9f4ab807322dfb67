"""Stage 2: on the frozen answers of stage 1, train what frames say together and where the hand goes.

In: a Request. Out: `temporal.safetensors` and `temporal_report.json` in stage 1's folder, and `temporal_last.pt`, which
the same command goes on from. Called by __main__.py. Beside the network stand the single frames, the wrist that stays
where it is, and the wrist that goes on at its last speed: all three from the same predicted joints. Ray Train runs the
loop, in this process or in workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import typer
from ray import train as ray_train
from torch import Tensor, nn

from models.manipulation import checkpoint
from models.manipulation.size import SIZES
from models.manipulation.temporal import STEPS_AHEAD, Fused, TemporalFusion
from models.retarget.keypoints import from_wrist
from train_jobs.errors import CannotStart
from train_jobs.fit import fit, here
from train_jobs.manipulation.clips import Answered, answered
from train_jobs.manipulation.pose_losses import position_loss, rounded_norm
from train_jobs.manipulation.sequences import RATE_HZ
from train_jobs.place import Place
from train_jobs.whole import write_whole

BATCH = 16
RATE, WEIGHT_DECAY, CLIP = 1e-3, 0.01, 1.0
PER_M, PER_RAD = 10.0, 0.3
REPORTED = (3, 10)
WRITE_EVERY = 100


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    output: Path  # of stage 1
    clips: int = 300
    test_clips: int = 40
    length: int = 16
    steps: int = 600
    seed: int = 0
    workers: int = 0  # of Ray Train; 0: in this process

    @property
    def stage1(self) -> Path:
        """The weights that this stands on."""
        return self.output / "manipulation.safetensors"

    @property
    def weights(self) -> Path:
        """What comes out."""
        return self.output / "temporal.safetensors"


def run(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    """Train, measure, write. Raises CannotStart without stage 1, UnexpectedModel for weights that are none."""
    if not request.stage1.is_file():
        raise CannotStart(
            f"stage 2 stands on stage 1: there is no {request.stage1}; run `stage1` with this --output first"
        )
    _clips(request, "train", say)
    test = _clips(request, "test", say)
    plain = {field.name: getattr(request, field.name) for field in fields(request)}
    fit(loop, plain | {"output": request.output.absolute()}, request.output, "stage2", workers=request.workers,
        gpu=False)  # fmt: skip
    network, _ = checkpoint.load(request.stage1)
    found = measure(checkpoint.load_temporal(request.weights, network.size), test)
    (request.output / "temporal_report.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def _clips(request: Request, split: str, say: Callable[[str], None]) -> Answered:
    count = request.clips if split == "train" else request.test_clips
    return answered(request.stage1, split, count, request.length, say)  # type: ignore[arg-type]


def loop(plain: Mapping[str, Any]) -> None:
    """What each worker does."""
    request = Request(**plain)
    # How sure an action is has no labels: its head takes no part.
    place = here(find_unused_parameters=True) if request.workers > 1 else Place()
    size = str(checkpoint.load(request.stage1)[1]["size"])
    torch.manual_seed(request.seed)
    fusion = TemporalFusion(SIZES[size])
    learner = place.wrap(Learner(fusion).to(place.device))
    optimiser = torch.optim.AdamW(fusion.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, request.steps)
    parts = {"fusion": fusion, "optimiser": optimiser, "schedule": schedule}
    step, last = _resume(request, parts), request.output / "temporal_last.pt"
    train = _clips(request, "train", typer.echo)
    while step < request.steps:
        rng = torch.Generator().manual_seed(1_000_003 * request.seed + step)
        rows = torch.randint(len(train.joints_m), (min(BATCH, len(train.joints_m)),), generator=rng)
        turns = 2 * torch.pi * torch.rand(len(rows), generator=rng)
        own = slice(place.rank, None, place.workers)
        value = learner(train.chosen(rows[own]).turned(turns[own]))
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(fusion.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        step += 1
        if place.rank == 0 and (step % WRITE_EVERY == 0 or step == request.steps):
            typer.echo(f"step {step}: loss {float(value.detach()):.4f}")
            states = {name: part.state_dict() for name, part in parts.items()}
            write_whole(last, {**states, "step": step, "request": _same(request)})
    if place.rank == 0:
        note = {"clips": request.clips, "length": request.length, "steps": request.steps, "size": size}
        checkpoint.save_temporal(fusion, request.weights, note)
    ray_train.report({"step": step})


def _same(request: Request) -> list[int]:
    """What must not have changed for a training to go on."""
    return [request.clips, request.length, request.steps, request.seed, request.stage1.stat().st_mtime_ns]


def _resume(request: Request, parts: Mapping[str, Any]) -> int:
    """The step of the last state, which is taken up unless it is another training's: then a new one begins."""
    last = request.output / "temporal_last.pt"
    if not last.is_file():
        return 0
    state = torch.load(last, map_location="cpu", weights_only=True)
    if state["request"] != _same(request):
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    typer.echo(f"going on from step {state['step']}")
    return int(state["step"])


class Learner(nn.Module):
    """The fusion and its loss in one module: what workers join their gradients of."""

    def __init__(self, fusion: TemporalFusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, clips: Answered) -> Tensor:
        """The loss."""
        return loss(self.fusion(clips.frames), clips.joints_m, clips.frames.time_s)


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
def measure(fusion: TemporalFusion, clips: Answered) -> dict[str, Any]:
    """Millimetres: of the joints beside single frames, and of the wrist ahead beside two who do not learn."""
    frames = clips.frames
    told, length = fusion(frames), frames.time_s.shape[1]
    true = clips.joints_m[:, :length]

    def error(joints: Tensor) -> float:
        return 1000 * float((joints - joints[:, :, :1] - true + true[:, :, :1]).norm(dim=-1).mean())

    want = ways(clips.joints_m[:, length - 1 :])[..., :3]
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
