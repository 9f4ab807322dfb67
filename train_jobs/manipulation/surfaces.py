"""What a synthetic picture shows besides the hand's skin: solids, a forearm, backgrounds, things in front.

In: solids and random numbers. Out: Surfaces for models/rendering, pictures. Called by synthetic.py.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from models.rendering.raster import Surface
from train_jobs.manipulation.grasping import Solid
from train_jobs.manipulation.hand_shapes import FloatArray
from train_jobs.manipulation.solids import BALL, BOX

SIDES, RINGS = 20, 10


def surface_of(solid: Solid, camera_from_object: FloatArray) -> Surface:
    """The solid as triangles, with stripes along it."""
    points, faces = _box() if solid.kind == BOX else _ball() if solid.kind == BALL else _can()
    local = points * np.array(solid.half_m)
    wave = np.sin(60 * local[:, 2] + 90 * local[:, 0])
    rgb = np.clip(np.array(solid.rgb) * (1 + 0.35 * solid.stripes * wave)[:, None], 0, 1)
    return Surface(local @ camera_from_object[:3, :3].T + camera_from_object[:3, 3], faces, rgb, 0.4)


def forearm(wrist: FloatArray, rgb: FloatArray, size: float) -> Surface:
    """A tube from the wrist backwards; `wrist` (4, 4) is camera_from_hand."""
    angle = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)
    backwards = np.linspace(0.012, -0.25, 8)
    wide = np.linspace(1, 1.5, len(backwards))
    ring = np.stack([0.001 + 0.027 * np.cos(angle), np.zeros(SIDES), -0.006 + 0.019 * np.sin(angle)], -1)
    points = (
        ring[None] * np.stack([wide, wide, wide], -1)[:, None] + np.array([0.0, 1.0, 0.0]) * backwards[:, None, None]
    )
    points = size * points.reshape(-1, 3) @ wrist[:3, :3].T + wrist[:3, 3]
    return Surface(points, _strips(len(backwards), SIDES), np.broadcast_to(rgb, points.shape).copy(), 0.1)


def background(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """(S, S, 3) uint8: smooth colours, and a few things with edges."""
    cells = int(rng.choice([2, 4, 8, 24]))
    picture = cv2.resize(rng.random((cells, cells, 3), np.float32), (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    tone = rng.random(3, np.float32)
    picture = np.clip(tone + rng.uniform(0.1, 0.8) * (picture - 0.5), 0, 1)
    for _ in range(int(rng.integers(0, 7))):
        _shape(picture, rng, size_px)
    grain = rng.normal(0, 0.02, picture.shape).astype(np.float32)
    return (255 * np.clip(picture + grain, 0, 1)).astype(np.uint8)


def occluder(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture with one small thing before everything."""
    covered = picture.astype(np.float32) / 255
    _shape(covered, rng, len(picture), most=0.16)
    return (255 * covered).astype(np.uint8)


def _shape(picture: np.ndarray, rng: np.random.Generator, size_px: int, most: float = 0.5) -> None:
    colour = tuple(float(value) for value in rng.random(3))
    centre = tuple(int(value) for value in rng.integers(0, size_px, 2))
    half = tuple(int(value) + 1 for value in rng.uniform(0.02, most, 2) * size_px)
    angle = float(rng.uniform(0, 180))
    if rng.random() < 0.5:
        cv2.ellipse(picture, centre, half, angle, 0, 360, colour, -1)
    else:
        corners = cv2.boxPoints((centre, (float(2 * half[0]), float(2 * half[1])), angle))
        cv2.fillPoly(picture, [corners.astype(np.int32)], colour)


def _strips(rings: int, sides: int) -> np.ndarray:
    """Faces between rings of points, seen from outside counter-clockwise when rings go against the axis."""
    ring, side = np.meshgrid(np.arange(rings - 1), np.arange(sides), indexing="ij")
    a, b = ring * sides + side, ring * sides + (side + 1) % sides
    c, d = a + sides, b + sides
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def _turned_out(points: FloatArray, faces: np.ndarray) -> np.ndarray:
    """Faces of a convex body around the origin, each counter-clockwise from outside."""
    corners = points[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = (normal * corners.mean(axis=1)).sum(axis=1) < 0
    return np.where(inward[:, None], faces[:, ::-1], faces)


def _lathe(radius: FloatArray, height: FloatArray) -> tuple[FloatArray, np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)
    points = np.stack([radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle),
                       np.broadcast_to(height[:, None], (len(radius), SIDES))], -1).reshape(-1, 3)  # fmt: skip
    return points, _turned_out(points, _strips(len(radius), SIDES))


def _ball() -> tuple[FloatArray, np.ndarray]:
    tilt = np.linspace(0.01, np.pi - 0.01, RINGS)
    return _lathe(np.sin(tilt), np.cos(tilt))


def _can() -> tuple[FloatArray, np.ndarray]:
    # Rings twice at the edges, so that the smooth normals do not round them off.
    height = np.array([1, 1, *np.linspace(1, -1, 6), -1, -1])
    return _lathe(np.array([0.01, 0.97, 1, 1, 1, 1, 1, 1, 0.97, 0.01]), height)


def _box() -> tuple[FloatArray, np.ndarray]:
    """Six sides with their own corners."""
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 4), np.linspace(-1, 1, 4), indexing="ij"), -1).reshape(-1, 2)
    corner = np.array([4 * i + j for i in range(3) for j in range(3)])
    quads = np.concatenate(
        [np.stack([corner, corner + 4, corner + 1], -1), np.stack([corner + 1, corner + 4, corner + 5], -1)]
    )
    points: list[FloatArray] = []
    faces: list[np.ndarray] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            faces.append(quads + len(points) * len(grid))
            points.append(np.insert(grid, axis, sign, axis=1))
    together = np.concatenate(points)
    return together, _turned_out(together, np.concatenate(faces))


def random_turn(rng: np.random.Generator) -> FloatArray:
    """(3, 3) of all turns alike."""
    return np.asarray(Rotation.random(rng=rng).as_matrix())
