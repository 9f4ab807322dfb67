"""What stage 1 says of clips, and what is true of them: made once, in chunks, and kept beside the weights that said it.

In: stage 1's weights, a split, a number of clips. Out: Answered. Called by stage2.py. The pictures themselves are not
kept: stage 2 only needs their answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.manipulation.checkpoint import load
from models.manipulation.network import ManipulationTransformer
from models.manipulation.temporal import Frames, frame_tokens
from train_jobs.manipulation.pictures import write_tensors
from train_jobs.manipulation.processes import spread
from train_jobs.manipulation.sequences import Clips, generate_clips
from train_jobs.manipulation.synthetic import VERSION, Split

CHUNK, BATCH = 20, 64


@dataclass(frozen=True, slots=True)
class Answered:
    """N clips of T frames."""

    frames: Frames
    joints_m: Tensor  # (N, T + 10, 21, 3) true ones: of the frames, and of the steps of 1/30 s after the last

    def chosen(self, rows: Tensor) -> Answered:
        """These clips."""
        parts = (self.frames.tokens, self.frames.joints_m, self.frames.time_s, self.joints_m)
        *frames, joints = (part[rows] for part in parts)
        return Answered(Frames(*frames), joints)

    def turned(self, angle_rad: Tensor) -> Answered:
        """The world of each clip turned about the view by (N,) radians: crops stand upright, so the tokens stay."""
        sine, cosine, zero = angle_rad.sin(), angle_rad.cos(), torch.zeros_like(angle_rad)
        turn = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1], -1).unflatten(-1, (1, 3, 3))
        frames = Frames(self.frames.tokens, self.frames.joints_m @ turn.mT, self.frames.time_s)
        return Answered(frames, self.joints_m @ turn.mT)


def answered(weights: Path, split: Split, count: int, length: int, say: Callable[[str], None]) -> Answered:
    """The first `count` clips of a split. Raises UnexpectedModel."""
    load(weights)  # what cannot be read is said here, not by a process
    mark = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    wanted = [(first, min(CHUNK, count - first)) for first in range(0, count, CHUNK)]
    folder = weights.parent / "clips"
    paths = [folder / f"{split}_v{VERSION}_{mark}_{length}_{first}_{number}.safetensors" for first, number in wanted]
    missing = [(weights, split, *part, length, path) for part, path in zip(wanted, paths, strict=True)
               if not path.is_file()]  # fmt: skip
    spread(_make, missing, lambda made: say(f"{split}: {made} of {len(missing)} chunks of clips made"))
    parts = [load_file(str(path)) for path in paths]
    tokens, joints, time, true = (torch.cat([part[name] for part in parts])
                                  for name in ("tokens", "joints_m", "time_s", "true_joints_m"))  # fmt: skip
    return Answered(Frames(tokens, joints, time), true)


def _make(weights: Path, split: Split, first: int, number: int, length: int, path: Path) -> None:
    network, _ = load(weights)
    clips = generate_clips(split, first, number, length, network.size.image_px)
    told = answers(network, clips)
    write_tensors(path, {"tokens": told.tokens, "joints_m": told.joints_m, "time_s": told.time_s,
                         "true_joints_m": clips.joints_m})  # fmt: skip


@torch.no_grad()
def answers(network: ManipulationTransformer, clips: Clips) -> Frames:
    """Stage 1's answers to every frame, as the camera stood."""
    count, length = clips.time_s.shape
    turns = clips.camera_from_crop.flatten(0, 1)
    tokens, joints = [], []
    for at in range(0, count * length, BATCH):
        some = clips.frames[slice(at, at + BATCH)]
        answer = network(some.pictures, some.intrinsics)
        tokens.append(frame_tokens(answer))
        joints.append(answer.hand.joints_m @ turns[at : at + BATCH].mT)
    shape = (count, length)
    return Frames(torch.cat(tokens).unflatten(0, shape), torch.cat(joints).unflatten(0, shape), clips.time_s)
