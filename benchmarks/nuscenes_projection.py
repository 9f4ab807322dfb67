"""Our boxes per second against the devkit's loop: the same annotations in the same images, one core, one run.

    python -m benchmarks.nuscenes_projection ../shared/data/av2_as_nuscenes v1.0-av2mini --oracle
    /tmp/devkit/bin/python

A projection is one annotation looked for in one camera image. The devkit's loop moves the box into the
camera, projects and tests it; ours also interpolates it to the image's time and clips it at the near plane
and the image border. `--oracle` is the interpreter of an environment with nuscenes-devkit (see
tests/data_jobs/nuscenes/devkit_oracle.py).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from data_jobs.nuscenes.label import annotation_grid, label_native, sequence_images
from data_jobs.nuscenes.scene_index import open_index
from data_jobs.nuscenes.scenes import Images, Scene
from data_jobs.nuscenes.schema import CAMERAS
from data_jobs.nuscenes.tables import open_tables

ORACLE = Path(__file__).resolve().parents[1] / "tests/data_jobs/nuscenes/devkit_oracle.py"


def candidates(scene: Scene, images: Images) -> int:
    """Object-image pairs that the labelling has to decide on."""
    grid = annotation_grid(scene)
    k = np.clip(np.searchsorted(scene.keyframe_us, images.time_us, side="right") - 1, 0, len(scene.keyframe_us) - 2)
    return int(((grid.T[k] >= 0) & (grid.T[k + 1] >= 0)).sum())


def ours(dataroot: Path, version: str, cache: Path) -> float:
    """Microseconds per projection over all scenes and cameras, best of five."""
    index = open_index(open_tables(dataroot, version, cache))
    scenes = [index.load(row) for row in range(len(index.scenes()))]
    work = [(scene, sequence_images(scene, camera, "native")) for scene in scenes for camera in range(len(CAMERAS))]
    pairs = sum(candidates(scene, images) for scene, images in work)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for scene, images in work:
            label_native(scene, images)
        times.append(time.perf_counter() - start)
    sys.stdout.write(f"ours: {pairs} projections in {min(times):.3f} s\n")
    return 1e6 * min(times) / pairs


def main() -> None:
    """Print both and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dataroot", type=Path)
    parser.add_argument("version")
    parser.add_argument("--oracle", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        mine = ours(options.dataroot, options.version, Path(cache))
    command = [options.oracle, str(ORACLE), str(options.dataroot), options.version, "--time"]
    line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
    sys.stdout.write(f"devkit: {line}\nours {mine:.2f} µs, devkit {float(line.split()[-1]):.1f} µs per projection, ")
    sys.stdout.write(f"ratio {float(line.split()[-1]) / mine:.0f}\n")


if __name__ == "__main__":
    main()
