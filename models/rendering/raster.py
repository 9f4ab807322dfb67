"""A small software renderer: triangles to an image, with depth, smooth shading and a soft shadow.

In: a triangle soup in camera coordinates and a background. Out: the background with the triangles over it. Called by
demo_scene.py. Knows nothing of hands. Only numpy and OpenCV, so the demo needs no graphics driver.

Camera frame: x right, y down, z forward, metres; pinhole, the principal point in the middle unless told otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# Rendered this much larger and averaged down: what smooths the outlines.
SUPERSAMPLE = 2
# From above, a little left and towards the camera: a ceiling lamp over the wearer's shoulder.
LIGHT_DIRECTION = np.array([-0.35, -0.75, -0.56], np.float32)
LIGHT_RGB = np.array([0.82, 0.79, 0.74], np.float32)
SKY_RGB = np.array([0.50, 0.52, 0.56], np.float32)
BOUNCE_RGB = np.array([0.34, 0.28, 0.24], np.float32)
# Skin lets light through, so its terminator is soft: diffuse light wraps this far around the edge.
WRAP = 0.35
SHADOW_SHIFT = (0.035, 0.06)  # shares of the picture's height, right and down
SHADOW_BLUR = 0.025  # share of the picture's height
SHADOW_STRENGTH = 0.55
# Creases: how much darker a pixel gets per metre that it lies behind its surroundings, and how far those reach.
CREASE_PER_M = 22.0
CREASE_RADIUS = 0.016  # share of the picture's height


@dataclass(frozen=True, slots=True)
class Surface:
    """Triangles with smooth normals and a colour per vertex."""

    vertices_m: np.ndarray  # (V, 3) float, camera frame
    faces: np.ndarray  # (F, 3) int, counter-clockwise seen from outside
    rgb: np.ndarray  # (V, 3) float, 0..1
    gloss: float  # 0 cloth .. 1 wet


@dataclass(frozen=True, slots=True)
class Layer:
    """Surfaces drawn once, to be laid over any background."""

    rgb: np.ndarray  # (H, W, 3) float32, 0..1, already multiplied by alpha
    alpha: np.ndarray  # (H, W) float32, covered share of each pixel
    shadow: np.ndarray  # (H, W) float32, factor for what lies below


def draw_layer(
    surfaces: list[Surface],
    height_px: int,
    width_px: int,
    focal_px: float,
    centre_px: tuple[float, float] | None = None,
    light: np.ndarray = LIGHT_DIRECTION,
) -> Layer:
    """Draw surfaces for a picture of the given size; focal length and principal point are for that size.

    `centre_px` (x, y) counts from the picture's edge, half a pixel before the centre of the first pixel. `light` (3,)
    points to the lamp.
    """
    shape = (height_px * SUPERSAMPLE, width_px * SUPERSAMPLE)
    centre = np.array([width_px / 2, height_px / 2] if centre_px is None else centre_px) * SUPERSAMPLE
    rgb, covered = _shade(_rasterise(surfaces, shape, focal_px * SUPERSAMPLE, centre), light)
    size = (width_px, height_px)
    alpha = cv2.resize(covered.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return Layer(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), alpha, _shadow(alpha))


def compose(background: np.ndarray, layers: list[Layer]) -> np.ndarray:
    """Lay layers over `background` (H, W, 3) uint8, the first lowest, each with its shadow; a new uint8 image."""
    picture = background.astype(np.float32) / 255
    for layer in layers:
        picture = picture * (layer.shadow * (1 - layer.alpha))[..., None] + layer.rgb
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)


def vertex_normals(vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, the area-weighted mean of the faces around each vertex."""
    corners = vertices_m[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.stack(
        [np.bincount(faces.ravel(), np.repeat(face_normals[:, axis], 3), len(vertices_m)) for axis in range(3)],
        axis=1,
    )
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _rasterise(surfaces: list[Surface], shape: tuple[int, int], focal_px: float, centre: np.ndarray) -> np.ndarray:
    """(H, W, 8) float32: normal xyz, colour rgb, gloss, depth; depth 0 where nothing is."""
    offsets = np.cumsum([0, *(len(surface.vertices_m) for surface in surfaces[:-1])])
    vertices = np.concatenate([surface.vertices_m for surface in surfaces])
    faces = np.concatenate([surface.faces + at for surface, at in zip(surfaces, offsets, strict=True)])
    attributes = np.concatenate(
        [
            np.column_stack(
                [
                    vertex_normals(surface.vertices_m, surface.faces),
                    surface.rgb,
                    np.full(len(surface.rgb), surface.gloss),
                    surface.vertices_m[:, 2],
                ]
            )
            for surface in surfaces
        ]
    ).astype(np.float32)
    pixels = vertices[:, :2] / vertices[:, 2:] * focal_px + centre
    return _fill(pixels[faces], faces, attributes, shape)


def _fill(corners: np.ndarray, faces: np.ndarray, attributes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Cover pixels by half-plane tests, all triangles at once; the nearest of those on a pixel wins."""
    height, width = shape
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge_1[:, 0] * edge_2[:, 1] - edge_1[:, 1] * edge_2[:, 0]
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, (width, height)).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) - 0.5) + 1, 0, (width, height)).astype(np.int64)
    spans = np.maximum(high - low, 0)
    # y points down, so a triangle that faces the camera has negative area here.
    counts = np.where(area < 0, spans[:, 0] * spans[:, 1], 0)
    triangle = np.repeat(np.arange(len(faces), dtype=np.int32), counts)
    within = np.arange(len(triangle), dtype=np.int32) - np.repeat(np.cumsum(counts) - counts, counts)
    down, across = np.divmod(within, spans[triangle, 0])
    # Barycentric shares are affine in the offset from the box's corner: three numbers per triangle and share.
    safe = np.where(area < 0, area, -1.0)
    slopes = np.stack([edge_2[:, 1], -edge_2[:, 0], -edge_1[:, 1], edge_1[:, 0]], axis=1) / safe[:, None]
    origin = low + 0.5 - corners[:, 0]
    at_1 = slopes[:, 0] * origin[:, 0] + slopes[:, 1] * origin[:, 1]
    at_2 = slopes[:, 2] * origin[:, 0] + slopes[:, 3] * origin[:, 1]
    b_1 = at_1[triangle] + slopes[triangle, 0] * across + slopes[triangle, 1] * down
    b_2 = at_2[triangle] + slopes[triangle, 2] * across + slopes[triangle, 3] * down
    inside = np.flatnonzero((b_1 >= 0) & (b_2 >= 0) & (b_1 + b_2 <= 1))
    triangle, b_1, b_2 = triangle[inside], b_1[inside], b_2[inside]
    pixel = (low[triangle, 1] + down[inside]) * width + low[triangle, 0] + across[inside]
    shares = np.stack([1 - b_1 - b_2, b_1, b_2], axis=1).astype(np.float32)
    return _nearest(triangle, pixel, shares, faces, attributes, shape)


def _nearest(
    triangle: np.ndarray,
    pixel: np.ndarray,
    shares: np.ndarray,
    faces: np.ndarray,
    attributes: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    # Interpolated linearly on the picture: triangles are a few pixels wide, perspective within one does not show.
    depth = np.einsum("nk,nk->n", attributes[faces[triangle], 7], shares)
    nearest = np.full(shape[0] * shape[1], np.inf, np.float32)
    np.minimum.at(nearest, pixel, depth)
    wins = depth == nearest[pixel]
    out = np.zeros((shape[0] * shape[1], attributes.shape[1]), np.float32)
    out[pixel[wins]] = np.einsum("nkc,nk->nc", attributes[faces[triangle[wins]]], shares[wins])
    return out.reshape(*shape, -1)


def _shade(buffers: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) float32, zero outside, and where something is drawn (H, W) bool."""
    covered = buffers[..., 7] > 0
    normals, albedo = buffers[covered, :3], buffers[covered, 3:6]
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    light = (light / np.linalg.norm(light)).astype(np.float32)
    diffuse = np.clip((normals @ light + WRAP) / (1 + WRAP), 0, None)[:, None]
    upward = (0.5 - 0.5 * normals[:, 1])[:, None]
    ambient = upward * SKY_RGB + (1 - upward) * BOUNCE_RGB
    halfway = light + np.array([0, 0, -1], np.float32)
    facing = np.clip(normals @ (halfway / np.float32(np.linalg.norm(halfway))), 0, None)
    eighth = ((facing**2) ** 2) ** 2  # squares: ten times faster than numpy's facing**24
    shine = eighth**2 * eighth * buffers[covered, 6]
    lit = albedo * (diffuse * LIGHT_RGB + ambient * _creases(buffers[..., 7], covered)) + 0.35 * shine[:, None]
    colour = np.zeros((*covered.shape, 3), np.float32)
    colour[covered] = lit
    return colour, covered


def _creases(depth: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """(N, 1) ambient share left in each drawn pixel: less where the surroundings stand in front of it."""
    radius = round(CREASE_RADIUS * len(depth))
    size = (2 * radius + 1, 2 * radius + 1)
    total = cv2.blur(depth, size)
    share = cv2.blur(covered.astype(np.float32), size)
    behind = depth[covered] - total[covered] / share[covered]
    return np.clip(1 - CREASE_PER_M * behind, 0.35, 1.1)[:, None]


def _shadow(alpha: np.ndarray) -> np.ndarray:
    """(H, W) factor for the background under the thrown shadow."""
    height, width = alpha.shape
    shift = np.array([[1, 0, SHADOW_SHIFT[0] * height], [0, 1, SHADOW_SHIFT[1] * height]], np.float32)
    thrown = cv2.warpAffine(alpha, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return 1 - SHADOW_STRENGTH * cv2.GaussianBlur(thrown, (0, 0), SHADOW_BLUR * height)
