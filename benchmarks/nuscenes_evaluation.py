"""Our metrics against TrackEval 1.3.0 on the same MOT sequences and the same tracks: seconds, and the ratio.

    python -m benchmarks.nuscenes_evaluation ../shared/data/mot --oracle /tmp/oracle/bin/python

`--oracle` is the interpreter of an environment with trackeval (see
tests/data_jobs/nuscenes/trackeval_oracle.py). Both sides read the files and score HOTA, CLEAR and Identity in
one process on one core; imports are not counted.
"""

from __future__ import annotations

import argparse
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from data_jobs.nuscenes.evaluate import scoreable
from data_jobs.nuscenes.metrics import Score, combined, score_sequence
from data_jobs.nuscenes.mot_files import read_mot

DISTRACTORS = (2, 7, 8, 12)
TESTS = Path(__file__).resolve().parents[1] / "tests/data_jobs/nuscenes"
ORACLE = TESTS / "trackeval_oracle.py"
NOISE = runpy.run_path(str(TESTS / "mot_noise.py"))
noisy_tracks, sequences, write_tracks = NOISE["noisy_tracks"], NOISE["sequences"], NOISE["write_tracks"]


def ours(mot_folder: Path, tracks: Path) -> tuple[float, dict[str, float]]:
    """Seconds, and HOTA per benchmark."""
    start = time.perf_counter()
    scores: dict[str, list[Score]] = {"MOT15": [], "MOT17": []}
    for bench, sequence in sequences(mot_folder):
        truth, got = read_mot(sequence / "gt/gt.txt"), read_mot(tracks / f"{sequence.name}.txt")
        void = np.isin(truth.class_id, DISTRACTORS) & (bench == "MOT17")
        counted = (truth.score != 0) & ((truth.class_id == 1) | (bench == "MOT15"))
        scores[bench].append(score_sequence(*scoreable(truth.boxes, counted, void, got.boxes)[:2]))
    hota = {bench: combined(s).ratios()["HOTA"] for bench, s in scores.items()}
    return time.perf_counter() - start, hota


def main() -> None:
    """Print both times and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mot_folder", type=Path)
    parser.add_argument("--oracle", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for seed, (_, sequence) in enumerate(sequences(options.mot_folder)):
            rows = noisy_tracks(np.loadtxt(sequence / "gt/gt.txt", delimiter=","), seed)
            write_tracks(Path(work) / f"{sequence.name}.txt", rows)
        runs = [ours(options.mot_folder, Path(work)) for _ in range(options.repeats)]
    command = [options.oracle, str(ORACLE), str(options.mot_folder), "--time"]
    theirs = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
        for _ in range(options.repeats)
    ]
    best, peer = min(seconds for seconds, _ in runs), min(theirs)
    sys.stdout.write(f"HOTA {runs[0][1]}\nours {best:.3f} s, TrackEval {peer:.3f} s, ratio {peer / best:.1f}\n")


if __name__ == "__main__":
    main()
