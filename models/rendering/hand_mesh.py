"""A rigged hand: its mesh from a GLB file, posed by bending joints.

In: the GLB in assets/. Out: vertices and joints in metres for any pose. Called by the demo's scene and by the synthetic
hands of train_jobs/manipulation. Knows nothing of images.

Hand frame of a right hand: origin at the wrist joint, +x to the little finger, +y to the finger tips, +z out of the
back of the hand; so a viewer on +z sees the back with the thumb on the left. A left hand is the mirror image in x.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HAND_GLB = Path(__file__).parent / "assets" / "generic_hand_right.glb"
FINGERS = ("thumb", "index-finger", "middle-finger", "ring-finger", "pinky-finger")
BONES = ("metacarpal", "phalanx-proximal", "phalanx-intermediate", "phalanx-distal", "tip")
# glTF component and element types (Khronos glTF 2.0, section 3.6.2.2).
COMPONENT_DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
ELEMENT_SIZES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
# Rows are the hand frame's axes written in the file's axes (fingers along -y, thumb towards -z, back of the hand +x).
HAND_FROM_FILE = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])


@dataclass(frozen=True, slots=True)
class HandMesh:
    """A skinned right hand at rest, in the hand frame; parents stand before their children."""

    vertices_m: np.ndarray  # (V, 3) float64
    faces: np.ndarray  # (F, 3) int64, counter-clockwise seen from outside
    weights: np.ndarray  # (V, J) float64, rows sum to 1
    joint_names: tuple[str, ...]  # J WebXR names, the wrist first
    parents: tuple[int, ...]  # J, the wrist's is itself
    joints_m: np.ndarray  # (J, 3) float64
    bend_axes: np.ndarray  # (J, 3) float64 unit: turning about it by a positive angle closes the hand

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for name in ("vertices_m", "weights", "joints_m", "bend_axes"):
            self._keep(name, np.float64)
        self._keep("faces", np.int64)

    def _keep(self, name: str, dtype: type) -> None:
        array: np.ndarray = np.array(getattr(self, name), dtype)
        array.flags.writeable = False
        object.__setattr__(self, name, array)


def load_hand(path: Path = HAND_GLB) -> HandMesh:
    """Read the hand and weld vertices that texture seams had split; ValueError if the file is no binary glTF 2."""
    raw = path.read_bytes()
    magic, version, _ = struct.unpack_from("<4sII", raw)
    if magic != b"glTF" or version != 2:
        raise ValueError(f"{path} is not a binary glTF 2 file")
    json_bytes = struct.unpack_from("<I", raw, 12)[0]
    document = json.loads(raw[20 : 20 + json_bytes])
    binary = raw[20 + json_bytes + 8 :]
    return _hand_of(document, binary)


def _hand_of(document: dict[str, Any], binary: bytes) -> HandMesh:
    primitive = document["meshes"][0]["primitives"][0]
    read = {name: _accessor(document, binary, index) for name, index in primitive["attributes"].items()}
    nodes = [document["nodes"][index] for index in document["skins"][0]["joints"]]
    by_name = {node["name"]: (index, node) for index, node in enumerate(nodes)}
    names, parents = _tree(set(by_name))
    order = [by_name[name][0] for name in names]
    joints_m = np.array([by_name[name][1]["translation"] for name in names]) @ HAND_FROM_FILE.T
    weights = np.zeros((len(read["POSITION"]), len(nodes)))
    np.add.at(weights, (np.arange(len(weights))[:, None], read["JOINTS_0"]), read["WEIGHTS_0"])
    positions, first, welded = np.unique(read["POSITION"], axis=0, return_index=True, return_inverse=True)
    return HandMesh(
        vertices_m=positions @ HAND_FROM_FILE.T - joints_m[0],
        faces=welded.ravel()[_accessor(document, binary, primitive["indices"]).reshape(-1, 3)],
        weights=weights[first][:, order] / weights[first].sum(axis=1, keepdims=True),
        joint_names=names,
        parents=parents,
        joints_m=joints_m - joints_m[0],
        bend_axes=np.array([_bend_axis(by_name[name][1]["rotation"]) for name in names]),
    )


def _accessor(document: dict[str, Any], binary: bytes, index: int) -> np.ndarray:
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    width = ELEMENT_SIZES[accessor["type"]]
    offset = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    dtype = COMPONENT_DTYPES[accessor["componentType"]]
    return np.frombuffer(binary, dtype, accessor["count"] * width, offset).reshape(-1, width)


def _tree(present: set[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The file lists joints flat; WebXR's names give the chains (the thumb has no intermediate phalanx)."""
    names, parents = ["wrist"], [0]
    for finger in FINGERS:
        chain = [f"{finger}-{bone}" for bone in BONES if f"{finger}-{bone}" in present]
        parents += [0, *range(len(names), len(names) + len(chain) - 1)]
        names += chain
    return tuple(names), tuple(parents)


def _bend_axis(rotation_xyzw: list[float]) -> np.ndarray:
    """WebXR Hand Input, section 4: a joint's -z runs along its bone and -y to the palm, so it closes about -x."""
    x, y, z, w = rotation_xyzw
    local_x = np.array([1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)])
    return -(HAND_FROM_FILE @ local_x)


def turn(axis: np.ndarray, angle_rad: float) -> np.ndarray:
    """(3, 3) rotation about a unit axis (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle_rad) * cross + (1 - np.cos(angle_rad)) * (cross @ cross)


def pose(
    mesh: HandMesh, bends_rad: Mapping[str, float], spreads_rad: Mapping[str, float]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Vertices (V, 3) and joints {name: (3,)} of the posed hand by linear blend skinning, hand frame, metres.

    `bends_rad` closes a joint by name; `spreads_rad` turns it sideways, about the normal of the hand's back.
    """
    normal = np.array([0.0, 0.0, 1.0])
    rotations, positions = [np.eye(3)], [np.zeros(3)]
    for at, name in enumerate(mesh.joint_names[1:], start=1):
        parent = mesh.parents[at]
        own = turn(normal, spreads_rad.get(name, 0.0)) @ turn(mesh.bend_axes[at], bends_rad.get(name, 0.0))
        positions.append(positions[parent] + rotations[parent] @ (mesh.joints_m[at] - mesh.joints_m[parent]))
        rotations.append(rotations[parent] @ own)
    local_m = mesh.vertices_m[None] - mesh.joints_m[:, None]
    moved_m = np.einsum("jab,jvb->jva", np.array(rotations), local_m) + np.array(positions)[:, None]
    return np.einsum("vj,jva->va", mesh.weights, moved_m), dict(zip(mesh.joint_names, positions, strict=True))
