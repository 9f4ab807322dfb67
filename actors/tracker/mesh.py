"""Pictures of a CAD model from all around, drawn on the CPU without a graphics driver.

In: a mesh file (PLY, OBJ, STL, GLB) in millimetres or metres. Out: one View per camera of an icosphere. Called by
banks.py and __main__.py. Knows nothing of networks.

Camera frame: x right, y down, z forward, metres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from actors.messages import frozen
from actors.tracker.errors import BankUnusable

Unit = Literal["auto", "mm", "m"]
VIEWPOINTS = (42, 162)  # vertices of an icosahedron subdivided once, twice (CNOS: level 0 and 1)

# Nothing that a camera on a desk or a robot follows is larger; what measures more is given in millimetres.
LARGEST_M = 5.0
SMALLEST_M = 0.002
# Room around the object in the picture, and how far away the camera stands, in object radii: CNOS's is about 5.
MARGIN = 1.15
DISTANCE_RADII = 5.0
UNTEXTURED_RGB = 0.6
# Light from the camera, a little from above: a mesh has no light of its own, and hard shadows would be invented.
LIGHT = np.array([0.25, -0.5, -0.83])
AMBIENT, DIFFUSE = 0.45, 0.6
SUPERSAMPLE = 2


@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles in metres around their own origin."""

    vertices_m: np.ndarray  # (V, 3) float64
    faces: np.ndarray  # (F, 3) int64
    rgb: np.ndarray | None  # (V, 3) float64 in 0..1; None when the file has no colour

    def __post_init__(self) -> None:
        """Check shapes once and make the arrays read-only."""
        set_ = object.__setattr__
        set_(self, "vertices_m", frozen(self.vertices_m, np.float64, (None, 3), "vertices_m"))
        set_(self, "faces", frozen(self.faces, np.int64, (None, 3), "faces"))
        if self.rgb is not None:
            set_(self, "rgb", frozen(self.rgb, np.float64, (len(self.vertices_m), 3), "rgb"))

    @property
    def diameter_m(self) -> float:
        """Of the smallest box around it, corner to corner."""
        return float(np.linalg.norm(np.ptp(self.vertices_m, axis=0)))


@dataclass(frozen=True, slots=True)
class View:
    """One template: the object alone on black, what it covers, and where the camera stood."""

    image: np.ndarray  # (S, S, 3) uint8 RGB
    mask: np.ndarray  # (S, S) bool
    camera_from_object: np.ndarray | None  # (4, 4) float64, metres; None for imported pictures without poses


def read_mesh(path: Path, unit: Unit = "auto") -> Mesh:
    """Read a mesh file. `auto` takes what would be larger than 5 m for millimetres.

    Raises BankUnusable when the file is no mesh, has no faces, or its size makes no sense in the given unit.
    """
    import trimesh

    try:
        loaded: Any = trimesh.load(path, force="mesh", process=False)
    except Exception as error:
        raise BankUnusable(f"{path} cannot be read as a mesh (PLY, OBJ, STL, GLB): {error}") from error
    vertices, faces = np.asarray(loaded.vertices, np.float64), np.asarray(getattr(loaded, "faces", ()), np.int64)
    if not len(faces) or not np.isfinite(vertices).all():
        raise BankUnusable(f"{path} holds no triangles, or vertices that are not numbers")
    size = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    millimetres = unit == "mm" or (unit == "auto" and size > LARGEST_M)
    mesh = Mesh(vertices / 1000 if millimetres else vertices, faces, _colours(loaded))
    if not SMALLEST_M <= mesh.diameter_m <= LARGEST_M:
        raise BankUnusable(
            f"{path} would be {mesh.diameter_m:g} m across (read in {'mm' if millimetres else 'm'}); objects of "
            f"{SMALLEST_M} to {LARGEST_M:g} m can be followed, so give its unit with --unit mm or --unit m"
        )
    return mesh


def _colours(loaded: Any) -> np.ndarray | None:
    visual = getattr(loaded, "visual", None)
    if visual is None or not getattr(visual, "defined", False):
        return None
    if visual.kind == "texture":
        visual = visual.to_color()
    return np.asarray(visual.vertex_colors, np.float64)[:, :3] / 255


def viewpoints(count: int) -> np.ndarray:
    """(count, 3) unit vectors from the object to the cameras, evenly around. Raises ValueError unless 42 or 162."""
    if count not in VIEWPOINTS:
        raise ValueError(f"views must be one of {', '.join(map(str, VIEWPOINTS))}, not {count}")
    golden = (1 + 5**0.5) / 2
    corners = np.array(
        [[s * a for a in p] for p in ((0, 1, golden), (1, golden, 0), (golden, 0, 1)) for s in (1, -1)]
        + [[0, 1, -golden], [0, -1, golden], [1, -golden, 0], [-1, golden, 0], [golden, 0, -1], [-golden, 0, 1]]
    )
    points = corners / np.linalg.norm(corners, axis=1, keepdims=True)
    for _ in range(VIEWPOINTS.index(count) + 1):
        points = _with_edge_centres(points)
    return points


