"""Synthetic hands: pictures of a rigged hand with and without objects, and everything that is true in them.

In: a split and numbers of pictures. Out: Samples. Called by stage1.py, evaluation and the command line. The same split,
range and version give the same bytes. The splits share no hand shape, no object and no camera: each is drawn from its
own bank. Results on it are results on these pictures, comparable with no benchmark of real ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from models.rendering.raster import Surface, compose, draw_layer
from train_jobs.manipulation.contact_losses import CONTACT_M
from train_jobs.manipulation.errors import BadData
from train_jobs.manipulation.grasping import Solid, distance, grasp, random_solid
from train_jobs.manipulation.hand_shapes import (
    FloatArray,
    HandShape,
    Posture,
    ShapedHand,
    frames,
    joints_of,
    random_posture,
    random_shape,
    shaped,
    skin,
    turns,
)
from train_jobs.manipulation.samples import MOST_OBJECTS, Samples, together
from train_jobs.manipulation.surfaces import background, forearm, occluder, random_turn, surface_of

Split = Literal["train", "val", "test"]
VERSION = 2
# Hand shapes, objects and cameras of each split.
BANKS: dict[str, tuple[int, int, int]] = {"train": (400, 300, 60), "val": (12, 12, 6), "test": (30, 30, 12)}
REGIONS, CLASSES = 10, 21
# Shares of pictures: nothing but things; a hand alone; the rest grasps.
NO_HAND, BARE_HAND = 0.06, 0.3
# How large a hand is in its crop.
SPAN = (0.5, 0.85)
# The viewer looks on the back of the hand, the palm or the side: all turns about the view, these tilts against it.
TILT_RAD = 0.75
# A hand is cut out upright, the knuckle of the middle finger above the wrist, as far as a detector of hands knows: it
# errs by so much about a joint's place and about the whole.
UPRIGHT_NOISE_M, UPRIGHT_NOISE_RAD = 0.004, 0.1
WRIST, KNUCKLE = 0, 9


@dataclass(frozen=True, slots=True)
class Camera:
    """Of a square crop: focal length and principal point as shares of its side."""

    focal: float
    centre: tuple[float, float]

    def intrinsics(self, size_px: int) -> FloatArray:
        """(3, 3) in pixels, whose centres lie at whole numbers."""
        x, y = self.centre
        return np.array([[self.focal * size_px, 0, x * size_px - 0.5],
                         [0, self.focal * size_px, y * size_px - 0.5], [0, 0, 1]])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bank:
    """What a split is made of."""

    shapes: tuple[HandShape, ...]
    solids: tuple[Solid, ...]
    cameras: tuple[Camera, ...]


@cache
def bank(split: Split) -> Bank:
    """The split's own hands, objects and cameras. Raises BadData for an unknown split."""
    if split not in BANKS:
        raise BadData(f"unknown split {split!r} of the synthetic hands; there are {', '.join(get_args(Split))}")
    rng = np.random.default_rng([VERSION, get_args(Split).index(split)])
    shapes, solids, cameras = BANKS[split]
    return Bank(
        tuple(random_shape(rng) for _ in range(shapes)),
        tuple(random_solid(rng) for _ in range(solids)),
        tuple(_camera(rng) for _ in range(cameras)),
    )


def _camera(rng: np.random.Generator) -> Camera:
    x, y = rng.uniform(-0.6, 1.6, 2)  # a crop from anywhere in a larger picture
    return Camera(float(rng.uniform(1.4, 4.0)), (float(x), float(y)))


@cache
def _hand(shape: HandShape) -> ShapedHand:
    return shaped(shape)


def generate(split: Split, first: int, count: int, size_px: int) -> Samples:
    """Pictures `first` to `first + count` of a split, each from its own number alone."""
    return together([picture(split, number, size_px) for number in range(first, first + count)])


def picture(split: Split, number: int, size_px: int) -> Samples:
    """One picture."""
    own = bank(split)
    rng = np.random.default_rng([VERSION, get_args(Split).index(split), number, 7])
    hand = _hand(own.shapes[rng.integers(len(own.shapes))])
    camera = own.cameras[rng.integers(len(own.cameras))]
    solid = own.solids[rng.integers(len(own.solids))]
    draw = rng.random()
    if draw < NO_HAND + BARE_HAND:
        posture, placed = random_posture(rng), None
    else:
        posture, placed = grasp(hand, solid, rng)
    view = random_view(rng)
    scene = pose_scene(hand, posture, solid, placed, camera, view)
    turned, seen_by = upright(scene, camera, view, roll_rad(scene, rng))
    return drawn(turned, own, seen_by, rng, size_px, visible=draw >= NO_HAND)


