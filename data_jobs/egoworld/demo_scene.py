"""What the rendered demo shows: two hands that open, close, pinch a tomato and carry it.

In: a time in seconds. Out: surfaces in camera coordinates for the renderer (models/rendering). Called by demo.py.
Everything follows from the time alone, so every frame is the same on every run.
"""

from __future__ import annotations

import numpy as np

from models.rendering.hand_mesh import FINGERS, HandMesh, pose, turn
from models.rendering.raster import Surface

DURATION_S = 8.0
SKIN_RGB = np.array([0.62, 0.43, 0.34])
RED_SKIN_RGB = np.array([0.64, 0.37, 0.30])  # finger tips and knuckles, where blood shines through
SLEEVE_RGB = np.array([0.20, 0.27, 0.38])
TOMATO_RGB = np.array([0.72, 0.10, 0.06])
TOMATO_RADIUS_M = 0.019
TOMATO_FLATTENED = 0.9
# The wrist's cross-section in the hand frame, where mesh and forearm meet: centre and half axes in x, z.
WRIST_CENTRE_M = np.array([0.001, -0.006])
WRIST_HALF_AXES_M = np.array([0.0265, 0.0185])
SLEEVE_STARTS_M = 0.006  # below the wrist: the cuff covers the mesh's own end
SLEEVE_ENDS_M = 0.30
SLEEVE_WIDTH = 1.25  # times the wrist
# A round board on a worktop that the wearer looks down on by 68 degrees.
UP = np.array([0.0, -np.cos(np.radians(68)), -np.sin(np.radians(68))])
AWAY = np.array([0.0, -np.sin(np.radians(68)), np.cos(np.radians(68))])
BOARD_CENTRE_M = np.array([0.075, 0.03, 0.53])
BOARD_RADIUS_M = 0.115
BOARD_THICKNESS_M = 0.014
BOARD_RGB = np.array([0.66, 0.60, 0.50])

# Camera from hand frame at rest: x right, y up and z to the viewer become x right, y down and z forward.
CAMERA_FROM_HAND = np.diag([1.0, -1.0, -1.0])
X, Y, Z = np.eye(3)


def ease(t_s: float, start_s: float, end_s: float) -> float:
    """0 before, 1 after, smooth between (Hermite)."""
    x = min(max((t_s - start_s) / (end_s - start_s), 0.0), 1.0)
    return x * x * (3 - 2 * x)


def board() -> list[Surface]:
    """The board alone: drawn first, so that the hands throw their shadow on it."""
    sides, rings = 96, 16
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    circle = np.cos(angle)[:, None] * X + np.sin(angle)[:, None] * AWAY
    radii = np.linspace(0, BOARD_RADIUS_M, rings)[1:]
    top = BOARD_CENTRE_M + circle[None] * radii[:, None, None]
    rim = top[-1] - UP * BOARD_THICKNESS_M
    vertices = np.concatenate([top.reshape(-1, 3), rim])
    lid = np.stack([np.full(sides, len(vertices)), np.roll(np.arange(sides), -1), np.arange(sides)], axis=1)
    faces = np.concatenate([_strip(len(radii) + 1, sides), lid])[:, ::-1]
    vertices = np.vstack([vertices, BOARD_CENTRE_M])
    across_m = (vertices - BOARD_CENTRE_M) @ (0.96 * X + 0.28 * AWAY)
    grain = 1 + 0.06 * np.sin(across_m * 210) * np.sin(across_m * 67 + 1)
    return [Surface(vertices, faces, BOARD_RGB * grain[:, None], 0.1)]


def surfaces_at(mesh: HandMesh, t_s: float) -> list[Surface]:
    """Both hands with their sleeves, and the tomato."""
    tomato_m = _tomato_path(t_s)
    return [*_right_hand(mesh, t_s, tomato_m), *_left_hand(mesh, t_s), _ball(tomato_m, TOMATO_RADIUS_M)]


