"""The scene index: all token joins done once for the whole database, one Parquet row group per scene.

In: a TableStore. Out: a SceneIndex on disk that loads one scene at a time. Called by convert.py and the
benchmarks. What is wrong with the database as a whole raises TableError; what is wrong with one scene is
noted and raises InputError when that scene is loaded, so the others still convert.
"""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_jobs.nuscenes.scenes import Scene, scene_of_rows, vectors
from data_jobs.nuscenes.schema import CAMERAS, CLASS_OF_CATEGORY, CLASSES, VOID_OF_CATEGORY
from data_jobs.nuscenes.tables import TableError, TableStore, rows_of
from data_jobs.runs.errors import InputError

# Raise when the row groups change meaning.
INDEX_VERSION = 1


@dataclass(frozen=True, slots=True)
class SceneIndex:
    """All scenes of a database on disk; cheap to send to a worker."""

    folder: Path
    content_sha256: str

    def scenes(self) -> pa.Table:
        """One row per scene in name order: name, token, samples, images, problem ("" when there is none)."""
        return pq.read_table(self.folder / "scenes.parquet")

    def load(self, row: int) -> Scene:
        """One scene. Raises InputError, naming table, token and field, if its records cannot be converted."""
        head = self.scenes().slice(row, 1).to_pylist()[0]
        if head["problem"]:
            raise InputError(head["problem"])
        annotation = pq.ParquetFile(self.folder / "annotations.parquet").read_row_group(row)
        image = pq.ParquetFile(self.folder / "images.parquet").read_row_group(row)
        return scene_of_rows(head, annotation, image)


def open_index(store: TableStore) -> SceneIndex:
    """The scene index beside the cached tables, built on first use. Raises TableError."""
    folder = store.folder / f"scenes-{INDEX_VERSION}"
    if not (folder / "scenes.parquet").is_file():
        staged = store.folder / f".{folder.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        staged.mkdir()
        try:
            _build(store, staged)
            try:
                staged.rename(folder)
            except OSError:
                if not (folder / "scenes.parquet").is_file():  # else another process was first
                    raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return SceneIndex(folder, store.content_sha256)


def _build(store: TableStore, folder: Path) -> None:
    scene = store.read("scene", ["token", "name"]).sort_by("name")
    problems: dict[int, str] = {}
    sample, sample_row_of = _samples(store, scene, problems)
    images = _images(store, sample_row_of, sample, problems)
    annotations = _annotations(store, sample_row_of, sample, problems)
    _write_groups(folder / "annotations.parquet", annotations, len(scene))
    _write_groups(folder / "images.parquet", images, len(scene))
    starts = np.searchsorted(sample["scene"], np.arange(len(scene) + 1))
    times = [sample["timestamp"][a:b] for a, b in pairwise(starts.tolist())]
    seen = np.bincount(images["scene"].to_numpy(), minlength=len(scene))
    for row in np.flatnonzero(np.diff(starts) < 2):
        problems.setdefault(int(row), f"scene {scene['name'][int(row)]} has fewer than two samples")
    table = pa.table(
        {
            "name": scene["name"], "token": scene["token"], "keyframe_us": pa.array(times, pa.list_(pa.int64())),
            "images": seen, "problem": [problems.get(row, "") for row in range(len(scene))],
        }
    )  # fmt: skip
    pq.write_table(table, folder / "scenes.parquet")


def _samples(
    store: TableStore, scene: pa.Table, problems: dict[int, str]
) -> tuple[dict[str, np.ndarray], pa.ChunkedArray]:
    """Samples by scene and time: their scene row, keyframe index and timestamp; and the table's tokens in
    that order."""
    table = store.read("sample")
    scene_row = rows_of(table["scene_token"], scene["token"], table["token"], "sample.scene_token → scene")
    time = table["timestamp"].to_numpy()
    check_chain(table, "sample", scene_row, time, problems)
    order = np.lexsort((time, scene_row))
    scene_row, time = scene_row[order], time[order]
    first = np.searchsorted(scene_row, scene_row)
    columns = {"scene": scene_row, "keyframe": np.arange(len(order)) - first, "timestamp": time}
    return columns, table["token"].take(pa.array(order))


