"""ObjectPoser: the pose of an object of known shape from its mask: nearest rendered view, then refined until it fits.

In: a mesh; an RGB picture, a mask and the camera's intrinsics. Out: camera_from_object with a score. Called by
data_jobs/egoworld/operators/template_pose.py. No network: shape and colours decide.

Mask and colours are brought to one small square by the mask's centre and area. There they are compared with views of
the mesh from all around, turned in the picture plane; the best few are refined by drawing the mesh's points in nearby
poses. What hides a part of the object spoils its outline, and with it distance and turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from actors.messages import frozen
from actors.tracker.mesh import DISTANCE_RADII, UNTEXTURED_RGB, Mesh, look_at, viewpoints

SIDE = 40  # pixels of the small square
OBJECT_SIDE = 22.0  # pixels in it of a square object: room for long ones
TURNS = 24  # in the picture plane, 15° each
POINTS = 6000  # drawn for one view
BEST, ROUNDS, TRIES = 3, 4, 24  # candidates that are refined, in how many rounds of how many tries
FIRST_STEP_RAD = 0.25  # half the way to the next of 42 viewpoints
COLOUR_WEIGHT = 0.5
SEED = 0


@dataclass(frozen=True, slots=True)
class ObjectPose:
    """Where an object is."""

    camera_from_object: np.ndarray  # (4, 4) float64, metres; camera with x right, y down, z forward
    overlap: float  # 0..1: IoU of the drawn mesh and the mask, in the small square
    likeness: float  # -1..1: correlation of colours where both are

    def __post_init__(self) -> None:
        """Check the shape once and make the array read-only."""
        object.__setattr__(self, "camera_from_object", frozen(self.camera_from_object, np.float64, (4, 4), "pose"))

    @property
    def score(self) -> float:
        """What is maximised."""
        return (self.overlap + COLOUR_WEIGHT * self.likeness) / (1 + COLOUR_WEIGHT)


@dataclass(frozen=True, slots=True)
class _Small:
    """A mask and what it shows in the small square."""

    mask: np.ndarray  # (SIDE²,) float32 0..1
    rgb: np.ndarray  # (SIDE², 3) float32, less its mean inside; zeros outside
    centre: np.ndarray  # (2,) of the mask in the picture it came from, pixels
    size: float  # square root of its area there, pixels


class ObjectPoser:
    """One object. The same picture and mask give the same pose."""

    def __init__(self, mesh: Mesh, views: int = 42) -> None:
        self._points, self._rgb = _surface(mesh)
        self._middle = (mesh.vertices_m.max(axis=0) + mesh.vertices_m.min(axis=0)) / 2
        self._radius = float(np.linalg.norm(mesh.vertices_m - self._middle, axis=1).max())
        self._rotations = [
            Rotation.from_euler("z", turn) * Rotation.from_matrix(look_at(way, 1.0, self._middle)[:3, :3])
            for way in viewpoints(views)
            for turn in np.arange(TURNS) * 2 * np.pi / TURNS
        ]
        drawn = [self._drawn(rotation) for rotation in self._rotations]
        self._masks = np.stack([one.mask for one in drawn])
        self._colours = np.stack([_unit(one.rgb) for one in drawn])

    def estimate(
        self, image: np.ndarray, mask: np.ndarray, camera_px: tuple[float, float, float, float], *, refine: bool = True
    ) -> ObjectPose | None:
        """The pose that explains the (H, W) bool mask best; None for an empty mask.

        `camera_px` is focal x, y and principal point x, y. `refine` False stops at the nearest view.
        """
        if not mask.any():
            return None
        seen = _small(image, mask)
        scores = _scores(seen, self._masks, self._colours)
        best = [self._rotations[i] for i in np.argsort(-scores, kind="stable")[:BEST]]
        tried = [self._refined(rotation, seen) for rotation in best] if refine else best[:1]
        rotation = max(tried, key=lambda one: self._score(one, seen)[0])
        _, overlap, likeness = self._score(rotation, seen)
        return ObjectPose(self._placed(rotation, seen, camera_px), overlap, likeness)

    def _refined(self, rotation: Rotation, seen: _Small) -> Rotation:
        """Uphill in ever smaller random steps, the same ones every time."""
        random = np.random.default_rng(SEED)
        value = self._score(rotation, seen)[0]
        for round_ in range(ROUNDS):
            for step in random.normal(0, FIRST_STEP_RAD / 2**round_, (TRIES, 3)):
                other = Rotation.from_rotvec(step) * rotation
                found = self._score(other, seen)[0]
                if found > value:
                    rotation, value = other, found
        return rotation

    def _score(self, rotation: Rotation, seen: _Small) -> tuple[float, float, float]:
        one = self._drawn(rotation)
        overlap = float(_overlaps(seen, one.mask[None])[0])
        likeness = float((_unit(seen.rgb) * _unit(one.rgb)).sum())
        return (overlap + COLOUR_WEIGHT * likeness) / (1 + COLOUR_WEIGHT), overlap, likeness

    def _drawn(self, rotation: Rotation) -> _Small:
        """The object as it looks on the optical axis, DISTANCE_RADII away, through a lens of focal length 1.

        Its `centre` and `size` are in that lens's units.
        """
        scale = SIDE * 1.6 / 2 * DISTANCE_RADII  # the radius fills the picture, with room
        points = rotation.apply(self._points - self._middle) / self._radius
        depth = points[:, 2] + DISTANCE_RADII
        side = SIDE * 2
        at = np.floor(points[:, :2] / depth[:, None] * scale + side / 2).astype(np.int64)
        inside = ((at >= 0) & (at < side)).all(axis=1)
        order = np.argsort(-depth[inside], kind="stable")  # the nearest is written last
        flat = (at[inside, 1] * side + at[inside, 0])[order]
        picture, mask = np.zeros((side * side, 3), np.uint8), np.zeros(side * side, np.uint8)
        picture[flat], mask[flat] = self._rgb[inside][order], 1
        kernel = np.ones((3, 3), np.uint8)
        closed = cv2.morphologyEx(mask.reshape(side, side), cv2.MORPH_CLOSE, kernel).astype(bool)
        filled = cv2.dilate(picture.reshape(side, side, 3), kernel)
        holes = closed & (mask.reshape(side, side) == 0)
        small = _small(np.where(holes[:, :, None], filled, picture.reshape(side, side, 3)), closed)
        return _Small(small.mask, small.rgb, (small.centre - side / 2) / scale, small.size / scale)

    def _placed(self, rotation: Rotation, seen: _Small, camera_px: tuple[float, float, float, float]) -> np.ndarray:
        """Distance from the area, place from the centre; turned from the optical axis to the ray it lies on."""
        focal = np.array(camera_px[:2])
        drawn = self._drawn(rotation)
        distance = DISTANCE_RADII * self._radius * drawn.size / (seen.size / float(np.sqrt(focal.prod())))
        centre = (seen.centre - camera_px[2:]) / focal - drawn.centre * DISTANCE_RADII * self._radius / distance
        ray = np.array([*centre, 1.0])
        towards = ray / np.linalg.norm(ray)
        axis = np.cross([0, 0, 1.0], towards)
        angle = np.arctan2(np.linalg.norm(axis), towards[2])
        tilt = Rotation.from_rotvec(axis / max(float(np.linalg.norm(axis)), 1e-12) * angle)
        pose = np.eye(4)
        pose[:3, :3] = (tilt * rotation).as_matrix()
        pose[:3, 3] = ray * distance - pose[:3, :3] @ self._middle
        return pose


def _surface(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Points evenly over the surface, (POINTS, 3) m, and their colours (POINTS, 3) uint8."""
    random = np.random.default_rng(SEED)
    corners = mesh.vertices_m[mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    faces = random.choice(len(area), POINTS, p=area / area.sum())
    shares = random.dirichlet((1, 1, 1), POINTS)
    points = np.einsum("nk,nkc->nc", shares, corners[faces])
    if mesh.rgb is None:
        return points, np.full((POINTS, 3), round(255 * UNTEXTURED_RGB), np.uint8)
    rgb = np.einsum("nk,nkc->nc", shares, mesh.rgb[mesh.faces[faces]])
    return points, np.clip(rgb * 255 + 0.5, 0, 255).astype(np.uint8)


def _small(image: np.ndarray, mask: np.ndarray) -> _Small:
    """Bring a mask to the small square."""
    ys, xs = np.nonzero(mask)
    centre, size = np.array([xs.mean() + 0.5, ys.mean() + 0.5]), float(np.sqrt(len(xs)))
    scale = OBJECT_SIDE / size
    # From the middle of a pixel to the middle of a pixel.
    shift = SIDE / 2 - scale * centre + 0.5 * scale - 0.5
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    share = cv2.warpAffine(mask.astype(np.float32), matrix, (SIDE, SIDE), flags=how).ravel()
    colour = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=how).reshape(-1, 3).astype(np.float32)
    inside = colour - (colour * share[:, None]).sum(axis=0) / max(float(share.sum()), 1e-6)
    return _Small(share, inside * share[:, None], centre, size)


def _unit(rgb: np.ndarray) -> np.ndarray:
    return rgb.ravel() / max(float(np.linalg.norm(rgb)), 1e-6)


def _overlaps(seen: _Small, masks: np.ndarray) -> np.ndarray:
    both = masks @ seen.mask
    return both / np.maximum((masks**2).sum(axis=1) + float(seen.mask @ seen.mask) - both, 1e-6)


def _scores(seen: _Small, masks: np.ndarray, colours: np.ndarray) -> np.ndarray:
    return _overlaps(seen, masks) + COLOUR_WEIGHT * (colours @ _unit(seen.rgb))
