"""How right `foundationpose:templates` is: ADD / ADD-S on Linemod-Occluded, from true masks, nearest view and refined.

Run: `python -m benchmarks.object_pose_lmo [--pictures N]`. Reads ../shared/data/lmo (skips without it). Masks are the
visible parts of the objects as rendered from the true poses, so this is the pose step alone: with masks of a segmenter
it can only be worse. Right means a mean distance of the model's points (ADD; for symmetric objects to the nearest,
ADD-S) below a tenth of the diameter (Hinterstoisser et al. 2012). Peer: the nearest of 42 × 24 views.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import cKDTree

from actors.object_pose import ObjectPoser
from actors.tracker.mesh import read_mesh

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "lmo"
SYMMETRIC = {10, 11}
LEAST_VISIBLE_PX = 400


def main() -> None:
    """One row per object, and the mean."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=16)
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"there is no {DATA}: this measurement needs Linemod-Occluded")
    camera = json.loads((DATA / "camera.json").read_text())
    camera_px = (camera["fx"], camera["fy"], camera["cx"], camera["cy"])
    truth = json.loads((DATA / "scene_gt.json").read_text())
    errors: dict[int, list[tuple[float, float]]] = {}
    posers: dict[int, tuple[ObjectPoser, np.ndarray, float]] = {}
    spent, poses = 0.0, 0
    for path in sorted((DATA / "rgb").glob("*.jpg"))[: options.pictures]:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        ids = cv2.imread(str(DATA / "mask_rendered" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        for one in truth[str(int(path.stem))]:
            number = one["obj_id"]
            mask = ids == number
            if mask.sum() < LEAST_VISIBLE_PX:
                continue
            if number not in posers:
                mesh = read_mesh(DATA / "models" / f"obj_{number:06d}.ply", "mm")
                points = mesh.vertices_m[:: max(1, len(mesh.vertices_m) // 1500)]
                posers[number] = (ObjectPoser(mesh), points, _diameter(points))
            poser, points, diameter = posers[number]
            true = points @ np.reshape(one["cam_R_m2c"], (3, 3)).T + np.array(one["cam_t_m2c"]) / 1000
            found = []
            for refine in (False, True):
                start = time.process_time()
                pose = poser.estimate(image, mask, camera_px, refine=refine)
                spent, poses = spent + refine * (time.process_time() - start), poses + refine
                assert pose is not None
                placed = points @ pose.camera_from_object[:3, :3].T + pose.camera_from_object[:3, 3]
                paired = number not in SYMMETRIC
                apart = np.linalg.norm(placed - true, axis=1) if paired else cKDTree(placed).query(true)[0]
                found.append(float(apart.mean()) / diameter)
            errors.setdefault(number, []).append((found[0], found[1]))
    _print(errors)
    sys.stdout.write(f"{poses} poses, {poses / spent:.2f} per second of processor time\n")


def _diameter(points: np.ndarray) -> float:
    some = points[:: max(1, len(points) // 400)]
    return float(np.linalg.norm(some[:, None] - some[None], axis=2).max())


def _print(errors: dict[int, list[tuple[float, float]]]) -> None:
    sys.stdout.write("| object | poses | nearest view: right | median error / diameter | refined: right | median |\n")
    sys.stdout.write("|---|---|---|---|---|---|\n")
    rows = [(str(number), np.array(found)) for number, found in sorted(errors.items())]
    rows.append(("all", np.concatenate([found for _, found in rows])))
    for name, found in rows:
        right, middle = 100 * (found < 0.1).mean(axis=0), np.median(found, axis=0)
        sys.stdout.write(
            f"| {name} | {len(found)} | {right[0]:.0f} % | {middle[0]:.2f} | {right[1]:.0f} % | {middle[1]:.2f} |\n"
        )


if __name__ == "__main__":
    main()