def check_chain(table: pa.Table, name: str, scene_row: np.ndarray, time: np.ndarray, problems: dict[int, str]) -> None:
    """Note for each scene the first record whose `next` is not later than itself, or lies in another
    scene."""
    linked = np.flatnonzero(pc.not_equal(table["next"], "").to_numpy())
    tokens = table["token"]
    after = rows_of(
        table["next"].take(pa.array(linked)), tokens, tokens.take(pa.array(linked)), f"{name}.next → {name}"
    )
    wrong = (time[after] <= time[linked]) | (scene_row[after] != scene_row[linked])
    for row in linked[wrong][::-1]:
        problems[int(scene_row[row])] = (
            f"table {name}, token {tokens[int(row)].as_py()}: field next leads to a record that is not later; "
            f"timestamps must increase along the chain"
        )


def _images(
    store: TableStore, sample_tokens: pa.ChunkedArray, sample: dict[str, np.ndarray], problems: dict[int, str]
) -> pa.Table:
    """Camera images by scene, camera and time with pose and calibration joined in."""
    calibration, pose = (
        store.read("calibrated_sensor"),
        store.read("ego_pose", ["token", "translation", "rotation"]),
    )
    sensor = store.read("sensor", ["token", "channel"])
    sensor_row = rows_of(
        calibration["sensor_token"],
        sensor["token"],
        calibration["token"],
        "calibrated_sensor.sensor_token → sensor",
    )
    channel = pc.index_in(sensor["channel"], value_set=pa.array(CAMERAS)).fill_null(-1).to_numpy()[sensor_row]
    table = store.read("sample_data")
    tokens = table["token"]
    calibrated = rows_of(
        table["calibrated_sensor_token"], calibration["token"], tokens,
        "sample_data.calibrated_sensor_token → calibrated_sensor",
    )  # fmt: skip
    chosen = np.flatnonzero(channel[calibrated] >= 0)
    table, calibrated = table.take(pa.array(chosen)), calibrated[chosen]
    posed = rows_of(table["ego_pose_token"], pose["token"], table["token"], "sample_data.ego_pose_token → ego_pose")
    sampled = rows_of(table["sample_token"], sample_tokens, table["token"], "sample_data.sample_token → sample")
    scene_row, time = sample["scene"][sampled], table["timestamp"].to_numpy()
    check_chain(table, "sample_data", scene_row, time, problems)
    key = table["is_key_frame"].to_numpy(zero_copy_only=False)
    intrinsics = _intrinsics(calibration, calibrated, channel, scene_row, problems)
    order = np.lexsort((time, channel[calibrated], scene_row))
    take = pa.array(order)
    return pa.table(
        {
            "scene": scene_row[order], "camera": channel[calibrated][order], "timestamp": time[order],
            "keyframe": np.where(key, sample["keyframe"][sampled], -1)[order], "token": table["token"].take(take),
            "filename": table["filename"].take(take), "width": table["width"].take(take),
            "height": table["height"].take(take), "ego_translation": pose["translation"].take(pa.array(posed[order])),
            "ego_rotation": pose["rotation"].take(pa.array(posed[order])),
            "camera_translation": calibration["translation"].take(pa.array(calibrated[order])),
            "camera_rotation": calibration["rotation"].take(pa.array(calibrated[order])),
            "intrinsics": intrinsics.take(pa.array(calibrated[order])),
        }
    )  # fmt: skip


def _intrinsics(
    calibration: pa.Table,
    calibrated: np.ndarray,
    channel: np.ndarray,
    scene_row: np.ndarray,
    problems: dict[int, str],
) -> pa.Array:
    """Intrinsics per calibration row as nine numbers; a camera without 3 × 3 intrinsics is its scenes'
    problem."""
    rows = [[value for line in matrix for value in line] for matrix in calibration["camera_intrinsic"].to_pylist()]
    for row in np.flatnonzero([len(nine) != 9 for nine in rows] & (channel >= 0)):
        for scene in np.unique(scene_row[calibrated == row]):
            problems[int(scene)] = (
                f"table calibrated_sensor, token {calibration['token'][int(row)].as_py()}: field camera_intrinsic is "
                f"not 3 × 3, so the images of {CAMERAS[channel[row]]} cannot be labelled"
            )
    return pa.array([nine if len(nine) == 9 else [0.0] * 9 for nine in rows], pa.list_(pa.float64(), 9))


