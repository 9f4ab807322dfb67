"""Keypoints of one hand over time → the 16 angles of an Allegro hand, within its limits and its speed.

In: a track of keypoints (T, 21, 3) with times. Out: a HandMotion with flags and errors. Called by the egoworld
operator (through actors), train_jobs and the benchmark. Frames are solved together, coarse to fine:
first a few far apart, from the middle of the joints' ranges, then those half way between, from their neighbours, and
at last odd and even frames in turn, each near its neighbours. That makes the track smooth without making it late.
`follow` is the live variant: one frame, near the frame before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.errors import UnknownRobot, WrongHand
from models.kinematics import allegro as allegro_hand
from models.retarget.keypoints import KEYPOINTS, WristView, from_wrist
from models.retarget.motion import BoolArray, Flag, FloatArray, check_times, held, limited
from models.retarget.objective import OBJECTIVES, WRIST, Targets, targets
from models.retarget.solver import Solver

STRIDE = 32  # frames between the first that are solved
BETWEEN_STEPS = 10
SWEEPS, SWEEP_STEPS = 1, 6
# The first solution only begins at the middle of the ranges; it is hardly drawn to it.
FIRST_STEPS, FIRST_STAY = 30, 2e-4
# An Allegro's stretched middle finger reaches 231 mm from its wrist, an average adult's 189 mm.
ALLEGRO_OVER_HUMAN = 1.22
# Frames solved at once: bounds memory to some tens of megabytes.
BATCH = 2048


@dataclass(frozen=True, slots=True)
class HandMotion:
    """T frames of a robot hand."""

    angles_rad: FloatArray  # (T, 16) index, middle, ring, thumb
    flags: np.ndarray  # (T,) motion.Flag
    tip_error_m: FloatArray  # (T, 4) between the robot's tips and the scaled human ones; NaN where none was seen


class HandRetargeter:
    """One Allegro hand and one objective. Holds no state between calls."""

    def __init__(self, side: str, objective: str = "pinch", scaling: float = ALLEGRO_OVER_HUMAN) -> None:
        if objective not in OBJECTIVES:
            raise UnknownRobot(f"there is no objective {objective!r}; choose {', '.join(OBJECTIVES)}")
        self.hand = allegro_hand.allegro(side)
        self.side, self.objective, self.scaling = side, OBJECTIVES[objective], scaling
        # Single precision: its error is a thousandth of a millimetre, and it is twice as fast.
        kinematics = self.hand.kinematics((*allegro_hand.TIPS, "wrist"), torch.float32)
        lower, upper = (torch.as_tensor(v, dtype=torch.float32) for v in (self.hand.lower_rad, self.hand.upper_rad))
        self.solver = Solver(kinematics, self.objective, lower, upper)
        self.middle_rad: FloatArray = (self.hand.lower_rad + self.hand.upper_rad) / 2

    def retarget(
        self,
        keypoints_m: FloatArray,
        side: str,
        time_s: FloatArray,
        before_rad: FloatArray | None = None,
        limit_speed: bool = True,
    ) -> HandMotion:
        """A whole track (T, 21, 3) of a `side` hand at times (T,); `before_rad` (16,) is where the robot starts.

        Without `limit_speed` the joints may jump: for comparing solutions, not for a robot.
        Raises WrongHand for a hand of the other side, ValueError for wrong shapes or times. Frames that cannot be
        used are held and flagged.
        """
        view = self._view(keypoints_m, side, time_s)
        if not len(time_s):
            return HandMotion(np.zeros((0, 16)), np.zeros(0, dtype=np.int64), np.zeros((0, 4)))
        goal = targets(self.objective, view.points_m, view.tip_seen, self.scaling)
        first = self.middle_rad if before_rad is None else before_rad
        angles = self._coarse_to_fine(goal, _single(first))
        known = np.repeat(view.tip_seen.numpy(), 4, axis=1)
        angles = _single(held(_double(angles), known, first))
        for _ in range(SWEEPS if len(angles) > 2 else 0):
            angles = self._sweep(goal, angles, torch.as_tensor(known))
        # Once more, because the sweep has moved the frames that were seen.
        return self._finish(held(_double(angles), known, first), view, time_s, before_rad, limit_speed)

    def follow(self, keypoints_m: FloatArray, side: str, dt_s: float, before_rad: FloatArray) -> HandMotion:
        """One frame (21, 3), `dt_s` after the robot stood at `before_rad` (16,)."""
        time = np.array([dt_s])
        view = self._view(keypoints_m[None], side, time)
        goal, near = targets(self.objective, view.points_m, view.tip_seen, self.scaling), _single(before_rad)[None]
        known = np.repeat(view.tip_seen.numpy(), 4, axis=1)
        angles = held(_double(self._solve(goal, near, near, SWEEP_STEPS)), known, before_rad)
        motion = self._finish(angles, view, time, None, limit_speed=False)
        reach = dt_s * self.hand.speed_rad_s * (1 - 1e-9)
        safe = before_rad + np.clip(motion.angles_rad - before_rad, -reach, reach)
        slowed = (np.abs(safe - motion.angles_rad) > 1e-9).any(axis=1)
        return HandMotion(safe, motion.flags | slowed * int(Flag.SLOWED), motion.tip_error_m)

    def _view(self, keypoints_m: FloatArray, side: str, time_s: FloatArray) -> WristView:
        if side != self.side:
            raise WrongHand(f"a {side} hand was given to a {self.side} Allegro; build HandRetargeter({side!r}) for it")
        if keypoints_m.ndim != 3 or keypoints_m.shape[1:] != (KEYPOINTS, 3):
            raise ValueError(f"keypoints must be (frames, 21, 3), not {keypoints_m.shape}")
        check_times(time_s, len(keypoints_m))
        return from_wrist(_single(keypoints_m), side)

    def _solve(self, goal: Targets, start: Tensor, anchor: Tensor, steps: int, stay: float | None = None) -> Tensor:
        parts = [
            self.solver.solve(_rows(goal, slice(a, a + BATCH)),
                              start[a : a + BATCH], anchor[a : a + BATCH], steps, stay).angles_rad
            for a in range(0, len(start), BATCH)
        ]  # fmt: skip
        return torch.cat(parts)

    def _coarse_to_fine(self, goal: Targets, first: Tensor) -> Tensor:
        """Angles (T, 16): every 32nd frame from `first` (16,), then halves of the gaps from both their ends."""
        frames = len(goal.vectors_m)
        angles = first.expand(frames, 16).clone()
        rows = torch.arange(0, frames, STRIDE)
        angles[rows] = self._solve(_rows(goal, rows), angles[rows], angles[rows], FIRST_STEPS, FIRST_STAY)
        for stride in (2**k for k in reversed(range(STRIDE.bit_length() - 1)) if 2**k < frames):
            rows = torch.arange(stride, frames, 2 * stride)
            after = torch.where(rows + stride < frames, rows + stride, rows - stride)
            between = (angles[rows - stride] + angles[after]) / 2
            angles[rows] = self._solve(_rows(goal, rows), between, between, BETWEEN_STEPS)
        return angles

    def _sweep(self, goal: Targets, angles: Tensor, known: Tensor) -> Tensor:
        """Every other frame near its neighbours, then the frames between; what was not seen stays as it is held."""
        angles = angles.clone()
        before = torch.cat([angles[:1], angles[:-1]])
        for first in (0, 1):
            before[1:] = angles[:-1]
            after = torch.cat([angles[1:], angles[-1:]])
            rows = torch.arange(first, len(angles), 2)
            anchor = (before[rows] + after[rows]) / 2
            found = self._solve(_rows(goal, rows), angles[rows], anchor, SWEEP_STEPS)
            angles[rows] = torch.where(known[rows], found, angles[rows])
        return angles

    def _finish(
        self, angles: FloatArray, view: WristView, time_s: FloatArray, start: FloatArray | None, limit_speed: bool
    ) -> HandMotion:
        """Limits in double precision, speed, flags, and how far the tips are off."""
        angles = np.clip(angles, self.hand.lower_rad, self.hand.upper_rad)
        slowed: BoolArray = np.zeros(len(angles), dtype=bool)
        if limit_speed:
            angles, slowed = limited(angles, time_s, self.hand.speed_rad_s, start)
        seen, usable = view.tip_seen.numpy(), view.usable.numpy()
        flags = np.where(~usable, int(Flag.HELD), np.where(~seen.all(axis=1), int(Flag.TIP_MISSING), 0))
        return HandMotion(angles, flags | slowed * int(Flag.SLOWED), self._tip_errors(angles, view, seen))

    def _tip_errors(self, angles: FloatArray, view: WristView, seen: BoolArray) -> FloatArray:
        points = self.solver.kinematics(_single(angles))
        human = targets(OBJECTIVES["vector"], view.points_m, view.tip_seen, self.scaling).vectors_m
        off = (points[:, :WRIST] - points[:, WRIST:] - human).norm(dim=-1)
        return np.where(seen, _double(off), np.nan)


def _rows(goal: Targets, rows: Tensor | slice) -> Targets:
    return Targets(goal.vectors_m[rows], goal.weights[rows])


def _single(values: FloatArray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32)


def _double(values: Tensor) -> FloatArray:
    return values.double().numpy()
