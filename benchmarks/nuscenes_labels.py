"""Label quality against known truth: the real log with held-out boxes, and the synthetic turning and straight
suites.

    python -m benchmarks.nuscenes_labels ../shared/data/av2_as_nuscenes   # without the folder: synthetic
    suites only

Real log: the tables hold every fifth lidar sweep as a keyframe; `heldout_between_keyframes.parquet` holds the
boxes annotated in between. Centre errors are compared with the devkit's interpolation (its figures are in the
folder's README); projected boxes are seen from the recorded ego pose of the sweep through each of the six
cameras.
Synthetic: the truth at every image's own time. A label that is missing counts as missing, not as IoU 0.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from data_jobs.nuscenes import geometry, projection
from data_jobs.nuscenes.label import (
    Interpolation,
    annotation_grid,
    label,
    label_flat,
    label_native,
    take_images,
)
from data_jobs.nuscenes.matching import pairwise_iou
from data_jobs.nuscenes.scene_index import SceneIndex, open_index
from data_jobs.nuscenes.scenes import Images, Scene
from data_jobs.nuscenes.schema import CAMERAS
from data_jobs.nuscenes.synthetic import scene_pool, write_database
from data_jobs.nuscenes.synthetic_world import WorldSpec
from data_jobs.nuscenes.tables import TableStore, open_tables

RULES: tuple[Interpolation, ...] = ("native", "linear2d", "seed")
HEADER = "| data | rule | truth boxes | mean IoU | below 0.7 | missing |\n|---|---|---|---|---|---|\n"


def quality(name: str, rule: str, truth: pd.DataFrame, labels: pd.DataFrame) -> str:
    """One table row. Both frames have image, instance and box columns x1 y1 x2 y2."""
    both = truth.merge(labels, on=["image", "instance"], how="left", suffixes=("", "_got"))
    xyxy = ["x1", "y1", "x2", "y2"]
    true, got = both[xyxy].to_numpy(), both[[f"{c}_got" for c in xyxy]].to_numpy()
    found = ~np.isnan(got[:, 0])
    iou = pairwise_iou(xywh(true[found]), xywh(got[found]))
    return (
        f"| {name} | {rule} | {len(truth)} | {iou.mean():.4f} | {100 * (iou < 0.7).mean():.2f} % | "
        f"{100 * (~found).mean():.2f} % |\n"
    )


def xywh(box: np.ndarray) -> np.ndarray:
    """Corners to left, top, width, height."""
    return np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1)


def frame_of(image: np.ndarray, instance: np.ndarray, box: np.ndarray) -> pd.DataFrame:
    """Columns that `quality` merges on."""
    columns = dict(zip(["x1", "y1", "x2", "y2"], box.T, strict=True))
    return pd.DataFrame({"image": image, "instance": instance, **columns})


# --- the real log
# -------------------------------------------------------------------------------------------------


def real_log(folder: Path, cache: Path) -> None:
    """Centre error, then projected IoU, for boxes with both neighbouring keyframes."""
    store = open_tables(folder, "v1.0-av2mini", cache)
    index = open_index(store)
    scene = index.load(0)
    truth = pq.read_table(folder / "heldout_between_keyframes.parquet").to_pandas()
    centre_errors(store, truth)
    truth = truth[truth.instance_token.isin(scene.instance_token)]
    sweeps = sweep_poses(store, truth)
    sys.stdout.write("\n" + HEADER)
    for rule in RULES:
        true: list[pd.DataFrame] = []
        got: list[pd.DataFrame] = []
        for camera in range(len(CAMERAS)):
            for part, rows in zip((true, got), projected(scene, camera, sweeps, truth, rule), strict=True):
                part.append(rows.assign(image=rows.image + 10_000 * camera))
        sys.stdout.write(quality("real log, sweeps between keyframes", rule, pd.concat(true), pd.concat(got)))


def centre_errors(store: TableStore, truth: pd.DataFrame) -> None:
    """Distance of interpolated centres from the annotated ones, all categories, as the devkit's figures
    are."""
    times = store.read("sample", ["token", "timestamp"]).to_pandas().set_index("token").timestamp
    columns = ["sample_token", "instance_token", "translation", "rotation"]
    boxes = store.read("sample_annotation", columns).to_pandas()
    both = truth.merge(boxes, left_on=["prev_sample_token", "instance_token"], right_on=columns[:2])
    both = both.merge(
        boxes, left_on=["next_sample_token", "instance_token"], right_on=columns[:2], suffixes=("_a", "_b")
    )
    before, after = (times[both[f"{side}_sample_token"]].to_numpy() for side in ("prev", "next"))
    weight = geometry.time_fraction(both.timestamp.to_numpy(), before, after)
    ends = {
        name: np.stack(both[name].to_list()) for name in ("translation_a", "translation_b", "rotation_a", "rotation_b")
    }
    centre = geometry.lerp(ends["translation_a"], ends["translation_b"], weight)
    error = np.linalg.norm(centre - both[["x", "y", "z"]].to_numpy(), axis=1)
    turn = geometry.slerp(ends["rotation_a"], ends["rotation_b"], weight)
    cosine = np.abs((turn * both[["qw", "qx", "qy", "qz"]].to_numpy()).sum(axis=1)).clip(0, 1)
    sys.stdout.write(
        f"centres of {len(both)} boxes: mean {error.mean():.4f} m, 95 % {np.percentile(error, 95):.4f} m, max "
        f"{error.max():.3f} m, rotation mean {np.degrees(2 * np.arccos(cosine)).mean():.3f}°\n"
    )


def sweep_poses(store: TableStore, truth: pd.DataFrame) -> pd.DataFrame:
    """Recorded ego pose of each lidar sweep that has held-out boxes, in time order."""
    data = store.read("sample_data", ["token", "ego_pose_token", "timestamp"]).to_pandas()
    pose = store.read("ego_pose", ["token", "translation", "rotation"]).to_pandas()
    wanted = data[data.token.isin(truth.lidar_sample_data_token)]
    return wanted.merge(pose, left_on="ego_pose_token", right_on="token").sort_values("timestamp")


def projected(
    scene: Scene, camera: int, sweeps: pd.DataFrame, truth: pd.DataFrame, rule: Interpolation
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """True and labelled boxes of one camera, had it taken its images at the sweeps."""
    images = take_images(scene.camera(camera), np.zeros(len(sweeps), dtype=np.int64))
    views = Images(
        sweeps.timestamp.to_numpy(), np.full(len(sweeps), -1), images.token, images.filename, images.size_px,
        np.stack(sweeps.translation.to_list()), np.stack(sweeps.rotation.to_list()), images.camera_origin,
        images.camera_rotation, images.intrinsics,
    )  # fmt: skip
    keys = take_images(scene.camera(camera), scene.camera(camera).keyframe >= 0)
    got = label_native(scene, views) if rule == "native" else label_flat(scene, keys, views, rule)
    return true_boxes(scene, views, truth), frame_of(got.image, got.instance, got.box_px)


def true_boxes(scene: Scene, views: Images, truth: pd.DataFrame) -> pd.DataFrame:
    """Held-out boxes, annotated at both neighbouring keyframes, as each view sees them."""
    grid = annotation_grid(scene)
    instance = truth.instance_token.map({t: k for k, t in enumerate(scene.instance_token)}).to_numpy()
    before = np.searchsorted(scene.keyframe_us, truth.timestamp.to_numpy(), side="right") - 1
    known = (grid[instance, before] >= 0) & (grid[instance, before + 1] >= 0)
    rows, instance = truth[known], instance[known]
    image = np.searchsorted(views.time_us, rows.timestamp.to_numpy())
    turn, move = geometry.camera_from_global(
        views.ego_origin, geometry.rotation_matrices(views.ego_rotation), views.camera_origin,
        geometry.rotation_matrices(views.camera_rotation),
    )  # fmt: skip
    centre = np.einsum("nij,nj->ni", turn[image], rows[["x", "y", "z"]].to_numpy()) + move[image]
    rotation = turn[image] @ geometry.rotation_matrices(rows[["qw", "qx", "qy", "qz"]].to_numpy())
    got = projection.project_boxes(centre, rotation, rows[["w", "l", "h"]].to_numpy(), views.intrinsics[image],
                                   views.size_px[image])  # fmt: skip
    seen = got.seen & (got.box_px[:, 2:] - got.box_px[:, :2] >= 1).all(axis=1)
    return frame_of(image[seen], instance[seen], got.box_px[seen])


# --- synthetic
# ----------------------------------------------------------------------------------------------------


def synthetic(name: str, spec: WorldSpec, scenes: int, work: Path) -> None:
    """All three rules, and the devkit's own 2-D rule on our 3-D interpolation."""
    write_database(work, "v1.0-synthetic", spec, 11, scene_pool(scenes, None))
    index = open_index(open_tables(work, "v1.0-synthetic", work / "cache"))
    truth = pq.read_table(work / "truth.parquet")
    image, instance = (truth[n].to_numpy(zero_copy_only=False) for n in ("sample_data_token", "instance_token"))
    box = np.stack([truth[c].to_numpy() for c in ("x1_px", "y1_px", "x2_px", "y2_px")], axis=1)
    true = frame_of(image, instance, box)
    for rule in RULES:
        sys.stdout.write(quality(name, rule, true, pd.concat(labelled(index, rule))))


def labelled(index: SceneIndex, rule: Interpolation) -> Iterator[pd.DataFrame]:
    """Labels of every image of every scene and camera, by tokens."""
    for row in range(len(index.scenes())):
        scene = index.load(row)
        for camera in range(len(CAMERAS)):
            images = scene.camera(camera)
            got = label(scene, camera, images, rule)
            tokens, names = np.array(images.token, object), np.array(scene.instance_token, object)
            yield frame_of(tokens[got.image], names[got.instance], got.box_px)


def main() -> None:
    """Print the label-quality table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("real_log", type=Path, nargs="?")
    parser.add_argument("--scenes", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        if options.real_log:
            real_log(options.real_log, Path(work) / "cache")
        else:
            sys.stdout.write(HEADER)
        turning, straight = WorldSpec(), WorldSpec(ego_yaw_rate_rad_s=0.0)
        synthetic("synthetic, turning up to 25°/s", turning, options.scenes, Path(work) / "turning")
        synthetic("synthetic, straight", straight, options.scenes, Path(work) / "straight")


if __name__ == "__main__":
    main()
