"""Choose the noise of `kalman_ego` on the held-out split of the synthetic suite, and compare it with its
peers.

    python -m benchmarks.nuscenes_tuning tune --trials 40      # random search; prints the best Noise
    python -m benchmarks.nuscenes_tuning compare               # other seed, split val: the table of docs/nuscenes.md
    python -m benchmarks.nuscenes_tuning compare --trackers    # with SORT and ByteTrack of the `trackers` package

`--trackers` needs `trackers==2.6.1` in the environment; it is a peer here, not a dependency. All get the same
detections. Score: class-averaged HOTA over all camera sequences.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_jobs.nuscenes import motion, suite
from data_jobs.nuscenes.association import TUNED_THRESHOLDS, Thresholds
from data_jobs.nuscenes.peers import library
from models import box_kalman

TUNING_SEED, REPORT_SEED = 101, 202


class Suite:
    """Synthetic scenes at any rate."""

    def __init__(self, work: Path, split: str, seed: int, scenes: int) -> None:
        self.parts = suite.synthetic_suite(work, split, seed, scenes)

    def score(self, track: suite.Track, every: int = 1) -> dict[str, float]:
        """Class-averaged numbers of a tracker; `every` n-th frame only."""
        return suite.score([suite.thinned(part, every) for part in self.parts], track)


def draw(rng: np.random.Generator) -> tuple[box_kalman.Noise, Thresholds]:
    """One random setting."""
    noise = box_kalman.Noise(
        measured=float(rng.choice([0.03, 0.05, 0.08])), position=10 ** rng.uniform(-2, -0.5),
        velocity=10 ** rng.uniform(-0.3, 0.6), birth_velocity=10 ** rng.uniform(0, 0.8),
    )  # fmt: skip
    high = rng.uniform(0.3, 0.65)
    thresholds = Thresholds(
        high=high, birth=high + rng.uniform(0, 0.2), first_cost=rng.uniform(0.7, 0.97),
        second_cost=rng.uniform(0.5, 0.95), newborn_cost=rng.uniform(0.6, 0.97), max_lost_s=rng.uniform(0.4, 3.0),
        drift_per_s=10 ** rng.uniform(-0.5, 0.8), newborn_drift_per_s=10 ** rng.uniform(0, 1),
    )  # fmt: skip
    return noise, thresholds


def near(
    rng: np.random.Generator, noise: box_kalman.Noise, thresholds: Thresholds
) -> tuple[box_kalman.Noise, Thresholds]:
    """A setting of which about a third of the values are drawn anew."""
    other_noise, other = draw(rng)

    def mixed(kept: Any, drawn: Any) -> Any:
        names = [field.name for field in fields(kept)]
        return replace(kept, **{name: getattr(drawn, name) for name in names if rng.random() < 1 / 3})

    return mixed(noise, other_noise), mixed(thresholds, other)


def tune(trials: int, scenes: int) -> None:
    """Random search, the second half of it around the best so far; the score is the mean of HOTA at 12 and at
    2 Hz."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as work:
        scenes_made = Suite(Path(work), "held_out", TUNING_SEED, scenes)
        best = (0.0, box_kalman.TUNED, TUNED_THRESHOLDS)
        for k in range(trials):
            noise, thresholds = (
                (box_kalman.TUNED, TUNED_THRESHOLDS)
                if k == 0
                else draw(rng)
                if k < trials // 2
                else near(rng, *best[1:])
            )
            track = suite.ours(partial(motion.BoxKalman, noise, ego=True), thresholds)
            fast, slow = (scenes_made.score(track, every)["HOTA"] for every in (1, 6))
            best = max(best, ((fast + slow) / 2, noise, thresholds), key=lambda found: found[0])
            sys.stdout.write(
                f"{k:3d} {100 * fast:.2f} {100 * slow:.2f} best {100 * best[0]:.2f} {noise} {thresholds}\n"
            )
            sys.stdout.flush()
        sys.stdout.write(f"best {best}\n")


def compare(scenes: int, with_library: bool) -> None:
    """The table: rows are trackers, columns rates."""
    with tempfile.TemporaryDirectory() as work:
        scenes_made = Suite(Path(work), "val", REPORT_SEED, scenes)
        published, tuned = Thresholds(), TUNED_THRESHOLDS
        rows = {
            "kalman, ByteTrack's thresholds": suite.ours(motion.MOTIONS["kalman"], published),
            "kalman": suite.ours(motion.MOTIONS["kalman"], tuned),
            "kalman, tuned noise": suite.ours(lambda: motion.BoxKalman(box_kalman.TUNED, False), tuned),
            "kalman_ego": suite.ours(motion.MOTIONS["kalman_ego"], tuned),
        }
        if with_library:
            rows["trackers SORT"] = library("SORT")
            rows["trackers ByteTrack"] = library("ByteTrack")
        sys.stdout.write(
            "| tracker | rate | HOTA | DetA | AssA | IDF1 | MOTA | IDSW | s |\n|---|---|---|---|---|---|---|---|---|\n"
        )
        for every, hertz in ((1, 12.0), (6, 2.0)):
            for name, track in rows.items():
                start = time.perf_counter()
                r = scenes_made.score(track, every)
                numbers = " | ".join(f"{100 * r[m]:.1f}" for m in ("HOTA", "DetA", "AssA", "IDF1", "MOTA"))
                sys.stdout.write(
                    f"| {name} | {hertz:.0f} Hz | {numbers} | {r['IDSW']:.0f} | {time.perf_counter() - start:.1f} |\n"
                )
                sys.stdout.flush()


def main() -> None:
    """Run `tune` or `compare`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["tune", "compare"])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--trackers", action="store_true")
    options = parser.parse_args()
    tune(options.trials, options.scenes) if options.what == "tune" else compare(options.scenes, options.trackers)


if __name__ == "__main__":
    main()
