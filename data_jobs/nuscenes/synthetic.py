"""Synthetic nuScenes: the 13 JSON tables of a world whose truth is known, the truth itself, and a noisy
detector.

In: a WorldSpec and a seed. Out: `OUT/<version>/*.json`, `truth.parquet`, `detections.parquet`. Called by the
command line, the tests and the benchmarks. No image files: `filename` points at nothing, as `convert` allows.

`truth.parquet` holds, per image and object, the box of the true pose at the image's own time.
`detections.parquet` is what a detector with 3 % box noise would report: objects hidden by nearer ones are
missed more often and score lower.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_jobs.nuscenes import geometry, projection
from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.nuscenes.schema import CAMERAS, CLASS_OF_CATEGORY, CLASSES, SCHEMAS, VOID_OF_CATEGORY
from data_jobs.nuscenes.splits import split_table
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

# The detector's noise, relative to the box: the value of the tracking pilot's detector (3 % of width and
# height).
BOX_NOISE = 0.03
FALSE_POSITIVES_PER_IMAGE = 0.3
Record = dict[str, Any]


def token(*parts: object) -> str:
    """A 32-digit hex token that depends on `parts` only; in no order, like real ones."""
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).hexdigest()


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
            views = {camera: _view(scene, camera) for camera in CAMERAS}
            _write_scene(sinks, name, scene, spec, views)
            if with_truth:
                truth.append(_truth_table(name, scene, spec, views))
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


# --- what the cameras see
# -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _View:
    """True boxes of one camera: M sightings of object `body` in image `image`."""

    image: np.ndarray  # (M,)
    body: np.ndarray  # (M,)
    box_px: FloatArray  # (M, 4)
    depth_m: FloatArray  # (M,) of the centre
    hidden: FloatArray  # (M,) largest share of the box that one nearer box covers

    def chosen(self, rows: np.ndarray) -> _View:
        return _View(*(getattr(self, field.name)[rows] for field in fields(self)))


def _view(scene: SyntheticScene, camera: str) -> _View:
    time_s = scene.image_s[camera]
    position, yaw = scene.objects.at(time_s)
    ego_position, ego_yaw = scene.ego.at(time_s)
    n, q = yaw.shape
    image, body = (np.asarray(grid).ravel() for grid in np.meshgrid(np.arange(q), np.arange(n)))
    centre = np.concatenate([position.reshape(-1, 2), (scene.size_m[body, 2] / 2)[:, None]], axis=1)
    rotation, move = geometry.camera_from_global(
        np.concatenate([ego_position[0], np.zeros((q, 1))], axis=1),
        geometry.rotation_matrices(geometry.yaw_quaternions(ego_yaw[0])),
        np.tile(RIG[camera][2], (q, 1)),
        np.tile(geometry.rotation_matrices(camera_rotation(camera)), (q, 1, 1)),
    )
    seen_from = np.einsum("nij,nj->ni", rotation[image], centre) + move[image]
    matrix = np.broadcast_to(camera_intrinsics(camera), (len(image), 3, 3))
    size_px = np.broadcast_to(np.array(IMAGE_WH, dtype=np.float64), (len(image), 2))
    radius = np.linalg.norm(scene.size_m[body], axis=1) / 2
    near = np.flatnonzero(projection.may_be_seen(seen_from, radius, matrix, size_px))
    seen_from, size_m, yaw_near = seen_from[near], scene.size_m[body[near]], yaw.ravel()[near]
    turn = rotation[image[near]] @ geometry.rotation_matrices(geometry.yaw_quaternions(yaw_near))
    got = projection.project_boxes(seen_from, turn, size_m, matrix[near], size_px[near])
    kept = np.flatnonzero(got.seen & (got.box_px[:, 2:] - got.box_px[:, :2] >= 1).all(axis=1))
    kept = kept[np.lexsort((body[near][kept], image[near][kept]))]
    view = (image[near][kept], body[near][kept], got.box_px[kept], seen_from[kept, 2])
    return _View(*view, hidden=_hidden(*view))


def _hidden(image: np.ndarray, body: np.ndarray, box: FloatArray, depth: FloatArray) -> FloatArray:
    """For each sighting, the largest share of its box that one nearer box in the same image covers."""
    hidden = np.zeros(len(image))
    bounds = np.flatnonzero(np.diff(image, prepend=-1, append=-2))
    for start, end in pairwise(bounds.tolist()):
        mine = box[start:end]
        low = np.maximum(mine[:, None, :2], mine[None, :, :2])
        side = np.clip(np.minimum(mine[:, None, 2:], mine[None, :, 2:]) - low, 0, None)
        nearer = depth[None, start:end] < depth[start:end, None]
        share = side.prod(axis=2) * nearer / (mine[:, 2:] - mine[:, :2]).prod(axis=1)[:, None]
        hidden[start:end] = share.max(axis=1, initial=0)
    return hidden


def annotated(scene: SyntheticScene, spec: WorldSpec) -> np.ndarray:
    """(N, K): which objects are in annotation range at which keyframes."""
    position, _ = scene.objects.at(scene.keyframe_s)
    (ego,), _ = scene.ego.at(scene.keyframe_s)
    return np.linalg.norm(position - ego, axis=2) <= spec.range_m


def _truth_table(name: str, scene: SyntheticScene, spec: WorldSpec, views: dict[str, _View]) -> pa.Table:
    """Sightings that can be labelled: of the seven classes or void, annotated at both ends of the image's
    interval."""
    parts, known = [], annotated(scene, spec)
    for camera, whole in views.items():
        before = np.clip(
            np.searchsorted(scene.keyframe_s, scene.image_s[camera], side="right") - 1, 0, known.shape[1] - 2
        )
        own = scene.image_keyframe[camera][whole.image]
        bounded = known[whole.body, before[whole.image]] & known[whole.body, before[whole.image] + 1]
        view = whole.chosen(bounded | (own >= 0) & known[whole.body, own])
        category = np.array(scene.category, dtype=object)[view.body]
        mapped = [CLASS_OF_CATEGORY.get(c, VOID_OF_CATEGORY.get(c)) for c in category]
        rows = np.flatnonzero([m is not None for m in mapped])
        image, body = view.image[rows], view.body[rows]
        parts.append(
            pa.table(
                {
                    "scene": [name] * len(rows),
                    "camera": [camera] * len(rows),
                    "sample_data_token": [image_token(scene.number, camera, k) for k in image],
                    "instance_token": [token("instance", scene.number, k) for k in body],
                    "class_id": pa.array([CLASSES.index(mapped[r]) for r in rows], pa.int8()),
                    "void": [category[r] in VOID_OF_CATEGORY for r in rows],
                    **{axis: view.box_px[rows, k] for k, axis in enumerate(("x1_px", "y1_px", "x2_px", "y2_px"))},
                    "hidden": view.hidden[rows],
                }
            )
        )
    return pa.concat_tables(parts)


def detect(truth: pa.Table, seed: int) -> pa.Table:
    """What a detector reports on the true boxes: misses, noise, scores, false positives. Columns as track.py
    reads."""
    rng = np.random.default_rng([seed, 1])
    box = np.stack([truth[axis].to_numpy() for axis in ("x1_px", "y1_px", "x2_px", "y2_px")], axis=1)
    hidden, side = truth["hidden"].to_numpy(), box[:, 2:] - box[:, :2]
    found = rng.random(len(box)) > 0.04 + 0.9 * hidden**2
    score = np.clip(0.92 - 0.55 * hidden - 0.5 / np.sqrt(side.min(axis=1)) + rng.normal(0, 0.06, len(box)), 0.02, 0.999)
    noisy = box + rng.normal(0, BOX_NOISE, box.shape) * np.concatenate([side, side], axis=1)
    tokens = truth["sample_data_token"].take(pa.array(np.flatnonzero(found)))
    images = truth["sample_data_token"].unique()
    false = rng.integers(0, len(images), rng.poisson(FALSE_POSITIVES_PER_IMAGE * len(images)))
    centre, wide = rng.uniform(0, IMAGE_WH, (len(false), 2)), rng.uniform(20, 150, (len(false), 2))
    noisy = np.concatenate([noisy[found], np.concatenate([centre - wide / 2, centre + wide / 2], axis=1)])
    noisy = np.clip(noisy, 0, np.array(IMAGE_WH * 2))
    score = np.concatenate([score[found], rng.beta(2, 4, len(false))])
    kind = np.concatenate([truth["class_id"].to_numpy()[found], rng.integers(0, len(CLASSES), len(false))])
    side = noisy[:, 2:] - noisy[:, :2]
    table = pa.table(
        {
            "sample_data_token": pa.chunked_array([*tokens.chunks, images.take(pa.array(false))]),
            "x_px": noisy[:, 0], "y_px": noisy[:, 1], "w_px": side[:, 0], "h_px": side[:, 1],
            "score": score, "class_id": pa.array(kind, pa.int8()),
        }
    )  # fmt: skip
    return table.filter(pa.array((side >= 2).all(axis=1))).sort_by("sample_data_token")


# --- tables of one scene
# ------------------------------------------------------------------------------------------


def image_token(number: int, camera: str, index: int) -> str:
    """Token of one image, which is also the token of its ego pose (as in nuScenes)."""
    return token("image", number, camera, index)


def _write_scene(
    sinks: dict[str, _Sink], name: str, scene: SyntheticScene, spec: WorldSpec, views: dict[str, _View]
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


def _levels(scene: SyntheticScene, views: dict[str, _View]) -> np.ndarray:
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
    views: dict[str, _View],
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
