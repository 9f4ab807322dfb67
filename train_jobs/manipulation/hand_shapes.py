"""Right hands of many shapes in many postures, from one rigged mesh: finger lengths, girths, bends.

In: a shape, bends and spreads. Out: skin, 21 joints in MediaPipe's order, which skin belongs to which contact region,
in metres in the hand's frame of models/rendering/hand_mesh.py. Called by grasping.py and synthetic.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from models.rendering.hand_mesh import HandMesh, load_hand

FloatArray = npt.NDArray[np.float64]
FINGERS = ("thumb", "index-finger", "middle-finger", "ring-finger", "pinky-finger")
JOINT_NAMES = (
    "wrist", "thumb-metacarpal", "thumb-phalanx-proximal", "thumb-phalanx-distal", "thumb-tip",
    *(f"{finger}-{bone}" for finger in FINGERS[1:]
      for bone in ("phalanx-proximal", "phalanx-intermediate", "phalanx-distal", "tip")),
)  # fmt: skip
# Bones of the contact regions: the ends of the fingers, then the bones before.
REGION_BONES = (
    *(f"{finger}-phalanx-distal" for finger in FINGERS),
    "thumb-phalanx-proximal", *(f"{finger}-phalanx-intermediate" for finger in FINGERS[1:]),
)  # fmt: skip
# Half a finger's thickness at its bones, for a shape of girth 1.
FINGER_RADIUS_M = 0.0085


@dataclass(frozen=True, slots=True)
class HandShape:
    """What makes one person's hand: shares of the mesh's own measures."""

    size: float
    girth: float
    lengths: tuple[float, ...]  # of thumb to little finger


def random_shape(rng: np.random.Generator) -> HandShape:
    """Hands of grown people: 15 to 21 cm long."""
    lengths = tuple(float(value) for value in rng.uniform(0.92, 1.08, 5))
    return HandShape(float(rng.uniform(0.84, 1.14)), float(rng.uniform(0.88, 1.15)), lengths)


@dataclass(frozen=True, slots=True)
class ShapedHand:
    """A mesh of one shape at rest, with what posing needs."""

    mesh: HandMesh
    shape: HandShape
    region_of_vertex: npt.NDArray[np.int64]  # (V,) contact region, −1 for the rest

    @property
    def radius_m(self) -> float:
        """Half a finger's thickness."""
        return FINGER_RADIUS_M * self.shape.size * self.shape.girth


@cache
def _rest() -> HandMesh:
    return load_hand()


def shaped(shape: HandShape) -> ShapedHand:
    """The mesh with longer or shorter, thicker or thinner fingers."""
    mesh = _rest()
    joints = mesh.joints_m.copy()
    stretch = np.ones(len(joints))
    for number, finger in enumerate(FINGERS):
        for at, name in enumerate(mesh.joint_names):
            if name.startswith(finger):
                stretch[at] = shape.lengths[number]
    for at in range(1, len(joints)):
        parent = mesh.parents[at]
        grows = stretch[at] if parent else 1.0  # the palm keeps its proportions
        joints[at] = joints[parent] + grows * (mesh.joints_m[at] - mesh.joints_m[parent])
    along = _bone_directions(mesh)
    local = mesh.vertices_m[None] - mesh.joints_m[:, None]
    along_part = np.einsum("jva,ja->jv", local, along)[..., None] * along[:, None]
    # A bone's own vertices stretch with the next joint along it, and with the girth across.
    grown = along_part * stretch[:, None, None] + (local - along_part) * shape.girth
    vertices = np.einsum("vj,jva->va", mesh.weights, grown + joints[:, None])
    own = HandMesh(shape.size * vertices, mesh.faces, mesh.weights, mesh.joint_names, mesh.parents,
                   shape.size * joints, mesh.bend_axes)  # fmt: skip
    return ShapedHand(own, shape, _regions(mesh))


def _bone_directions(mesh: HandMesh) -> FloatArray:
    """(J, 3) unit: towards the next joint of the finger; zero for the wrist, whose vertices keep their place."""
    ways = np.zeros_like(mesh.joints_m)
    for at in range(1, len(ways)):
        child = next((k for k in range(len(ways)) if k != at and mesh.parents[k] == at), None)
        way = mesh.joints_m[child] - mesh.joints_m[at] if child else mesh.joints_m[at] - mesh.joints_m[mesh.parents[at]]
        ways[at] = way / np.linalg.norm(way)
    return ways