def _tomato_path(t_s: float) -> np.ndarray:
    """Lies on the right of the board, is lifted and carried to the left, lies still again."""
    resting_m = BOARD_CENTRE_M + UP * TOMATO_FLATTENED * TOMATO_RADIUS_M
    start, end = resting_m + 0.06 * X - 0.02 * AWAY, resting_m - 0.06 * X + 0.03 * AWAY
    carried = ease(t_s, 3.4, 5.6)
    return start + (end - start) * carried + UP * 0.05 * np.sin(np.pi * carried)


def _right_hand(mesh: HandMesh, t_s: float, tomato_m: np.ndarray) -> list[Surface]:
    """Reaches for the tomato, pinches from 2.6 s, lets go at 6.4 s and draws back."""
    grip = ease(t_s, 2.5, 3.2) - ease(t_s, 6.2, 6.9)
    curl = 0.22 + 0.25 * (0.5 - 0.5 * np.cos(2 * np.pi * t_s / 1.6)) * (1 - grip)
    bends = _bends(dict.fromkeys(FINGERS, curl + 0.10 * grip))
    bends |= {
        "index-finger-phalanx-proximal": curl + 0.55 * grip,
        "index-finger-phalanx-intermediate": curl + 0.55 * grip,
        "index-finger-phalanx-distal": 0.5 * curl + 0.25 * grip,
        "thumb-metacarpal": 0.05 + 0.25 * grip,
        "thumb-phalanx-proximal": 0.05 + 0.25 * grip,
    }
    away = (1 - ease(t_s, 0.6, 2.5)) + ease(t_s, 6.8, 7.9)
    vertices, joints = pose(mesh, bends, {"index-finger-phalanx-proximal": 0.05})
    rotation = CAMERA_FROM_HAND @ turn(Z, 0.40 + 0.08 * np.sin(1.3 * t_s)) @ turn(X, -0.5)
    held_m = (joints["thumb-tip"] + joints["index-finger-tip"]) / 2
    wrist_m = tomato_m + away * np.array([0.055, 0.05, 0.0]) - rotation @ held_m
    return _arm(mesh, vertices, rotation, wrist_m, mirrored=False)


def _left_hand(mesh: HandMesh, t_s: float) -> list[Surface]:
    """Opens and closes, sways, and turns a little."""
    closing = 0.5 - 0.5 * np.cos(2 * np.pi * t_s / 2.4)
    bends = _bends({finger: 0.10 + (0.62 - 0.08 * at) * closing for at, finger in enumerate(FINGERS)})
    spreads = {
        f"{finger}-phalanx-proximal": side * 0.12 * (1 - closing)
        for finger, side in zip(FINGERS[1:], (1.0, 0.3, -0.4, -1.0), strict=True)
    }
    vertices, _ = pose(mesh, bends, spreads)
    sway = np.array([0.012 * np.sin(1.1 * t_s), 0.012 * np.cos(0.9 * t_s), 0.01 * np.sin(0.7 * t_s)])
    wrist_m = np.array([-0.135, 0.115, 0.46]) + sway
    rotation = CAMERA_FROM_HAND @ turn(Z, 0.28 + 0.12 * np.sin(0.8 * t_s)) @ turn(X, -0.4) @ turn(Y, 0.15)
    return _arm(mesh, vertices, rotation, wrist_m, mirrored=True)


def _bends(curls_rad: dict[str, float]) -> dict[str, float]:
    """The same curl in a finger's three joints, a little less in the last; the thumb bends half as far."""
    bends: dict[str, float] = {}
    for finger, curl in curls_rad.items():
        share = 0.45 if finger == "thumb" else 1.0
        bends |= {f"{finger}-phalanx-proximal": share * curl, f"{finger}-phalanx-distal": 0.7 * share * curl}
        bends[f"{finger}-phalanx-intermediate"] = share * curl
    return bends


