"""The labelling itself: which object is where in each image, from keyframe boxes to 2-D boxes at image times.

In: a Scene and images with their own times and poses. Out: Labels. Called by convert.py and the label
benchmarks. Knows nothing of files, splits or text formats.

`native` interpolates in 3-D, between two adjacent keyframes, to the image's own timestamp, and looks from
that image's own ego pose. `linear2d` and `seed` blend the clipped 2-D boxes of two keyframe images and are
kept to measure what that costs: `linear2d` with the true fraction of the interval, `seed` with the published
formula (weight i/5 for the i-th of six frames, which runs ahead of time).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_jobs.nuscenes import geometry, other_rules, projection
from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.nuscenes.scenes import Images, Scene

Interpolation = Literal["native", "linear2d", "seed"]
Rate = Literal["native", "12"]
IntArray = npt.NDArray[np.int64]

# Frames per keyframe interval on the nominal grid: 12 Hz over nuScenes' 2 Hz keyframes.
FRAMES_PER_INTERVAL = 6

# Smaller boxes are not labelled; the limit of the sequences that others already train on, pixels.
MIN_SIDE_PX = 1.0

# Pairs projected at once: 18 segments × 2 ends × 2 coordinates × 8 bytes × this is about 40 MB of scratch.
BATCH = 65_536


@dataclass(frozen=True, slots=True)
class Labels:
    """M boxes: which image (index into the images given), which instance, where."""

    image: IntArray  # (M,)
    instance: IntArray  # (M,)
    box_px: FloatArray  # (M, 4) xyxy inside the image
    truncation: FloatArray  # (M,) 0..1 share cut off by the image border; NaN where the rule cannot say
    level: IntArray  # (M,) lower of the two keyframes' visibility levels, 1..4
    centre_m: FloatArray  # (M, 3) global frame at the image's time; NaN for 2-D interpolation

    def chosen(self, rows: np.ndarray) -> Labels:
        """These rows (index or mask) only."""
        return Labels(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """P candidates: image, instance, the two annotations to blend and the weight of the second."""

    image: IntArray
    instance: IntArray
    first: IntArray
    second: IntArray
    weight: FloatArray

    def chosen(self, rows: np.ndarray) -> _Pairs:
        return _Pairs(*(getattr(self, field.name)[rows] for field in fields(self)))


def sequence_images(scene: Scene, camera: int, rate: Rate) -> Images:
    """The images of one camera that make its sequence, in time order.

    `native`: every image between the first and the last keyframe, and all keyframe images. `12`: a nominal
    grid of six instants per keyframe interval on the annotation clock, seen from ego poses interpolated
    between the images.
    """
    images = scene.camera(camera)
    if rate == "12":
        return _nominal_images(scene, images)
    first, last = scene.keyframe_us[0], scene.keyframe_us[-1]
    return take_images(images, (images.keyframe >= 0) | ((images.time_us >= first) & (images.time_us <= last)))


def take_images(images: Images, rows: np.ndarray) -> Images:
    """Some of the images, by mask or index."""
    index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    columns = {field.name: getattr(images, field.name) for field in fields(images)}
    chosen: dict[str, Any] = {
        name: [values[i] for i in index] if isinstance(values, list) else values[index]
        for name, values in columns.items()
    }
    return Images(**chosen)


def _nominal_images(scene: Scene, images: Images) -> Images:
    if len(images.time_us) < 2:
        return take_images(images, np.zeros(len(images.time_us), dtype=bool))
    keyframes = len(scene.keyframe_us)
    steps = np.arange(FRAMES_PER_INTERVAL * (keyframes - 1) + 1)
    time = np.interp(steps / FRAMES_PER_INTERVAL, np.arange(keyframes), scene.keyframe_us - scene.keyframe_us[0])
    time_us = scene.keyframe_us[0] + np.rint(time).astype(np.int64)
    after = np.clip(np.searchsorted(images.time_us, time_us), 1, len(images.time_us) - 1)
    weight = np.clip(geometry.time_fraction(time_us, images.time_us[after - 1], images.time_us[after]), 0, 1)
    near = take_images(images, np.where(weight < 0.5, after - 1, after))
    return replace(
        near,
        time_us=time_us,
        keyframe=np.where(steps % FRAMES_PER_INTERVAL == 0, steps // FRAMES_PER_INTERVAL, -1),
        ego_origin=geometry.lerp(images.ego_origin[after - 1], images.ego_origin[after], weight),
        ego_rotation=geometry.slerp(images.ego_rotation[after - 1], images.ego_rotation[after], weight),
    )


def annotation_grid(scene: Scene) -> IntArray:
    """(I, K): row of the annotation of instance i at keyframe k, −1 where it has none."""
    grid = np.full((len(scene.instance_token), len(scene.keyframe_us)), -1, dtype=np.int64)
    grid[scene.annotation_instance, scene.annotation_keyframe] = np.arange(len(scene.annotation_keyframe))
    return grid


def label(scene: Scene, camera: int, images: Images, interpolation: Interpolation) -> Labels:
    """Labels of all images of one camera, sorted by image and instance."""
    if interpolation == "native":
        return label_native(scene, images)
    return label_flat(
        scene, take_images(scene.camera(camera), scene.camera(camera).keyframe >= 0), images, interpolation
    )


# --- 3-D, at the image's own time and pose
# ----------------------------------------------------------------------


def label_native(scene: Scene, images: Images) -> Labels:
    """3-D interpolation at image time, own ego pose, near-plane clipping."""
    pairs = _pairs_3d(scene, images)
    parts = [_project(scene, images, pairs.chosen(np.arange(a, min(a + BATCH, len(pairs.image)))))
             for a in range(0, max(1, len(pairs.image)), BATCH)]  # fmt: skip
    whole = Labels(*(np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(Labels)))
    return whole.chosen(np.lexsort((whole.instance, whole.image)))


def _pairs_3d(scene: Scene, images: Images) -> _Pairs:
    """Objects annotated at both ends of the image's keyframe interval; a keyframe image keeps all of its
    keyframe.

    An object that a keyframe image shows but the image's own interval does not bound (it appears or leaves
    there, or the image was taken just before the first or after the last keyframe) is continued from the
    interval on the other side, or stands still if it was annotated once only. That reaches over the camera's
    trigger offset, not further.
    """
    grid, keyframe_us = annotation_grid(scene), scene.keyframe_us
    before = np.clip(np.searchsorted(keyframe_us, images.time_us, side="right") - 1, 0, len(keyframe_us) - 2)
    first, second = grid.T[before], grid.T[before + 1]  # (N, I)
    image, instance = np.nonzero((first >= 0) & (second >= 0))
    k = before[image]
    bounded = _Pairs(
        image, instance, first[image, instance], second[image, instance],
        geometry.time_fraction(images.time_us[image], keyframe_us[k], keyframe_us[k + 1]),
    )  # fmt: skip
    own = grid.T[np.maximum(images.keyframe, 0)]
    extra = (images.keyframe >= 0)[:, None] & (own >= 0) & ~((first >= 0) & (second >= 0))
    return _joined(bounded, _continued(scene, images, grid, *np.nonzero(extra)))


def _continued(scene: Scene, images: Images, grid: IntArray, image: IntArray, instance: IntArray) -> _Pairs:
    keyframe, last = images.keyframe[image], len(scene.keyframe_us) - 1
    start = np.where(images.time_us[image] < scene.keyframe_us[keyframe], keyframe, keyframe - 1)
    first = grid[instance, np.clip(start, 0, last)]
    second = grid[instance, np.clip(start + 1, 0, last)]
    moving = (start >= 0) & (start < last) & (first >= 0) & (second >= 0)
    own = grid[instance, keyframe]
    a, b = scene.keyframe_us[np.clip(start, 0, last - 1)], scene.keyframe_us[np.clip(start, 0, last - 1) + 1]
    weight = np.where(moving, geometry.time_fraction(images.time_us[image], a, b), 0.0)
    return _Pairs(image, instance, np.where(moving, first, own), np.where(moving, second, own), weight)


def _joined(a: _Pairs, b: _Pairs) -> _Pairs:
    return _Pairs(*(np.concatenate([getattr(a, f.name), getattr(b, f.name)]) for f in fields(_Pairs)))


def _project(scene: Scene, images: Images, pairs: _Pairs) -> Labels:
    """Blend in 3-D, drop what the camera cannot see, then turn and project the rest."""
    centre = geometry.lerp(scene.centre_m[pairs.first], scene.centre_m[pairs.second], pairs.weight)
    rotation, move = geometry.camera_from_global(
        images.ego_origin, geometry.rotation_matrices(images.ego_rotation),
        images.camera_origin, geometry.rotation_matrices(images.camera_rotation),
    )  # fmt: skip
    size = scene.size_m[pairs.second]
    seen_from = np.einsum("nij,nj->ni", rotation[pairs.image], centre) + move[pairs.image]
    near = projection.may_be_seen(
        seen_from,
        np.linalg.norm(size, axis=1) / 2,
        images.intrinsics[pairs.image],
        images.size_px[pairs.image],
    )
    pairs, centre, seen_from, size = pairs.chosen(near), centre[near], seen_from[near], size[near]
    turn = geometry.slerp(scene.rotation[pairs.first], scene.rotation[pairs.second], pairs.weight)
    got = projection.project_boxes(
        seen_from, rotation[pairs.image] @ geometry.rotation_matrices(turn), size,
        images.intrinsics[pairs.image], images.size_px[pairs.image],
    )  # fmt: skip
    labels = Labels(
        pairs.image, pairs.instance, got.box_px, got.truncation,
        np.minimum(scene.level[pairs.first], scene.level[pairs.second]), centre,
    )  # fmt: skip
    return labels.chosen(got.seen & _big_enough(got.box_px))


def _big_enough(box_px: FloatArray) -> npt.NDArray[np.bool_]:
    return np.asarray((box_px[:, 2:] - box_px[:, :2] >= MIN_SIDE_PX).all(axis=1))


# --- 2-D blending, for comparison
# ---------------------------------------------------------------------------------


def label_flat(scene: Scene, key_images: Images, images: Images, interpolation: Interpolation) -> Labels:
    """Blend the min/max boxes of adjacent keyframe images. `key_images` are the camera's, one per keyframe at
    most."""
    box, level = keyframe_boxes(scene, key_images)
    clock = _blend_clock(scene, key_images, images)
    before = np.clip(np.searchsorted(clock, images.time_us, side="right") - 1, 0, len(clock) - 2)
    fraction = geometry.time_fraction(images.time_us, clock[before], clock[before + 1])
    if interpolation == "seed":
        # The published formula divides six frames by five: frame i of six is given weight i/5.
        fraction = np.minimum(fraction * FRAMES_PER_INTERVAL / (FRAMES_PER_INTERVAL - 1), 1.0)
    inside = (fraction >= 0) & (fraction <= 1)
    valid = ~np.isnan(box[..., 0])
    here, there = valid.T[before], valid.T[before + 1]
    wanted = here & there & inside[:, None]
    wanted |= here & (fraction == 0)[:, None] | there & (fraction == 1)[:, None]
    image, instance = np.nonzero(wanted)
    k, weight = before[image], fraction[image, None]
    first, second = box[instance, k], box[instance, k + 1]
    blend = np.where(weight == 0, first, np.where(weight == 1, second, (1 - weight) * first + weight * second))
    unknown = np.full(len(image), np.nan)
    lowest = np.minimum(level[instance, k], level[instance, k + 1])
    return Labels(image, instance, blend, unknown, lowest, np.full((len(image), 3), np.nan))


def _blend_clock(scene: Scene, key_images: Images, images: Images) -> IntArray:
    """The time (K,) of each keyframe on the clock of the images: the camera's own, or the nominal grid's."""
    clock = scene.keyframe_us.copy()
    if len(images.time_us) and np.isin(key_images.time_us, images.time_us).all():
        clock[key_images.keyframe] = key_images.time_us
    return clock


def keyframe_boxes(scene: Scene, key_images: Images) -> tuple[FloatArray, IntArray]:
    """Min/max boxes (I, K, 4) of the annotations in their keyframe images, NaN where invalid; levels (I, K),
    4 there."""
    image_of = np.full(len(scene.keyframe_us), -1)
    image_of[key_images.keyframe] = np.arange(len(key_images.keyframe))
    rows = np.flatnonzero(image_of[scene.annotation_keyframe] >= 0)
    image = image_of[scene.annotation_keyframe[rows]]
    rotation, move = geometry.camera_from_global(
        key_images.ego_origin, geometry.rotation_matrices(key_images.ego_rotation),
        key_images.camera_origin, geometry.rotation_matrices(key_images.camera_rotation),
    )  # fmt: skip
    centre = np.einsum("nij,nj->ni", rotation[image], scene.centre_m[rows]) + move[image]
    turn = rotation[image] @ geometry.rotation_matrices(scene.rotation[rows])
    corners = geometry.box_corners(centre, turn, scene.size_m[rows])
    valid, box = other_rules.minmax_boxes(centre, corners, key_images.intrinsics[image], key_images.size_px[image])
    shape = (len(scene.instance_token), len(scene.keyframe_us))
    boxes, levels = np.full((*shape, 4), np.nan), np.full(shape, 4, dtype=np.int64)
    where = scene.annotation_instance[rows], scene.annotation_keyframe[rows]
    boxes[where] = np.where(valid[:, None], box, np.nan)
    levels[where] = scene.level[rows]
    return boxes, levels
