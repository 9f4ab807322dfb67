"""What filtering keypoints does for a robot that follows a real video, and what it costs on a clean track.

    python -m benchmarks.retargeting_video VIDEO [--frames 300]

Hands are found with MediaPipe's networks (actors/hand_finder.py), tracked by side, and retargeted. "Slowed" are frames
in which a joint could not keep up with its track. "Lag" is between the robot's tips and those that the raw keypoints
ask for: on the video that counts jitter against the filter, on the clean track only what the filter spoils. "Step" is
how far the joints move from frame to frame (rms): the shaking that a robot would show.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import av
import numpy as np
import torch

from actors.hand_finder import HandFinder
from models.retarget.hand import HandRetargeter
from models.retarget.keypoints import TIPS, from_wrist
from models.retarget.motion import Flag
from models.retarget.steady import nothing_seen, seen_from_wrist, steadied, steady_step
from train_jobs.manipulation.human_hand import hand_track

LONGEST_GAP_S = 0.2
Track = tuple[str, np.ndarray, np.ndarray]  # side, keypoints (T, 21, 3), times (T,)


def tracks_of(video: Path, frames: int) -> list[Track]:
    """Hands of each side along a video, cut where one was away."""
    finder = HandFinder("full", 2)
    finder.load()
    stream, found = finder.open_stream(), {"left": [], "right": []}
    with av.open(str(video)) as container:
        for k, frame in enumerate(container.decode(video=0)):
            if k == frames:
                break
            best = {}
            for hand in stream.next(frame.to_ndarray(format="rgb24")):
                if hand.side not in best or hand.presence_score > best[hand.side].presence_score:
                    best[hand.side] = hand
            for side, hand in best.items():
                found[side].append((float(frame.time), hand.world_landmarks_m.astype(np.float64)))
    tracks = []
    for side, rows in found.items():
        time = np.array([at for at, _ in rows])
        cuts = np.flatnonzero(np.diff(time) > LONGEST_GAP_S) + 1
        for part in np.split(np.arange(len(rows)), cuts):
            if len(part) > 1:
                tracks.append((side, np.array([rows[k][1] for k in part]), time[part]))
    return tracks


def live(points: np.ndarray, side: str, time_s: np.ndarray) -> np.ndarray:
    """The causal filter, frame by frame."""
    memory, out = nothing_seen(), []
    for k, now in enumerate(seen_from_wrist(points, side)):
        step = time_s[k] - time_s[k - 1] if k else 1.0
        now, memory = steady_step(now, float(step), memory)
        out.append(now)
    return np.array(out)


FILTERS = {
    "none": lambda points, side, time_s: points,
    "both ways": steadied,
    "live": live,
}


def measure(tracks: list[Track], filtered: str, objective: str) -> str:
    """One row of the table."""
    hands = {side: HandRetargeter(side, objective) for side in ("left", "right")}
    slowed, lag, steps = [], [], []
    for side, points, time in tracks:
        hand = hands[side]
        motion = hand.retarget(FILTERS[filtered](points, side, time), side, time)
        view = from_wrist(torch.as_tensor(points), side)
        wanted = view.points_m[:, list(TIPS.values())].numpy() * hand.scaling
        tips = hand.solver.kinematics(torch.as_tensor(motion.angles_rad, dtype=torch.float32)).numpy()
        lag.append(np.linalg.norm(tips[:, :4] - tips[:, 4:] - wanted, axis=-1)[view.usable.numpy()])
        slowed.append(motion.flags & int(Flag.SLOWED) > 0)
        steps.append((np.diff(motion.angles_rad, axis=0) ** 2).sum(axis=1))
    off = 1000 * np.concatenate(lag)
    cells = (f"{len(np.concatenate(slowed))}", f"{100 * np.concatenate(slowed).mean():.1f} %", f"{off.mean():.1f}",
             f"{np.percentile(off, 95):.1f}", f"{1000 * np.sqrt(np.concatenate(steps).mean()):.0f}")  # fmt: skip
    return " | ".join(cells)


def main() -> None:
    """Both objectives, each filter, on the video and on a clean track."""
    parser = argparse.ArgumentParser()
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clean = hand_track(30.0, seed=21)
    inputs = {
        options.video.name: tracks_of(options.video, options.frames),
        "clean": [("right", clean.keypoints_m, clean.time_s)],
    }
    sys.stdout.write("| track | objective | filter | hand frames | slowed | lag, mm | p95 | step, mrad |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|---|\n")
    for name, tracks in inputs.items():
        for objective in ("vector", "pinch"):
            for filtered in FILTERS:
                sys.stdout.write(f"| {name} | `{objective}` | {filtered} | {measure(tracks, filtered, objective)} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