@dataclass(frozen=True, slots=True)
class Scene:
    """A posed hand and perhaps what it holds, in the camera's frame."""

    hand: ShapedHand
    skin_m: FloatArray  # (V, 3)
    joints_m: FloatArray  # (21, 3)
    camera_from_hand: FloatArray  # (4, 4)
    solid: Solid | None
    camera_from_object: FloatArray  # (4, 4)


@dataclass(frozen=True, slots=True)
class View:
    """From where a hand is seen."""

    turn: FloatArray  # (3, 3) camera from hand
    span: float  # share of the picture's side that the hand takes
    at: FloatArray  # (2,) of the hand's middle, as shares of the side


def random_view(rng: np.random.Generator) -> View:
    """Near the picture's middle, as large as SPAN says."""
    return View(_view(rng), float(rng.uniform(*SPAN)), np.clip(rng.normal(0.5, 0.05, 2), 0.35, 0.65))


def pose_scene(
    hand: ShapedHand,
    posture: Posture,
    solid: Solid,
    placed: FloatArray | None,
    camera: Camera,
    view: View,
    depth_m: float | None = None,
) -> Scene:
    """The hand before the camera; `depth_m` of its middle instead of what the view's span gives."""
    rotations, places = frames(hand, turns(hand, posture, posture.closing[None]))
    skin_m, joints = skin(hand, rotations[0], places[0]), joints_of(hand, places[0])
    joints, skin_m = joints @ view.turn.T, skin_m @ view.turn.T
    middle = (joints.min(axis=0) + joints.max(axis=0)) / 2
    wide = max(float(np.ptp(joints[:, axis])) for axis in (0, 1)) + 2 * hand.radius_m
    depth = max(0.15, wide * camera.focal / view.span) if depth_m is None else depth_m
    ray = np.array([*((view.at - np.array(camera.centre)) / camera.focal), 1.0])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = view.turn, depth * ray - middle
    held = pose @ placed if placed is not None else np.eye(4)
    return Scene(hand, skin_m + pose[:3, 3], joints + pose[:3, 3], pose, None if placed is None else solid, held)


def roll_rad(scene: Scene, rng: np.random.Generator) -> float:
    """By which turn about the view a detector of hands would put the hand upright."""
    x, y = (scene.joints_m[KNUCKLE] - scene.joints_m[WRIST])[:2] + rng.normal(0, UPRIGHT_NOISE_M, 2)
    return float(-np.pi / 2 - np.arctan2(y, x) + rng.normal(0, UPRIGHT_NOISE_RAD))


