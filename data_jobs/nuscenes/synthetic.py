"""Synthetic nuScenes: the 13 JSON tables of a world whose truth is known, the truth itself, and a noisy
detector.

In: a WorldSpec and a seed. Out: `OUT/<version>/*.json`, `truth.parquet`, `detections.parquet`. Called by the
command line, the tests and the benchmarks. No image files: `filename` points at nothing, as `convert` allows.

`truth.parquet` holds, per image and object, the box of the true pose at the image's own time.
`detections.parquet` is what a detector with 3 % box noise would report: objects hidden by nearer ones are
missed more often and score lower.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_jobs.nuscenes import geometry
from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.nuscenes.schema import CAMERAS, SCHEMAS
from data_jobs.nuscenes.splits import split_table
from data_jobs.nuscenes.synthetic_truth import View, annotated, detect, image_token, token, truth_table, view_of
from data_jobs.nuscenes.synthetic_world import (
    EPOCH_US,
    IMAGE_WH,
    LIDAR_PERIOD_S,
    POPULATION,
    RIG,
    SyntheticScene,
    WorldSpec,
    camera_intrinsics,
    camera_rotation,
    make_scene,
)
from data_jobs.runs.errors import RunError

Record = dict[str, Any]


def scene_pool(scenes: int, split: str | None) -> list[str]:
    """Official scene names, spread evenly over the lists. Raises RunError when there are not that many."""
    table = split_table("v1.0-synthetic")
    names = sorted(name for name, part in table.items() if split in (None, part))
    if not 1 <= scenes <= len(names):
        raise RunError(f"cannot make {scenes} scenes: there are 1 to {len(names)} official names in {split or 'all'}")
    return [names[k * len(names) // scenes] for k in range(scenes)]


def write_database(
    output: Path,
    version: str,
    spec: WorldSpec,
    seed: int,
    names: list[str],
    samples: int | None = None,
    with_truth: bool = True,
) -> None:
    """Write the tables, and the truth and detections unless told otherwise.

    `samples` is the total number of keyframes over all scenes (default: what the spec's seconds give).
    """
    folder = output / version
    folder.mkdir(parents=True, exist_ok=True)
    counts = [None] * len(names) if samples is None else np.diff(np.arange(len(names) + 1) * samples // len(names))
    with ExitStack() as stack:
        sinks = {table: _Sink(stack.enter_context((folder / f"{table}.json").open("w"))) for table in SCHEMAS}
        _write_fixed(sinks)
        truth: list[pa.Table] = []
        for number, (name, count) in enumerate(zip(names, counts, strict=True)):
            scene = make_scene(spec, seed, number, None if count is None else int(count))
            views = {camera: view_of(scene, camera) for camera in CAMERAS}
            _write_scene(sinks, name, scene, spec, views)
            if with_truth:
                truth.append(truth_table(name, scene, spec, views))
        for sink in sinks.values():
            sink.close()
    if with_truth:
        whole = pa.concat_tables(truth)
        pq.write_table(whole, output / "truth.parquet")
        pq.write_table(detect(whole, seed), output / "detections.parquet")


class _Sink:
    """A JSON array on disk, one record per line."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.before = file, "[\n"

    def add(self, record: Record) -> None:
        self.file.write(self.before + json.dumps(record))
        self.before = ",\n"

    def close(self) -> None:
        self.file.write("\n]\n" if self.before == ",\n" else "[]\n")


def _write_fixed(sinks: dict[str, _Sink]) -> None:
    """The records that all scenes share: categories, sensors, calibration, visibility levels, one log and
    map."""
    for name in POPULATION:
        sinks["category"].add({"token": token("category", name), "name": name, "description": "synthetic"})
    for level, span in enumerate(("v0-40", "v40-60", "v60-80", "v80-100"), start=1):
        sinks["visibility"].add({"token": str(level), "level": span, "description": ""})
    sinks["log"].add(
        {"token": token("log"), "logfile": "synthetic", "vehicle": "", "date_captured": "", "location": ""}
    )
    sinks["map"].add(
        {"token": token("map"), "category": "semantic_prior", "filename": "", "log_tokens": [token("log")]}
    )
    sensors = [(camera, "camera", camera_rotation(camera).tolist(), RIG[camera][2]) for camera in CAMERAS]
    for channel, modality, rotation, origin in [
        *sensors,
        ("LIDAR_TOP", "lidar", [1.0, 0.0, 0.0, 0.0], (0.9, 0, 1.8)),
    ]:
        sinks["sensor"].add({"token": token("sensor", channel), "channel": channel, "modality": modality})
        intrinsics = camera_intrinsics(channel).tolist() if modality == "camera" else []
        sinks["calibrated_sensor"].add(
            {"token": token("calibration", channel), "sensor_token": token("sensor", channel),
             "translation": list(origin), "rotation": rotation, "camera_intrinsic": intrinsics}
        )  # fmt: skip


# --- tables of one scene
# ------------------------------------------------------------------------------------------


def _write_scene(
    sinks: dict[str, _Sink], name: str, scene: SyntheticScene, spec: WorldSpec, views: dict[str, View]
) -> None:
    samples = [token("sample", scene.number, k) for k in range(len(scene.keyframe_s))]
    sinks["scene"].add(
        {"token": token("scene", scene.number), "log_token": token("log"), "nbr_samples": len(samples),
         "first_sample_token": samples[0], "last_sample_token": samples[-1], "name": name, "description": "synthetic"}
    )  # fmt: skip
    for k, at in enumerate(microseconds(scene, scene.keyframe_s)):
        prev, after = _neighbours(samples, k)
        sinks["sample"].add(
            {
                "token": samples[k],
                "timestamp": at,
                "prev": prev,
                "next": after,
                "scene_token": token("scene", scene.number),
            }
        )
    for camera in CAMERAS:
        _write_sensor(sinks, scene, camera, scene.image_s[camera], scene.image_keyframe[camera], samples)
    sweeps, of_keyframe = _lidar_sweeps(scene)
    _write_sensor(sinks, scene, "LIDAR_TOP", sweeps, of_keyframe, samples)
    _write_annotations(sinks, scene, spec, views, samples)


def microseconds(scene: SyntheticScene, time_s: FloatArray) -> list[int]:
    """Scene time in seconds → integer microseconds; scenes lie two minutes apart."""
    return (EPOCH_US + scene.number * 120_000_000 + np.rint(time_s * 1e6).astype(np.int64)).tolist()


def _neighbours(tokens: list[str], k: int) -> tuple[str, str]:
    return (tokens[k - 1] if k else "", tokens[k + 1] if k + 1 < len(tokens) else "")


def _lidar_sweeps(scene: SyntheticScene) -> tuple[FloatArray, np.ndarray]:
    steps = np.rint(np.diff(scene.keyframe_s) / LIDAR_PERIOD_S).astype(int)
    count = int(steps.sum()) + 1
    of_keyframe = np.full(count, -1)
    of_keyframe[np.concatenate([[0], np.cumsum(steps)])] = np.arange(len(scene.keyframe_s))
    return scene.keyframe_s[0] + np.arange(count) * LIDAR_PERIOD_S, of_keyframe


def _write_sensor(
    sinks: dict[str, _Sink],
    scene: SyntheticScene,
    channel: str,
    time_s: FloatArray,
    keyframe: np.ndarray,
    samples: list[str],
) -> None:
    """sample_data and ego_pose of one sensor. A record between keyframes belongs to the NEXT sample, as in
    nuScenes."""
    (position,), (yaw,) = scene.ego.at(time_s)
    rotation = geometry.yaw_quaternions(yaw)
    tokens = [image_token(scene.number, channel, k) for k in range(len(time_s))]
    after = np.searchsorted(scene.keyframe_s, time_s)
    width, height = IMAGE_WH if channel in CAMERAS else (0, 0)
    suffix = "jpg" if channel in CAMERAS else "pcd"
    for k, at in enumerate(microseconds(scene, time_s)):
        key = keyframe[k] >= 0
        sample = samples[keyframe[k] if key else min(int(after[k]), len(samples) - 1)]
        prev, later = _neighbours(tokens, k)
        sinks["ego_pose"].add(
            {
                "token": tokens[k],
                "timestamp": at,
                "rotation": rotation[k].tolist(),
                "translation": [*position[k].tolist(), 0.0],
            }
        )
        sinks["sample_data"].add(
            {"token": tokens[k], "sample_token": sample, "ego_pose_token": tokens[k],
             "calibrated_sensor_token": token("calibration", channel), "timestamp": at, "fileformat": suffix,
             "is_key_frame": bool(key), "height": height, "width": width,
             "filename": f"{'samples' if key else 'sweeps'}/{channel}/{at}.{suffix}", "prev": prev, "next": later}
        )  # fmt: skip


def _levels(scene: SyntheticScene, views: dict[str, View]) -> np.ndarray:
    """Visibility level 1..4 (N, K): the best view that any camera has of the object at the keyframe."""
    best = np.zeros((len(scene.category), len(scene.keyframe_s)))
    for camera, view in views.items():
        keyframe = scene.image_keyframe[camera][view.image]
        key = keyframe >= 0
        np.maximum.at(best, (view.body[key], keyframe[key]), 1 - view.hidden[key])
    return 1 + np.digitize(best, [0.4, 0.6, 0.8])


def _write_annotations(
    sinks: dict[str, _Sink],
    scene: SyntheticScene,
    spec: WorldSpec,
    views: dict[str, View],
    samples: list[str],
) -> None:
    position, yaw = scene.objects.at(scene.keyframe_s)
    near = annotated(scene, spec)
    levels, rotation = _levels(scene, views), geometry.yaw_quaternions(yaw)
    for body in np.flatnonzero(near.any(axis=1)):
        instance, present = token("instance", scene.number, body), np.flatnonzero(near[body])
        tokens = [token("annotation", scene.number, body, k) for k in present]
        sinks["instance"].add(
            {"token": instance, "category_token": token("category", scene.category[body]),
             "nbr_annotations": len(present), "first_annotation_token": tokens[0], "last_annotation_token": tokens[-1]}
        )  # fmt: skip
        for row, k in enumerate(present):
            prev, after = _neighbours(tokens, row)
            level = int(levels[body, k])
            sinks["sample_annotation"].add(
                {"token": tokens[row], "sample_token": samples[k], "instance_token": instance,
                 "visibility_token": str(level), "attribute_tokens": [],
                 "translation": [*position[body, k].tolist(), scene.size_m[body, 2] / 2],
                 "size": scene.size_m[body].tolist(), "rotation": rotation[body, k].tolist(),
                 "prev": prev, "next": after, "num_lidar_pts": 5 * level, "num_radar_pts": 0}
            )  # fmt: skip
