"""Synthetic hands in motion: clips in which a hand turns, moves and closes around what it holds.

In: a split and numbers of clips. Out: Clips. Called by stage2.py. Hands, objects and cameras are those of the splits of
synthetic.py: what is held out there is held out here. Times are those of a camera that drops frames now and then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from models.manipulation.temporal import STEPS_AHEAD
from train_jobs.manipulation.grasping import grasp
from train_jobs.manipulation.hand_shapes import FloatArray, shaped
from train_jobs.manipulation.samples import Samples, together
from train_jobs.manipulation.synthetic import VERSION, Split, bank, drawn, pose_scene, random_view, roll_rad, upright

RATE_HZ = 30.0
DROPPED = 0.15
# Speeds of the hand: turning in rad/s, moving in shares of the picture per second.
TURNS_RAD_S, MOVES = 0.6, 0.15


@dataclass(frozen=True, slots=True)
class Clips:
    """N clips of T frames."""

    frames: Samples  # N · T of them, clip by clip
    time_s: Tensor  # (N, T)
    joints_m: Tensor  # (N, T + 10, 21, 3): of the frames, and of the steps of 1/30 s after the last
    camera_from_crop: Tensor  # (N, T, 3, 3): each frame's crop stands upright, joints_m is as the camera stood


def generate_clips(split: Split, first: int, count: int, length: int, size_px: int) -> Clips:
    """Clips `first` to `first + count`, each from its own number alone."""
    parts = [_clip(split, number, length, size_px) for number in range(first, first + count)]
    return Clips(
        together([part[0] for part in parts]),
        *(torch.stack(rows) for rows in zip(*(p[1:] for p in parts), strict=True)),
    )


def _clip(split: Split, number: int, length: int, size_px: int) -> tuple[Samples, Tensor, Tensor, Tensor]:
    own = bank(split)
    rng = np.random.default_rng([VERSION, get_args(Split).index(split), number, 8])
    hand = shaped(own.shapes[rng.integers(len(own.shapes))])
    camera, solid = own.cameras[rng.integers(len(own.cameras))], own.solids[rng.integers(len(own.solids))]
    posture, placed = grasp(hand, solid, rng)
    view, spin, drift = random_view(rng), rng.normal(0, TURNS_RAD_S, 3), rng.normal(0, MOVES, 2)
    steps = 1 + (rng.random(length - 1) < DROPPED)
    time = np.concatenate([[0], np.cumsum(steps), np.sum(steps) + np.arange(1, STEPS_AHEAD + 1)]) / RATE_HZ
    opening, middle = rng.uniform(0, 0.5), rng.uniform(0.1, 0.9) * time[-1]
    closed = 1 / (1 + np.exp(-(time - middle) * 12))
    depth = float(pose_scene(hand, posture, solid, placed, camera, view).joints_m[:, 2].mean())
    seed = int(rng.integers(2**31))
    pictures: list[Samples] = []
    joints: list[FloatArray] = []
    turns: list[FloatArray] = []
    for at, share in zip(time, closed, strict=True):
        now = replace(view, turn=Rotation.from_rotvec(spin * at).as_matrix() @ view.turn, at=view.at + drift * at)
        bent = replace(posture, closing=posture.closing * (opening + (1 - opening) * share))
        scene = pose_scene(hand, bent, solid, placed, camera, now, depth)
        joints.append(scene.joints_m)
        if len(pictures) < length:
            angle = roll_rad(scene, rng)
            turned, seen_by = upright(scene, camera, now, angle)
            # The same seed: the same skin, light and background in every frame.
            pictures.append(drawn(turned, own, seen_by, np.random.default_rng(seed), size_px, visible=True))
            turns.append(Rotation.from_rotvec([0, 0, -angle]).as_matrix())
    told, back = (torch.tensor(np.array(rows), dtype=torch.float32) for rows in (joints, turns))
    return together(pictures), torch.tensor(time[:length], dtype=torch.float32), told, back
