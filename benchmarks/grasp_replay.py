"""Closed loop: mimed grasps retargeted to UR5e + Allegro and replayed in MuJoCo. How many are lifted and held?

    python -m benchmarks.grasp_replay --grasps 200                           # the table of docs/retargeting.md
    python -m benchmarks.grasp_replay --film docs/figures/grasps.gif         # eight grasps, as they come

Success: the object is at least 12 cm higher after a lift of 15 cm, and still so a second later. The interval is
Wilson's at 95 %. Compared on the same grasps: both objectives, with and without an arm that makes up for what the
fingers cannot reach (models/retarget/together.py), and a robot whose fingers stay open.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import mujoco
import numpy as np

from models.retarget.together import WholeRetargeter
from train_jobs.manipulation.grasps import OUTCOMES, SUCCESS, Replayed, grasp, right_hand
from train_jobs.so101.spread import wilson

# Rows and columns of the film, and whose seed comes first.
TILES, FIRST_SEED = (2, 4), 4
TILE_PX, FRAMES_PER_S, COLOURS = 180, 10, 40
INK = (30, 30, 30)


# What is compared: the objective, whether the arm makes up for the tips, whether the fingers close.
PEERS = {
    "pinch, made up": ("pinch", True, True),
    "pinch": ("pinch", False, True),
    "vector, made up": ("vector", True, True),
    "vector": ("vector", False, True),
    "fingers left open": ("pinch", True, False),
}


def row(name: str, results: list[Replayed], spent_s: float) -> str:
    """One line of the table."""
    counts = Counter(result.outcome for result in results)
    low, high = (100 * bound for bound in wilson(counts[SUCCESS], len(results)))
    causes = "; ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if outcome != SUCCESS and counts[outcome])
    held = f"{100 * counts[SUCCESS] / len(results):.1f} %"
    kinds = Counter(result.kind for result in results)
    by_kind = ", ".join(
        f"{kind} {sum(r.kind == kind and r.outcome == SUCCESS for r in results)}/{kinds[kind]}"
        for kind in sorted(kinds)
    )
    return (
        f"| `{name}` | {len(results)} | {held} | {low:.1f} to {high:.1f} % | {by_kind} | {causes} |"
        f"  <!-- {spent_s:.0f} s of processor -->\n"
    )


class Film:
    """Collects pictures of one grasp."""

    def __init__(self) -> None:
        self.pictures: list[np.ndarray] = []
        self._camera = None

    def watch(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Every tenth of a second."""
        from robot.rendering import WristCamera

        if data.time * FRAMES_PER_S < len(self.pictures):
            return
        if self._camera is None:
            self._camera = WristCamera(model, "side", 2 * TILE_PX, 2 * TILE_PX, np.zeros(model.nbody, np.uint8))
        self._camera.look(data)
        picture = cv2.resize(self._camera.colour(), (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
        self.pictures.append(picture)

    def titled(self, title: str) -> list[np.ndarray]:
        """The pictures with a line of text; frees the camera."""
        self._camera.close()
        for picture in self.pictures:
            cv2.putText(picture, title, (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
        return self.pictures


def film(path: Path, robot: WholeRetargeter) -> None:
    """Grasps of seeds that follow one another, none left out, as an animated GIF."""
    from PIL import Image

    tiles = []
    for seed in range(FIRST_SEED, FIRST_SEED + TILES[0] * TILES[1]):
        one = Film()
        outcome = grasp(seed, robot, one.watch).outcome
        tiles.append(one.titled(f"{seed}: {outcome}"))
    frames = [
        np.concatenate([np.concatenate(column[k * TILES[1] : (k + 1) * TILES[1]], 1) for k in range(TILES[0])])
        for column in zip(*tiles, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    # One palette for all, made from a few frames and, so that small objects keep theirs, from their own colour.
    orange = np.full((frames[0].shape[0] // 2, frames[0].shape[1], 3), (237, 128, 33), np.uint8)
    palette = Image.fromarray(np.concatenate([*frames[::12], orange])).quantize(COLOURS, dither=Image.Dither.NONE)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=1000 // FRAMES_PER_S, loop=0)
    sys.stdout.write(f"{path}: {path.stat().st_size / 1e6:.2f} MB\n")


def main() -> None:
    """The table, or the film."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--grasps", type=int, default=200)
    parser.add_argument("--commands", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--film", type=Path)
    options = parser.parse_args()
    if options.film:
        film(options.film, right_hand("pinch", True))
        return
    sys.stdout.write("| commands | grasps | held | 95 % interval | by object | failures |\n|---|---|---|---|---|---|\n")
    for name in options.commands:
        objective, make_up, shut = PEERS[name]
        robot, begun_s = right_hand(objective, make_up), time.process_time()
        results = [grasp(seed, robot, shut=shut) for seed in range(options.grasps)]
        sys.stdout.write(row(name, results, time.process_time() - begun_s))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