def _annotations(
    store: TableStore, sample_tokens: pa.ChunkedArray, sample: dict[str, np.ndarray], problems: dict[int, str]
) -> pa.Table:
    """Boxes of the seven classes and their void subclasses, by scene, keyframe and instance token."""
    instance, category = store.read("instance", ["token", "category_token"]), store.read("category")
    table = store.read(
        "sample_annotation",
        ["token", "sample_token", "instance_token", "visibility_token", "translation", "size", "rotation",
         "num_lidar_pts", "num_radar_pts"],
    )  # fmt: skip
    tokens = table["token"]
    instance_row = rows_of(
        table["instance_token"], instance["token"], tokens, "sample_annotation.instance_token → instance"
    )
    category_row = rows_of(
        instance["category_token"], category["token"], instance["token"], "instance.category_token → category"
    )
    level = rows_of(
        table["visibility_token"], pa.chunked_array([["1", "2", "3", "4"]]), tokens,
        "sample_annotation.visibility_token → visibility",
    )  # fmt: skip
    sampled = rows_of(table["sample_token"], sample_tokens, tokens, "sample_annotation.sample_token → sample")
    names = category["name"].to_pylist()
    mapped = [CLASS_OF_CATEGORY.get(name, VOID_OF_CATEGORY.get(name)) for name in names]
    class_id = np.array([-1 if name is None else CLASSES.index(name) for name in mapped])[category_row][instance_row]
    void = np.array([name in VOID_OF_CATEGORY for name in names])[category_row][instance_row]
    chosen = np.flatnonzero(class_id >= 0)
    order = chosen[
        np.lexsort((instance_row[chosen], sample["keyframe"][sampled[chosen]], sample["scene"][sampled[chosen]]))
    ]
    take = pa.array(order)
    columns = {
        "scene": sample["scene"][sampled[order]], "keyframe": sample["keyframe"][sampled[order]],
        "token": tokens.take(take), "instance_token": table["instance_token"].take(take),
        "category": category["name"].take(pa.array(category_row[instance_row[order]])),
        "class_id": class_id[order], "void": void[order], "level": level[order] + 1,
        "points": (table["num_lidar_pts"].to_numpy() + table["num_radar_pts"].to_numpy())[order],
        "translation": table["translation"].take(take), "size": table["size"].take(take),
        "rotation": table["rotation"].take(take),
    }  # fmt: skip
    result = pa.table(columns)
    _check_boxes(result, problems)
    return result


def _check_boxes(annotations: pa.Table, problems: dict[int, str]) -> None:
    """Note zero sizes, rotations without direction, and instances that stand twice in a keyframe."""
    scene, tokens = annotations["scene"].to_numpy(), annotations["token"]
    flat = (vectors(annotations["size"]) <= 0).any(axis=1)
    turned = np.abs(np.linalg.norm(vectors(annotations["rotation"]), axis=1) - 1) > 0.01
    keyframe, instance = annotations["keyframe"].to_numpy(), annotations["instance_token"]
    twice = np.zeros(len(annotations), dtype=bool)
    twice[1:] = (np.diff(scene) == 0) & (np.diff(keyframe) == 0)
    twice[1:] &= pc.equal(instance[1:], instance[:-1]).to_numpy()
    for bad, what in (
        (flat, "field size is not positive in all three directions"),
        (turned, "field rotation is not a unit quaternion"),
        (twice, "its instance stands twice in one sample"),
    ):
        for row in np.flatnonzero(bad)[::-1]:
            problems[int(scene[row])] = f"table sample_annotation, token {tokens[int(row)].as_py()}: {what}"


def _write_groups(path: Path, table: pa.Table, scenes: int) -> None:
    """One row group per scene, in scene order, empty ones included. Raises TableError for a scene out of
    range."""
    scene = table["scene"].to_numpy()
    if len(scene) and scene[-1] >= scenes:
        raise TableError(f"{path.name} refers to scene {scene[-1]} of {scenes}")
    bounds = np.searchsorted(scene, np.arange(scenes + 1))
    with pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1) as writer:
        for start, end in pairwise(bounds.tolist()):
            writer.write_table(table.slice(start, end - start), row_group_size=max(1, end - start))