def upright(scene: Scene, camera: Camera, view: View, angle_rad: float) -> tuple[Scene, Camera]:
    """The world turned about the view, and the camera of the crop that the hand then fills as the view says."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0, 0, angle_rad]).as_matrix()
    joints, skin_m = (points @ turn[:3, :3].T for points in (scene.joints_m, scene.skin_m))
    seen = joints[:, :2] / joints[:, 2:]
    wide = float(np.ptp(seen, axis=0).max()) + 2 * scene.hand.radius_m / float(joints[:, 2].mean())
    focal = view.span / wide
    x, y = view.at - focal * (seen.min(axis=0) + seen.max(axis=0)) / 2
    turned = replace(scene, skin_m=skin_m, joints_m=joints, camera_from_hand=turn @ scene.camera_from_hand,
                     camera_from_object=turn @ scene.camera_from_object)  # fmt: skip
    return turned, replace(camera, focal=focal, centre=(float(x), float(y)))


def _view(rng: np.random.Generator) -> FloatArray:
    """(3, 3) camera from hand: back or palm to the viewer, tilted, turned about the view."""
    facing = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0]))
    if rng.random() < 0.35:
        facing = Rotation.from_rotvec([0, np.pi, 0]) * facing
    tilt = Rotation.from_rotvec([*rng.normal(0, TILT_RAD, 2), 0])
    return np.asarray((Rotation.from_rotvec([0, 0, rng.uniform(-np.pi, np.pi)]) * tilt * facing).as_matrix())


def drawn(scene: Scene, own: Bank, camera: Camera, rng: np.random.Generator, size_px: int, visible: bool) -> Samples:
    """The scene as a picture with its truth; without the hand unless `visible`."""
    solids, poses = [], []
    if scene.solid is not None:
        solids, poses = [scene.solid], [scene.camera_from_object]
    for _ in range(int(rng.integers(0, 2 if visible else 3))):
        solids.append(own.solids[rng.integers(len(own.solids))])
        poses.append(_beside(scene, camera, rng))
    seen = [surface_of(*pair) for pair in zip(solids, poses, strict=True)] + (_skin(scene, rng) if visible else [])
    canvas = background(rng, size_px)
    if seen:
        centre = (camera.centre[0] * size_px, camera.centre[1] * size_px)
        light = np.array([*rng.uniform(-1, 1, 2), -rng.uniform(0.3, 1)])
        canvas = compose(canvas, [draw_layer(seen, size_px, size_px, camera.focal * size_px, centre, light)])
    if rng.random() < 0.2:
        canvas = occluder(canvas, rng)
    gain = rng.uniform(0.7, 1.25) * rng.uniform(0.9, 1.1, 3)
    canvas = np.clip(canvas * gain, 0, 255).astype(np.uint8)
    return _labelled(scene, solids, poses, canvas, camera.intrinsics(size_px), visible)


def _skin(scene: Scene, rng: np.random.Generator) -> list[Surface]:
    tone = np.array([0.78, 0.56, 0.45]) * rng.uniform(0.25, 1.15) * rng.uniform(0.93, 1.07, 3)
    blotches = 1 + 0.05 * np.sin(scene.hand.mesh.vertices_m @ rng.normal(0, 150, (3, 3)))
    cloth = rng.random(3) if rng.random() < 0.6 else tone
    surfaces = [
        Surface(scene.skin_m, scene.hand.mesh.faces, np.clip(tone * blotches, 0, 1), float(rng.uniform(0, 0.6)))
    ]
    if rng.random() < 0.85:
        surfaces.append(forearm(scene.camera_from_hand, cloth, scene.hand.shape.size))
    return surfaces


def _beside(scene: Scene, camera: Camera, rng: np.random.Generator) -> FloatArray:
    """A place in view, not nearer than the hand: a thing that is not held."""
    at = rng.uniform(0, 1, 2)
    depth = scene.joints_m[:, 2].max() + rng.uniform(0.06, 0.25)
    pose = np.eye(4)
    pose[:3, :3] = random_turn(rng)
    pose[:3, 3] = depth * np.array([*((at - camera.centre) / camera.focal), 1.0])
    return pose


def _labelled(
    scene: Scene,
    solids: list[Solid],
    poses: list[FloatArray],
    canvas: np.ndarray,
    intrinsics: FloatArray,
    visible: bool,
) -> Samples:
    own = {"object_poses": np.tile(np.eye(4), (MOST_OBJECTS, 1, 1)), "object_kinds": np.full(MOST_OBJECTS, -2),
           "object_halves_m": np.full((MOST_OBJECTS, 3), 0.01)}  # fmt: skip
    for k, (solid, pose) in enumerate(zip(solids, poses, strict=True)):
        own["object_poses"][k], own["object_kinds"][k], own["object_halves_m"][k] = pose, solid.kind, solid.half_m
    points, touching = contacts(scene)
    joints = scene.joints_m if visible else np.zeros_like(scene.joints_m)
    return Samples(
        pictures=torch.from_numpy(np.ascontiguousarray(canvas.transpose(2, 0, 1)))[None],
        intrinsics=torch.tensor(intrinsics, dtype=torch.float32)[None],
        joints_m=torch.tensor(joints, dtype=torch.float32)[None],
        joints_labelled=torch.full((1, 21), visible),
        has_hand=torch.tensor([visible]),
        object_poses=torch.tensor(own["object_poses"], dtype=torch.float32)[None],
        object_kinds=torch.tensor(own["object_kinds"])[None],
        object_halves_m=torch.tensor(own["object_halves_m"], dtype=torch.float32)[None],
        object_classes=torch.tensor(own["object_kinds"])[None].clamp(min=-1),
        contact_points_m=torch.tensor(points, dtype=torch.float32)[None],
        touching=torch.tensor(touching & visible)[None],
        contacts_labelled=torch.full((1, REGIONS), visible),
    )


def contacts(scene: Scene) -> tuple[FloatArray, np.ndarray]:
    """For each region of the hand the skin nearest to the held object (10, 3), and whether it touches (10,)."""
    points, touching = np.zeros((REGIONS, 3)), np.zeros(REGIONS, bool)
    if scene.solid is None:
        return points, touching
    apart = distance(scene.solid, scene.camera_from_object, scene.skin_m)
    for region in range(REGIONS):
        of_region = np.flatnonzero(scene.hand.region_of_vertex == region)
        nearest = of_region[np.argmin(apart[of_region])]
        points[region], touching[region] = scene.skin_m[nearest], apart[nearest] <= CONTACT_M
    return points, touching