def _with_edge_centres(points: np.ndarray) -> np.ndarray:
    """Add the middle of every edge; on a sphere's even points, neighbours are those nearest to each other."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    # Edges of one subdivision differ by 16 % in length; the next larger distance is 60 % longer.
    first, second = np.nonzero(np.triu(distances < 1.3 * distances.min()))
    centres = points[first] + points[second]
    return np.concatenate([points, centres / np.linalg.norm(centres, axis=1, keepdims=True)])


def look_at(direction: np.ndarray, distance_m: float, centre_m: np.ndarray) -> np.ndarray:
    """(4, 4) camera_from_object of a camera in `direction` of the centre, its up side towards the object's +z."""
    forward = -direction
    up = np.array([0.0, 0, 1]) if abs(direction[2]) < 0.999 else np.array([0.0, 1, 0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, np.array([0, 0, distance_m]) - rotation @ centre_m
    return pose


def render_views(mesh: Mesh, count: int = 42, side_px: int = 256, *, coloured: bool = True) -> Iterator[View]:
    """One view per viewpoint. `coloured=False` ignores the mesh's colours, as for a part of unknown finish."""
    centre = (mesh.vertices_m.max(axis=0) + mesh.vertices_m.min(axis=0)) / 2
    radius = float(np.linalg.norm(mesh.vertices_m - centre, axis=1).max())
    focal_px = side_px / 2 * DISTANCE_RADII / (radius * MARGIN) * radius
    for direction in viewpoints(count):
        pose = look_at(direction, DISTANCE_RADII * radius, centre)
        image, depth = render(mesh, pose, side_px, focal_px, coloured=coloured)
        yield View(image, depth > 0, pose)


def render(
    mesh: Mesh, camera_from_object: np.ndarray, side_px: int, focal_px: float, *, coloured: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """One square picture, principal point in its middle: (S, S, 3) uint8 on black, and (S, S) depth in metres or 0."""
    import cv2

    big = side_px * SUPERSAMPLE
    points = mesh.vertices_m @ camera_from_object[:3, :3].T + camera_from_object[:3, 3]
    triangle, shares, depth = _cover(points, mesh.faces, big, focal_px * SUPERSAMPLE)
    hit = triangle >= 0
    corners = mesh.faces[triangle[hit]]
    normals = np.einsum("nk,nkc->nc", shares[hit], _normals(points, mesh.faces)[corners])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    light = AMBIENT + DIFFUSE * np.clip(normals @ LIGHT, 0, None)
    if coloured and mesh.rgb is not None:
        albedo = np.einsum("nk,nkc->nc", shares[hit], mesh.rgb[corners])
    else:
        albedo = np.full((len(corners), 3), UNTEXTURED_RGB)
    picture = np.zeros((big, big, 3), np.float32)
    picture[hit] = np.clip(albedo * light[:, None], 0, 1)
    small = cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA)
    # A pixel belongs to the object when its centre does: the coarse mask must not grow by a rim of half pixels.
    near = depth[SUPERSAMPLE // 2 :: SUPERSAMPLE, SUPERSAMPLE // 2 :: SUPERSAMPLE]
    small[near == 0] = 0
    return (small * 255 + 0.5).astype(np.uint8), near


def _normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) area-weighted vertex normals, turned towards the camera: exports mix the order of corners."""
    corners = points[faces]
    of_faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    away = np.einsum("fc,fc->f", of_faces, corners.mean(axis=1)) > 0
    of_faces[away] *= -1
    sums = [np.bincount(faces.ravel(), np.repeat(of_faces[:, axis], 3), len(points)) for axis in range(3)]
    return np.stack(sums, axis=1)


def _cover(
    points: np.ndarray, faces: np.ndarray, side: int, focal_px: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per pixel: the nearest triangle (−1: none), the shares of its corners, the depth (0: none)."""
    pixels = points[:, :2] / points[:, 2:] * focal_px + side / 2
    corners = pixels[faces]
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, side).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) - 0.5) + 1, 0, side).astype(np.int64)
    spans = np.maximum(high - low, 0)
    counts = spans[:, 0] * spans[:, 1]
    which = np.repeat(np.arange(len(faces)), counts)
    within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    down, across = np.divmod(within, np.maximum(spans[which, 0], 1))
    at = np.stack([low[which, 0] + across, low[which, 1] + down], axis=1)
    a, b, c = (corners[which, k] for k in range(3))
    centre = at + 0.5
    area = _cross(b - a, c - a)
    area = np.where(np.abs(area) < 1e-12, np.nan, area)
    with np.errstate(invalid="ignore"):
        shares = np.stack([_cross(b - centre, c - centre), _cross(c - centre, a - centre)], axis=1) / area[:, None]
        shares = np.column_stack([shares, 1 - shares.sum(axis=1)])
        inside = (shares >= 0).all(axis=1)
    which, at, shares = which[inside], at[inside], shares[inside]
    # 1/z is linear on the picture (perspective-correct); the largest is the nearest.
    inverse = shares / points[faces[which], 2]
    nearness = inverse.sum(axis=1)
    flat = at[:, 1] * side + at[:, 0]
    order = np.argsort(nearness, kind="stable")  # later writes win
    triangle = np.full(side * side, -1)
    triangle[flat[order]] = which[order]
    depth, blend = np.zeros(side * side), np.zeros((side * side, 3))
    depth[flat[order]] = 1 / nearness[order]
    blend[flat[order]] = (inverse / nearness[:, None])[order]
    return triangle.reshape(side, side), blend.reshape(side, side, 3), depth.reshape(side, side)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
