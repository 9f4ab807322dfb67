"""The picture and the error table of docs/retargeting.md: human postures and what each robot hand makes of them.

    python -m benchmarks.retargeting_report docs/retargeting.png

Every posture of train_jobs/manipulation/human_hand.py is held by a synthetic hand and retargeted to the right Allegro:
grey the person's bones, scaled, blue the robot's fingers, both seen from the side of the thumb. The table, on standard
output, is over a minute of motion.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch

from models.kinematics.allegro import FINGERS
from models.retarget.hand import HandRetargeter
from models.retarget.motion import Flag
from train_jobs.manipulation.human_hand import NUMBERS, POSTURES, hand_track, keypoints

SIDE_PX, PIXELS_PER_M = 300, 820
HUMAN = [pair for k in (1, 5, 9, 13, 17) for pair in ((0, k), (k, k + 1), (k + 1, k + 2), (k + 2, k + 3))]
INK, GREY, BLUE = (40, 40, 40), (170, 170, 170), (180, 105, 20)


def robot_points(hand: HandRetargeter, angles: np.ndarray) -> np.ndarray:
    """(4 fingers, 5 points, 3) from the palm to the tip, seen from the wrist."""
    links = [f"link_{4 * f + k}.0" for f in range(4) for k in range(4)]
    tips = [f"link_{4 * f + 3}.0_tip" for f in range(4)]
    points = hand.hand.kinematics((*links, *tips, "wrist"))(torch.as_tensor(angles)).numpy()
    points = points - points[-1]
    return np.concatenate([points[:16].reshape(4, 4, 3), points[16:20, None]], axis=1)


def picture(hand: HandRetargeter, name: str, human: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """One posture, from the thumb's side and a little from the front."""
    canvas = np.full((SIDE_PX, SIDE_PX, 3), 255, np.uint8)
    # Right on the picture is out of the palm, up is towards the tips; the thumb's side is turned to the viewer.
    across = np.array([np.cos(0.6), np.sin(0.6), 0.0])

    def place(point: np.ndarray) -> tuple[int, int]:
        return (int(90 + PIXELS_PER_M * (point @ across)), int(SIDE_PX - 40 - PIXELS_PER_M * point[2]))

    for a, b in HUMAN:
        cv2.line(canvas, place(human[a]), place(human[b]), GREY, 3, cv2.LINE_AA)
    for finger in robot_points(hand, angles):
        for a, b in pairwise(finger):
            cv2.line(canvas, place(a), place(b), BLUE, 5, cv2.LINE_AA)
        cv2.circle(canvas, place(finger[-1]), 6, BLUE, -1, cv2.LINE_AA)
    cv2.putText(canvas, name, (12, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, INK, 1, cv2.LINE_AA)
    return canvas


def held(posture: tuple[float, ...]) -> np.ndarray:
    """Half a second of one posture (15, 21, 3)."""
    row = np.zeros(NUMBERS)
    row[: len(posture)] = posture
    return keypoints(np.tile(row, (15, 1)))


def main() -> None:
    """Write the picture, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("picture", type=Path, nargs="?", default=Path("out/retargeting.png"))
    options = parser.parse_args()
    hand = HandRetargeter("right", "pinch")
    tiles = []
    for name, posture in POSTURES.items():
        points = held(posture)
        angles = hand.retarget(points, "right", np.arange(15) / 30).angles_rad[-1]
        tiles.append(picture(hand, name, points[-1] * hand.scaling, angles))
    tiles.append(np.full_like(tiles[0], 255))
    rows = [np.concatenate(tiles[k : k + 4], axis=1) for k in (0, 4)]
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(options.picture), np.concatenate(rows))
    sys.stdout.write(f"| objective | side | {' | '.join(FINGERS)} | p95 | slowed |\n|---|---|{'---|' * 6}\n")
    for objective in ("vector", "pinch"):
        for side in ("right", "left"):
            track = hand_track(60.0, seed=21, side=side)
            motion = HandRetargeter(side, objective).retarget(track.keypoints_m, side, track.time_s)
            error = 1000 * motion.tip_error_m
            slowed = np.mean(motion.flags & Flag.SLOWED > 0)
            cells = " | ".join(f"{value:.1f}" for value in error.mean(axis=0))
            sys.stdout.write(
                f"| {objective} | {side} | {cells} | {np.percentile(error, 95):.1f} | {100 * slowed:.1f} % |\n"
            )


if __name__ == "__main__":
    main()
