"""The arm's visible parts with few triangles: software rendering's time goes into triangles, not into pixels.

In: the published arm's spec. Out: the same spec whose visible mesh geoms show thinned copies; what collides stays as
published. Used by look.py. Thinning is vertex clustering on a grid (Rossignac and Borrel 1993): every vertex moves to
the mean of its cell, triangles whose corners fall together vanish.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import mujoco
import numpy as np
import trimesh

# The camera sits on the gripper and sees its fingers from 5 cm, where a pixel is 0.1 mm to 0.4 mm; all else is far.
CELL_M = {"gripper": 0.0015, "moving_jaw_so101_v1": 0.0015}
FAR_CELL_M = 0.005
VISUAL_GROUP = 2


def thin(vertices_m: np.ndarray, faces: np.ndarray, cell_m: float) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) and (F, 3) to fewer of both; no vertex moves by more than a cell's diagonal."""
    cells = np.floor((vertices_m - vertices_m.min(axis=0)) / cell_m).astype(np.int64)
    _, owner, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    owner = owner.reshape(-1)
    means = np.stack([np.bincount(owner, vertices_m[:, axis]) / count for axis in range(3)], axis=1)
    kept = owner[faces]
    corners_differ = (kept[:, 0] != kept[:, 1]) & (kept[:, 1] != kept[:, 2]) & (kept[:, 0] != kept[:, 2])
    kept = kept[corners_differ]
    _, first = np.unique(np.sort(kept, axis=1), axis=0, return_index=True)
    return means, kept[np.sort(first)]


def lighten(spec: mujoco.MjSpec, assets: Path) -> None:
    """Give every visible mesh geom of `spec` a thinned copy of its mesh, read from `assets`."""
    made: set[str] = set()
    files = {mesh.name: mesh.file for mesh in spec.meshes}
    for body in spec.bodies:
        for geom in body.geoms:
            if geom.type != mujoco.mjtGeom.mjGEOM_MESH or geom.group != VISUAL_GROUP:
                continue
            cell_m = CELL_M.get(body.name, FAR_CELL_M)
            name = f"{geom.meshname}_{round(cell_m * 1e6)}um"
            if name not in made:
                _add(spec, name, assets / files[geom.meshname], cell_m)
                made.add(name)
            geom.meshname = name


def _add(spec: mujoco.MjSpec, name: str, path: Path, cell_m: float) -> None:
    vertices_m, faces = _thinned(path, cell_m)
    # A thinned surface need not enclose a volume; its inertia is never used, the bodies have their own.
    spec.add_mesh(
        name=name,
        uservert=vertices_m.astype(np.float32).ravel(),
        userface=faces.astype(np.int32).ravel(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )


@cache
def _thinned(path: Path, cell_m: float) -> tuple[np.ndarray, np.ndarray]:
    whole = trimesh.load_mesh(path)
    return thin(np.asarray(whole.vertices), np.asarray(whole.faces), cell_m)
