"""Wrist poses over time → the 6 angles of a Universal Robots arm: one branch, no jumps, closest pose if out of reach.

In: base_from_wrist (T, 4, 4) with times. Out: an ArmMotion with flags. Called by train_jobs and
actors/hand_follower.py. All frames are solved in closed form at once; the branches are then chained by a table lookup
per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from models.kinematics import ur
from models.retarget.motion import Flag, FloatArray, check_times, held, limited

# How often the closest place within reach is bettered, how far inside the edge it is looked for,
# and how far around.
CLOSER_STEPS, INSIDE_M, START_M = 40, 1e-7, 0.3
# A comfortable pose to begin from: elbow up, the hand 0.45 m in front (along the base's x), fingers down, palm back.
READY_RAD = np.array([2.84, -1.6, 2.1, -2.07, -1.57, 1.27])


@dataclass(frozen=True, slots=True)
class ArmMotion:
    """T frames of an arm."""

    angles_rad: FloatArray  # (T, 6)
    flags: np.ndarray  # (T,) motion.Flag
    miss_m: FloatArray  # (T,) how far the wrist is outside the workspace; NaN where no pose was given


class ArmRetargeter:
    """One arm, with the hand's wrist mounted at a fixed place on its flange. Holds no state between calls."""

    def __init__(self, arm: str, flange_from_wrist: FloatArray | None = None) -> None:
        self.arm = ur.arm_named(arm)
        self.wrist_from_flange = np.linalg.inv(np.eye(4) if flange_from_wrist is None else flange_from_wrist)

    def retarget(
        self, base_from_wrist: FloatArray, time_s: FloatArray, before_rad: FloatArray | None = None
    ) -> ArmMotion:
        """A track of wrist poses (T, 4, 4) at times (T,); `before_rad` (6,) is where the arm starts.

        Raises ValueError for wrong shapes or times. Poses with NaN are held; poses out of reach get the closest
        position under their orientation. Both are flagged.
        """
        if base_from_wrist.ndim != 3 or base_from_wrist.shape[1:] != (4, 4):
            raise ValueError(f"wrist poses must be (frames, 4, 4), not {base_from_wrist.shape}")
        check_times(time_s, len(base_from_wrist))
        known = np.asarray(np.isfinite(base_from_wrist).all(axis=(1, 2)))
        first = READY_RAD if before_rad is None else before_rad
        angles, miss = np.tile(first, (len(time_s), 1)), np.full(len(time_s), np.nan)
        if known.any():
            angles[known], miss[known] = self._chain(base_from_wrist[known] @ self.wrist_from_flange, first)
        angles = held(angles, known, first)
        angles, slowed = limited(angles, time_s, np.array(self.arm.speed_rad_s), before_rad)
        out = np.nan_to_num(miss) > ur.EDGE_M
        flags = ~known * int(Flag.HELD) | out * int(Flag.UNREACHABLE) | slowed * int(Flag.SLOWED)
        return ArmMotion(angles, flags, miss)

    def follow(self, base_from_wrist: FloatArray, dt_s: float, before_rad: FloatArray) -> ArmMotion:
        """One live frame: a wrist pose (4, 4), `dt_s` after the arm stood at `before_rad` (6,)."""
        # The same pose twice: the speed limit of the first frame is that of the interval that follows it.
        twice = self.retarget(np.stack([base_from_wrist] * 2), np.array([0.0, dt_s]), before_rad)
        return ArmMotion(twice.angles_rad[:1], twice.flags[:1], twice.miss_m[:1])

    def _chain(self, base_from_flange: FloatArray, first: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Branches (T, 6) that follow one another, and by how much (T,) they miss."""
        wanted = torch.as_tensor(base_from_flange)
        poses = self._within_reach(wanted)
        found = ur.inverse(self.arm, poses, float(first[5]))
        chosen = self._branches(found, first)
        loose = np.take_along_axis(found.wrist_singular.numpy(), chosen[:, None], 1)[:, 0]
        if loose.any():
            # There joint 6 is free: let it stay where it was, so that joint 4 does not have to make up for it.
            sixth = np.take_along_axis(found.angles_rad.numpy(), chosen[:, None, None], 1)[:, :1, 5]
            stay = held(sixth, ~loose, first[5:])[:, 0]
            found = ur.inverse(self.arm, poses, torch.as_tensor(stay))
        angles = np.take_along_axis(found.angles_rad.numpy(), chosen[:, None, None], 1)[:, 0]
        reached = ur.forward(self.arm, torch.as_tensor(angles))
        miss = (reached - wanted)[:, :3, 3].norm(dim=-1).numpy()
        miss[ur.inverse(self.arm, wanted).reachable.numpy()] = 0.0
        whole = np.unwrap(np.concatenate([first[None], angles]), axis=0)[1:]
        # A joint that has wound up to its limit must go back by a turn: the speed limit makes that a slow move.
        limit = self.arm.limit_rad
        return np.where(np.abs(whole) > limit, ur.wrapped(torch.as_tensor(whole)).numpy(), whole), miss

    def _within_reach(self, wanted: torch.Tensor) -> torch.Tensor:
        """The poses (T, 4, 4), and for those out of reach the closest place that has a solution of that orientation.

        The arm is stretched towards the place in its plane (closed form); then the place is drawn to the wanted one
        along the surface of the workspace: at each step that surface is taken for the plane that its distance and
        gradient tell of. Where surfaces meet, high above the base, up to a centimetre may be missing to the closest.
        """
        found, poses = ur.inverse(self.arm, wanted), wanted.clone()
        out = ~found.reachable
        if not out.any():
            return poses
        least = found.excess_m[out].argmin(-1)[:, None, None]
        stretched = ur.forward(self.arm, found.angles_rad[out].take_along_dim(least, 1)[:, 0])[:, :3, 3]
        # The workspace has edges and a hole: from several places on, one of them finds the right surface.
        starts = START_M * torch.cat([torch.zeros(1, 3), torch.eye(3), -torch.eye(3)]).to(wanted)
        goal = wanted[out].repeat_interleave(len(starts), 0)
        target, best = goal[:, :3, 3].clone(), stretched.repeat_interleave(len(starts), 0)
        place, nearest = best + starts.repeat(int(out.sum()), 1), (best - target).norm(dim=-1)
        for _ in range(CLOSER_STEPS):
            beyond, gradient = self._beyond(goal, place)
            off = (place - target).norm(dim=-1)
            better = (beyond <= 0) & (off < nearest)
            best, nearest = torch.where(better[:, None], place, best), torch.where(better, off, nearest)
            steep = (gradient**2).sum(-1).clamp(min=1e-6)
            share = (beyond + INSIDE_M + (gradient * (target - place)).sum(-1)) / steep
            place = target - share[:, None] * gradient
        row = nearest.unflatten(0, (-1, len(starts))).argmin(1, keepdim=True)[..., None]
        poses[out, :3, 3] = best.unflatten(0, (-1, len(starts))).take_along_dim(row, 1)[:, 0]
        return poses

    def _beyond(self, goal: torch.Tensor, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """By how much places (N, 3) under the orientations of `goal` are out of reach, and its gradient (N, 3)."""
        place = place.detach().requires_grad_()
        top = torch.cat([goal[:, :3, :3], place[..., None]], -1)
        beyond = ur.beyond(self.arm, torch.cat([top, goal[:, 3:]], -2))
        return beyond.detach(), torch.autograd.grad(beyond.sum(), place)[0]

    def _branches(self, found: ur.Inverse, first: FloatArray) -> np.ndarray:
        """Which branch (T,) each frame takes: from each of the eight before, the quickest to reach."""
        angles, excess = found.angles_rad, found.excess_m
        speed = torch.tensor(self.arm.speed_rad_s, dtype=angles.dtype)
        misses = excess > excess.amin(-1, keepdim=True) + ur.EDGE_M  # (T, 8)

        def quickest(before: torch.Tensor, now: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
            seconds = (ur.wrapped(now[..., None, :, :] - before[..., :, None, :]).abs() / speed).amax(-1)
            return torch.where(bad[..., None, :], torch.inf, seconds).argmin(-1)

        at = int(quickest(torch.as_tensor(first)[None], angles[0], misses[0])[0])
        chosen = [at]
        for row in quickest(angles[:-1], angles[1:], misses[1:]).tolist():
            at = row[at]
            chosen.append(at)
        return np.array(chosen)
