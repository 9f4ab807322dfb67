"""Hand retargeting on one core: ours in a batch against dex-retargeting frame by frame, same hand, same track.

    python -m benchmarks.retargeting                # seconds of a track: --seconds

Both solve the same objectives (fingertip vectors; DexPilot's with pinches) on the same Allegro description. Quality is
judged by dex-retargeting's own objective functions, evaluated on both answers, beside how much the joints move from
frame to frame. Everything runs on one core; times are processor time, so that a busy machine does not decide.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.paired import REPEATS, Comparison

TIPS = ["link_15.0_tip", "link_3.0_tip", "link_7.0_tip", "link_11.0_tip"]  # thumb first, as the library wants them


def peer(objective: str, scaling: float) -> Any:
    """dex-retargeting's solver with its Allegro settings, on our description of the hand; no low-pass filter."""
    from dex_retargeting.optimizer import DexPilotOptimizer, VectorOptimizer
    from dex_retargeting.robot_wrapper import RobotWrapper
    from dex_retargeting.seq_retarget import SeqRetargeting

    from models.kinematics.allegro import urdf_path

    robot = RobotWrapper(str(urdf_path("right")))
    if objective == "pinch":
        return SeqRetargeting(DexPilotOptimizer(robot, robot.dof_joint_names, TIPS, "wrist", scaling=scaling))
    human = np.array([[0, 0, 0, 0], [4, 8, 12, 16]])
    return SeqRetargeting(VectorOptimizer(robot, robot.dof_joint_names, ["wrist"] * 4, TIPS, human, scaling=scaling))


@dataclass(frozen=True, slots=True)
class Solved:
    """What one solver made of a track."""

    spent_s: float
    costs: npt.NDArray[np.float64]  # (frames,) of dex-retargeting's objective
    angles_rad: npt.NDArray[np.float64]  # (frames, 16), names in our order

    @property
    def poses_per_s(self) -> float:
        """Frames by processor time."""
        return len(self.costs) / self.spent_s


def solved(objective: str, seconds: float, seed: int = 7) -> tuple[Solved, Solved]:
    """Ours and theirs on the same track."""
    import torch

    from models.kinematics.allegro import allegro
    from models.retarget.hand import HandRetargeter
    from models.retarget.keypoints import from_wrist
    from train_jobs.manipulation.human_hand import hand_track

    track = hand_track(seconds, seed=seed)
    ours = HandRetargeter("right", objective)
    theirs = peer(objective, ours.scaling)
    # The library has no speed limit, so ours is off.
    ours.retarget(track.keypoints_m, "right", track.time_s, limit_speed=False)  # warm caches
    start = time.process_time()
    motion = ours.retarget(track.keypoints_m, "right", track.time_s, limit_speed=False)
    our_s = time.process_time() - start
    names = [theirs.optimizer.robot.dof_joint_names.index(name) for name in allegro("right").tree.joints]
    origin, task = theirs.optimizer.target_link_human_indices
    judged, their_angles, their_s = [], [], 0.0
    # Both see the hand from the wrist as we estimate it: that is our step, and its time is counted as ours.
    seen = from_wrist(torch.as_tensor(track.keypoints_m), "right").points_m.numpy()
    for points, angles in zip(seen, motion.angles_rad, strict=True):
        goal = (points[task] - points[origin]).astype(np.float32)
        start = time.process_time()
        answer = theirs.retarget(goal)
        their_s += time.process_time() - start
        mine = np.empty(16)
        mine[names] = angles
        cost = theirs.optimizer.get_objective_function(goal, np.zeros(0, np.float32), answer.astype(np.float32))
        # The library lets joints pass their limits by a milliradian; a robot cannot follow there.
        within = np.clip(answer, *theirs.joint_limits.T).astype(np.float64)
        judged.append((cost(mine, np.zeros(0)), cost(within, np.zeros(0))))
        their_angles.append(within[names])
    our_costs, their_costs = np.array(judged).T
    return Solved(our_s, our_costs, motion.angles_rad), Solved(their_s, their_costs, np.array(their_angles))


def compare(objective: str, seconds: float) -> float:
    """One line per solver; returns how many times faster ours is."""
    ours, theirs = solved(objective, seconds)
    for name, one in (("ours", ours), ("dex-retargeting", theirs)):
        turned = np.diff(one.angles_rad, axis=0)
        step = np.sqrt((turned**2).sum(axis=1).mean())
        sys.stdout.write(
            f"| {objective} | {name} | {one.poses_per_s:,.0f} | {one.costs.mean():.6f} | {1000 * step:.1f} | "
            f"{np.degrees(np.abs(turned).max()):.1f} |\n"
        )
    better = np.mean(ours.costs <= theirs.costs * 1.01 + 1e-7)
    sys.stdout.write(f"|  | ours no worse (within 1 %) in {100 * better:.1f} % of frames |\n")
    return theirs.spent_s / ours.spent_s


def one_core() -> None:
    """Keep this process to one core and torch to one thread."""
    import torch

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


def comparisons() -> Iterator[Comparison]:
    """Poses per second of both on tracks of a minute."""
    one_core()
    for objective in ("vector", "pinch"):
        pairs = [solved(objective, 60.0, seed) for seed in range(REPEATS)]
        mine, theirs = (tuple(pair[side].poses_per_s for pair in pairs) for side in (0, 1))
        what, command = f"hand to Allegro, `{objective}`, one core", "python -m benchmarks retargeting"
        yield Comparison(what, "dex-retargeting", "poses/s", "more", mine, theirs, command)


def library(seconds: float) -> None:
    """Poses per second of the operator's own way through the library, errors and limits included, per robot hand."""
    from models.retarget.library import HANDS, LibraryRetargeter
    from train_jobs.manipulation.human_hand import hand_track

    track = hand_track(seconds, seed=7)
    for name, hand in HANDS.items():
        retargeter = LibraryRetargeter(hand("right"))
        start = time.process_time()
        motion = retargeter.retarget(track.keypoints_m, "right", track.time_s)
        rate = len(track.time_s) / (time.process_time() - start)
        tips_mm = 1000 * np.nanmean(motion.tip_error_m, axis=0)
        sys.stdout.write(
            f"dex_retarget:dex_retargeting as it runs in egoworld, {name}: {rate:,.0f} poses/s; tips off by "
            f"{', '.join(f'{mm:.1f}' for mm in tips_mm)} mm (index, middle, ring, thumb); "
            f"{np.mean(motion.flags & 4 > 0):.0%} of frames held back by the joints' speed\n"
        )


def main() -> None:
    """Both objectives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=100.0)
    options = parser.parse_args()
    one_core()
    sys.stdout.write(
        "| objective | solver | poses/s | objective, mean | joint step, mrad rms | largest step, ° |\n"
        "|---|---|---|---|---|---|\n"
    )
    ratios = {name: compare(name, options.seconds) for name in ("vector", "pinch")}
    library(options.seconds)
    sys.stdout.write(", ".join(f"{name}: {ratio:.1f} × as fast" for name, ratio in ratios.items()) + "\n")


if __name__ == "__main__":
    main()