def _regions(mesh: HandMesh) -> npt.NDArray[np.int64]:
    bone = mesh.weights.argmax(axis=1)
    names = [mesh.joint_names[k].replace("-tip", "-phalanx-distal") for k in bone]
    return np.array([REGION_BONES.index(name) if name in REGION_BONES else -1 for name in names])


@dataclass(frozen=True, slots=True)
class Posture:
    """Closing of five fingers (0 open, 1 a fist), their own joints' deviations, and spreads."""

    closing: FloatArray  # (5,) thumb first
    deviation: FloatArray  # (5, 3) radians, added to the three joints of each finger
    spread_rad: FloatArray  # (5,)
    opposition: float  # 0 the thumb beside the palm, 1 in front of it


# Full bend in radians of a finger's three joints, and of the thumb's.
BEND_RAD = np.array([[0.35, 0.6, 0.9], [1.35, 1.6, 1.0], [1.35, 1.6, 1.0], [1.35, 1.6, 1.0], [1.35, 1.6, 1.0]])
OPPOSED_RAD = 0.7


def random_posture(rng: np.random.Generator) -> Posture:
    """Fingers that mostly move together, sometimes one by one."""
    together = rng.beta(1.2, 1.5)
    closing = np.clip(together + rng.normal(0, rng.choice([0.08, 0.3]), 5), 0, 1)
    return Posture(closing, rng.normal(0, 0.1, (5, 3)), rng.normal(0, 0.09, 5), float(rng.uniform(0, 1)))


def turns(hand: ShapedHand, posture: Posture, closings: FloatArray) -> FloatArray:
    """Rotations (K, J, 3, 3) of each joint in its parent, for K closings (K, 5) of the same posture."""
    mesh = hand.mesh
    found = np.broadcast_to(np.eye(3), (len(closings), len(mesh.joint_names), 3, 3)).copy()
    normal = np.array([0.0, 0.0, 1.0])
    for finger, name in enumerate(FINGERS):
        joints = [k for k, joint in enumerate(mesh.joint_names) if joint.startswith(name) and not joint.endswith("tip")]
        for bone, joint in enumerate(joints[-3:]):
            angle = closings[:, finger] * BEND_RAD[finger, bone] + posture.deviation[finger, bone]
            found[:, joint] = _about(mesh.bend_axes[joint], angle)
            if bone == 0:
                found[:, joint] = _about(normal, np.full(len(closings), posture.spread_rad[finger])) @ found[:, joint]
                if finger == 0:  # towards the palm, about the forearm's axis
                    aside = np.full(len(closings), -OPPOSED_RAD * posture.opposition)
                    found[:, joint] = _about(np.array([0.0, 1.0, 0.0]), aside) @ found[:, joint]
    return found


def _about(axis: FloatArray, angle_rad: FloatArray) -> FloatArray:
    """(K, 3, 3) turns about one unit axis (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sine, versine = np.sin(angle_rad)[:, None, None], (1 - np.cos(angle_rad))[:, None, None]
    return np.asarray(np.eye(3) + sine * cross + versine * (cross @ cross))


def frames(hand: ShapedHand, local: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rotations (K, J, 3, 3) and places (K, J, 3) of all joints in the hand's frame."""
    mesh = hand.mesh
    rotations, places = np.empty_like(local), np.empty(local.shape[:-1])
    rotations[:, 0], places[:, 0] = np.eye(3), 0
    for at in range(1, len(mesh.joint_names)):
        parent = mesh.parents[at]
        places[:, at] = places[:, parent] + rotations[:, parent] @ (mesh.joints_m[at] - mesh.joints_m[parent])
        rotations[:, at] = rotations[:, parent] @ local[:, at]
    return rotations, places


def joints_of(hand: ShapedHand, places: FloatArray) -> FloatArray:
    """(..., 21, 3) of places (..., J, 3)."""
    return np.asarray(places[..., [hand.mesh.joint_names.index(name) for name in JOINT_NAMES], :])


def skin(hand: ShapedHand, rotations: FloatArray, places: FloatArray) -> FloatArray:
    """(V, 3) of one posture, by linear blend skinning."""
    mesh = hand.mesh
    # Sum over joints of w (R (v − rest) + place), gathered so that no (J, V, 3) array is made.
    moves = np.concatenate([rotations, (places - np.einsum("jab,jb->ja", rotations, mesh.joints_m))[..., None]], -1)
    blended = (mesh.weights @ moves.reshape(len(moves), 12)).reshape(-1, 3, 4)
    return np.asarray(np.einsum("vab,vb->va", blended[..., :3], mesh.vertices_m) + blended[..., 3])
