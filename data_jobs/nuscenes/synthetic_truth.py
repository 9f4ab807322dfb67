"""What is truly to be seen in a synthetic world, and what a noisy detector would report of it.

In: a SyntheticScene. Out: sightings per camera, the truth table, the detections table. Called by
synthetic.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import pyarrow as pa

from data_jobs.nuscenes import geometry, projection
from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.nuscenes.schema import CLASS_OF_CATEGORY, CLASSES, VOID_OF_CATEGORY
from data_jobs.nuscenes.synthetic_world import (
    IMAGE_WH,
    RIG,
    SyntheticScene,
    WorldSpec,
    camera_intrinsics,
    camera_rotation,
)

# The detector's noise, relative to the box: the value of the tracking pilot's detector (3 % of width and
# height).
BOX_NOISE = 0.03
FALSE_POSITIVES_PER_IMAGE = 0.3


def token(*parts: object) -> str:
    """A 32-digit hex token that depends on `parts` only; in no order, like real ones."""
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def image_token(number: int, camera: str, index: int) -> str:
    """Token of one image, which is also the token of its ego pose (as in nuScenes)."""
    return token("image", number, camera, index)


@dataclass(frozen=True, slots=True)
class View:
    """True boxes of one camera: M sightings of object `body` in image `image`."""

    image: np.ndarray  # (M,)
    body: np.ndarray  # (M,)
    box_px: FloatArray  # (M, 4)
    depth_m: FloatArray  # (M,) of the centre
    hidden: FloatArray  # (M,) largest share of the box that one nearer box covers

    def chosen(self, rows: np.ndarray) -> View:
        """These rows (index or mask) only."""
        return View(*(getattr(self, field.name)[rows] for field in fields(self)))


def view_of(scene: SyntheticScene, camera: str) -> View:
    """All boxes at least a pixel wide and high that one camera truly sees, by image and object."""
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
    return View(*view, hidden=_hidden(*view))


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


def truth_table(name: str, scene: SyntheticScene, spec: WorldSpec, views: dict[str, View]) -> pa.Table:
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
