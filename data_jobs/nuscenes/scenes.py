"""One scene in memory: keyframes, annotations, instances and camera images as read-only arrays.

In: rows of the scene index. Out: Scene and Images records. Made by scene_index.py, read by label.py,
sequences.py and the benchmarks. Knows nothing of tables, files or projection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.nuscenes.geometry import FloatArray


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene: K keyframes, A annotations of I instances, N camera images. Times are microseconds,
    int64."""

    name: str
    token: str
    keyframe_us: np.ndarray  # (K,) strictly increasing; the lidar's times, at which the boxes were annotated
    annotation_keyframe: np.ndarray  # (A,) int64 index into the keyframes
    annotation_instance: np.ndarray  # (A,) int64 index into the instances
    centre_m: FloatArray  # (A, 3) global frame
    rotation: FloatArray  # (A, 4) w x y z
    size_m: FloatArray  # (A, 3) width, length, height
    level: np.ndarray  # (A,) int64 nuScenes visibility level 1..4
    points: np.ndarray  # (A,) int64 lidar and radar points in the box
    instance_token: tuple[str, ...]  # (I,) ordered by first keyframe, then token: the dense ids minus one
    instance_category: tuple[str, ...]
    instance_class: np.ndarray  # (I,) int64 index into CLASSES
    instance_void: np.ndarray  # (I,) bool
    image: pa.Table  # (N) rows by camera and time: see `_images` in scene_index.py

    def camera(self, index: int) -> Images:
        """The images of one camera, in time order."""
        return Images.of(self.image.filter(pc.equal(self.image["camera"], index)))


@dataclass(frozen=True, slots=True)
class Images:
    """N images of one camera with their own time, ego pose and calibration."""

    time_us: np.ndarray  # (N,) int64
    keyframe: np.ndarray  # (N,) int64 index of the keyframe it is the image of, −1 between keyframes
    token: list[str]
    filename: list[str]
    size_px: FloatArray  # (N, 2) width, height
    ego_origin: FloatArray  # (N, 3)
    ego_rotation: FloatArray  # (N, 4)
    camera_origin: FloatArray  # (N, 3)
    camera_rotation: FloatArray  # (N, 4)
    intrinsics: FloatArray  # (N, 3, 3)

    @classmethod
    def of(cls, table: pa.Table) -> Images:
        """From rows of a scene's image table."""
        return cls(
            time_us=table["timestamp"].to_numpy(),
            keyframe=table["keyframe"].to_numpy(),
            token=table["token"].to_pylist(),
            filename=table["filename"].to_pylist(),
            size_px=np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1).astype(np.float64),
            ego_origin=vectors(table["ego_translation"]),
            ego_rotation=vectors(table["ego_rotation"]),
            camera_origin=vectors(table["camera_translation"]),
            camera_rotation=vectors(table["camera_rotation"]),
            intrinsics=vectors(table["intrinsics"]).reshape(-1, 3, 3),
        )


def vectors(column: pa.ChunkedArray) -> FloatArray:
    """A fixed-size-list column as (N, K) float64."""
    whole = column.combine_chunks()
    return whole.flatten().to_numpy().reshape(len(whole), whole.type.list_size)


def scene_of_rows(head: dict[str, object], annotation: pa.Table, image: pa.Table) -> Scene:
    """A Scene from one row of the index and its row groups: instances are numbered by first appearance."""
    token = annotation["instance_token"].to_numpy(zero_copy_only=False).astype(str)
    keyframe = annotation["keyframe"].to_numpy()
    unique, first_row, inverse = np.unique(token, return_index=True, return_inverse=True)
    order = np.lexsort((unique, keyframe[first_row]))  # rows are in keyframe order, so the first row is the earliest
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    category = annotation["category"].to_numpy(zero_copy_only=False)[first_row[order]]
    return Scene(
        name=str(head["name"]),
        token=str(head["token"]),
        keyframe_us=np.asarray(head["keyframe_us"], dtype=np.int64),
        annotation_keyframe=keyframe,
        annotation_instance=rank[inverse],
        centre_m=vectors(annotation["translation"]),
        rotation=vectors(annotation["rotation"]),
        size_m=vectors(annotation["size"]),
        level=annotation["level"].to_numpy(),
        points=annotation["points"].to_numpy(),
        instance_token=tuple(unique[order].tolist()),
        instance_category=tuple(category),
        instance_class=annotation["class_id"].to_numpy()[first_row[order]],
        instance_void=annotation["void"].to_numpy(zero_copy_only=False)[first_row[order]],
        image=image,
    )