def _arm(
    mesh: HandMesh, vertices_m: np.ndarray, rotation: np.ndarray, wrist_m: np.ndarray, *, mirrored: bool
) -> list[Surface]:
    """Hand and sleeve in the camera frame; a mirrored hand is turned inside out twice."""
    flip = np.diag([-1.0, 1.0, 1.0]) if mirrored else np.eye(3)
    # The hand is posed as a right one, so a left hand's rotation is mirrored as well: M R M.
    camera_from_hand = flip @ rotation @ flip
    sleeve_m, sleeve_faces = _tube(SLEEVE_STARTS_M, SLEEVE_ENDS_M)
    parts = [
        (vertices_m, mesh.faces, _skin(mesh), 0.25),
        (sleeve_m, sleeve_faces, np.tile(SLEEVE_RGB, (len(sleeve_m), 1)), 0.0),
    ]
    return [
        Surface(at @ flip @ camera_from_hand.T + wrist_m, faces[:, ::-1] if mirrored else faces, rgb, gloss)
        for at, faces, rgb, gloss in parts
    ]


def _skin(mesh: HandMesh) -> np.ndarray:
    """(V, 3) colour: redder near finger tips and knuckles."""
    red_joints = [
        at
        for at, name in enumerate(mesh.joint_names)
        if name.endswith(("tip", "phalanx-proximal", "phalanx-intermediate"))
    ]
    distance_m = np.linalg.norm(mesh.vertices_m[:, None] - mesh.joints_m[red_joints], axis=2).min(axis=1)
    red = np.exp(-((distance_m / 0.012) ** 2))[:, None]
    return SKIN_RGB + (RED_SKIN_RGB - SKIN_RGB) * red


def _strip(rings: int, sides: int) -> np.ndarray:
    """(F, 3) faces between neighbouring closed rings of vertices, ring after ring."""
    here = np.arange((rings - 1) * sides).reshape(rings - 1, sides)
    right = np.roll(here, -1, axis=1)
    return np.stack([here, right, right + sides, here, right + sides, here + sides], axis=-1).reshape(-1, 3)


def _tube(start_m: float, end_m: float) -> tuple[np.ndarray, np.ndarray]:
    """A sleeve from `start_m` to `end_m` below the wrist, in the hand frame: its cuff closed by a lid."""
    rings, sides = 24, 40
    down = np.linspace(start_m, end_m, rings)
    # A forearm widens to about 1.6 times the wrist at the elbow, a quarter of a metre on.
    widening = SLEEVE_WIDTH * (1 + 0.6 * np.clip(down / 0.25, 0, 1))
    widening[0] *= 0.94  # a rounded hem
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    circle = np.stack([np.cos(angle), np.zeros(sides), np.sin(angle)], axis=1)
    half_axes = np.array([WRIST_HALF_AXES_M[0], 0, WRIST_HALF_AXES_M[1]])
    centres = np.stack([np.full(rings, WRIST_CENTRE_M[0]), -down, np.full(rings, WRIST_CENTRE_M[1])], axis=1)
    vertices = (centres[:, None] + circle * half_axes * widening[:, None, None]).reshape(-1, 3)
    lid = np.stack([np.full(sides, len(vertices)), np.roll(np.arange(sides), -1), np.arange(sides)], axis=1)
    return np.vstack([vertices, centres[:1]]), np.concatenate([_strip(rings, sides), lid])


def _ball(centre_m: np.ndarray, radius_m: float) -> Surface:
    """A slightly flattened ball."""
    rings, sides = 20, 32
    polar, around = np.meshgrid(
        np.linspace(0.02, np.pi - 0.02, rings), np.linspace(0, 2 * np.pi, sides, endpoint=False), indexing="ij"
    )
    unit = np.stack([np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], axis=-1)
    faces = _strip(rings, sides)
    vertices = unit.reshape(-1, 3) * radius_m * np.array([1.0, TOMATO_FLATTENED, 1.0]) + centre_m
    return Surface(vertices, faces, np.tile(TOMATO_RGB, (len(vertices), 1)), 0.9)
