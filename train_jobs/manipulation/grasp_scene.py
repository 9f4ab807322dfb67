"""A Universal Robots arm with an Allegro hand over a table, and one object, as a MuJoCo model made from our kinematics.

In: an arm's name, a side, an object. Out: a compiled model. Called by grasps.py. Joints, limits, speeds and efforts are
those of models/kinematics; shapes are capsules from joint to joint with radii of the real links, and a box for the
palm: no meshes. Masses are rounded from the manufacturers' sheets. Gravity on the robot is compensated, as its
controllers do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from models.kinematics import ur
from models.kinematics.allegro import AllegroHand, allegro
from models.kinematics.urdf import RobotTree

TIMESTEP_S = 0.002
ARM_RADII_M = (0.06, 0.055, 0.045, 0.04, 0.04, 0.035)
ARM_MASSES_KG = (3.8, 8.1, 2.8, 1.4, 1.3, 0.4)
ARM_TORQUES_N_M = (150.0, 150.0, 150.0, 28.0, 28.0, 28.0)
# Servo gains per N m of a joint's torque, and the rotors behind their gears.
ARM_STIFFNESS, ARM_DAMPING, ARM_ARMATURE = 30.0, 1.0, 0.1  # 1/rad, s/rad, kg m²
# Four links per finger, from the palm outwards; the last ends in a rubber ball.
FINGER_RADII_M, TIP_RADIUS_M = (0.010, 0.013, 0.012, 0.011), 0.012
FINGER_MASSES_KG, PALM_MASS_KG = (0.012, 0.065, 0.036, 0.026), 0.42
FINGER_STIFFNESS, FINGER_DAMPING, FINGER_TORQUE_N_M = 3.0, 0.15, 0.7  # N m/rad, N m s/rad, N m
FINGER_ARMATURE = 1e-3  # kg m²: the rotors behind their gears
RUBBER_FRICTION = (1.0, 0.005, 0.0001)
TABLE_FRICTION = (0.6, 0.005, 0.0005)
# Who touches whom: bits of MuJoCo's contact filter.
OBJECT, HAND, DISTAL = 1, 2, 4

SKY = (0.93, 0.94, 0.95)

GREY, BLUE, ORANGE, WOOD = (0.75, 0.76, 0.78, 1), (0.17, 0.36, 0.62, 1), (0.93, 0.5, 0.13, 1), (0.82, 0.77, 0.7, 1)
TYPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "ball": mujoco.mjtGeom.mjGEOM_SPHERE,
}


@dataclass(frozen=True, slots=True)
class Thing:
    """An object that stands on the table."""

    kind: str  # a key of TYPES
    half_m: tuple[float, float, float]  # half its extent along x, y, z
    mass_kg: float
    place_m: tuple[float, float]  # of its centre on the table
    yaw_rad: float


def build(arm: str, side: str, thing: Thing) -> mujoco.MjModel:
    """The scene. Actuators and joints come in the order of a 22-angle command: 6 of the arm, 16 of the hand."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    option = spec.option
    option.timestep, option.impratio, option.cone = TIMESTEP_S, 10, mujoco.mjtCone.mjCONE_ELLIPTIC
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    _furnish(spec, thing)
    flange = _add_arm(spec, ur.arm_named(arm))
    _add_hand(spec, flange, allegro(side))
    return spec.compile()


def _furnish(spec: mujoco.MjSpec, thing: Thing) -> None:
    world = spec.worldbody
    plane, quality = mujoco.mjtGeom.mjGEOM_PLANE, spec.visual.quality
    quality.offsamples = 4
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = (0.35,) * 3, (0.45,) * 3
    world.add_light(pos=(0.3, -0.6, 1.6), dir=(0.1, 0.4, -1), diffuse=(0.5,) * 3, castshadow=False)
    flat, sky = mujoco.mjtBuiltin.mjBUILTIN_FLAT, mujoco.mjtTexture.mjTEXTURE_SKYBOX
    spec.add_texture(name="sky", type=sky, builtin=flat, rgb1=SKY, rgb2=SKY, width=16, height=16)
    world.add_geom(name="table", type=plane, size=(1.5, 1.5, 0.05), rgba=WOOD, contype=OBJECT, conaffinity=0,
                   friction=TABLE_FRICTION)  # fmt: skip
    world.add_camera(name="side", pos=(0.95, -0.62, 0.5), fovy=34, xyaxes=_towards((0.95, -0.62, 0.5), (0.4, 0, 0.2)))
    half_turn = thing.yaw_rad / 2
    body = world.add_body(name="object", pos=(*thing.place_m, thing.half_m[2]),
                          quat=(np.cos(half_turn), 0, 0, np.sin(half_turn)))  # fmt: skip
    body.add_freejoint(name="object")
    body.add_geom(name="object", type=TYPES[thing.kind], size=_size(thing), mass=thing.mass_kg, rgba=ORANGE,
                  contype=OBJECT, conaffinity=OBJECT | HAND, condim=4, friction=RUBBER_FRICTION)  # fmt: skip


def _size(thing: Thing) -> tuple[float, ...]:
    wide, deep, high = thing.half_m
    return {"box": (wide, deep, high), "cylinder": (wide, high, 0.0), "ball": (wide, 0.0, 0.0)}[thing.kind]


def _towards(eye: tuple[float, ...], target: tuple[float, ...]) -> np.ndarray:
    """(6,) x and y axes of a camera at `eye` that looks at `target`, level."""
    back = np.subtract(eye, target)
    right = np.cross((0, 0, 1), back)
    up = np.cross(back, right)
    return np.concatenate([right / np.linalg.norm(right), up / np.linalg.norm(up)])


def _add_arm(spec: mujoco.MjSpec, arm: ur.UrArm) -> Any:
    """The six links; returns the flange's body. Each body's frame is the Denavit-Hartenberg frame before its joint."""
    lengths = ((arm.d1, 0.0, 1), (0.0, arm.a2, 0), (0.0, arm.a3, 0), (arm.d4, 0.0, 1), (arm.d5, 0.0, -1),
               (arm.d6, 0.0, 0))  # fmt: skip
    parent, place, quarter = spec.worldbody, (0.0, 0.0, 0.0), 0
    for k, (d, a, twist) in enumerate(lengths):
        body = parent.add_body(name=f"arm_{k}", pos=place, quat=_about_x(quarter), gravcomp=1)
        joint = body.add_joint(name=f"arm_{k}", axis=(0, 0, 1), range=(-arm.limit_rad, arm.limit_rad))
        joint.limited, joint.armature = True, ARM_ARMATURE
        place, quarter = (a, 0.0, d), twist
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=(0, 0, 0, a, 0, d), size=(ARM_RADII_M[k], 0, 0),
                      mass=ARM_MASSES_KG[k], rgba=GREY, contype=0, conaffinity=0)  # fmt: skip
        torque = ARM_TORQUES_N_M[k]
        _add_servo(spec, joint.name, ARM_STIFFNESS * torque, ARM_DAMPING * torque, torque)
        parent = body
    return parent.add_body(name="flange", pos=place, quat=_about_x(quarter), gravcomp=1)


def _about_x(quarter: int) -> tuple[float, float, float, float]:
    return (np.cos(quarter * np.pi / 4), np.sin(quarter * np.pi / 4), 0.0, 0.0)


def _add_hand(spec: mujoco.MjSpec, flange: Any, hand: AllegroHand) -> None:
    """The hand with its `wrist` link on the flange."""
    tree = hand.tree
    wrist = tree.link("wrist")
    base = flange.add_body(name="palm", pos=-tree.link_offset_m[wrist], gravcomp=1)
    shape = {"rgba": BLUE, "contype": HAND, "conaffinity": OBJECT, "condim": 4, "friction": RUBBER_FRICTION}
    base.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=(-0.012, 0, -0.0475), size=(0.018, 0.056, 0.0475),
                  mass=PALM_MASS_KG, **shape)  # fmt: skip
    bodies: list[Any] = []
    for k, name in enumerate(tree.joints):
        parent = base if tree.parent[k] < 0 else bodies[tree.parent[k]]
        body = parent.add_body(name=name, pos=tree.offset_m[k], quat=_quaternion(tree.rotation[k]), gravcomp=1)
        joint = body.add_joint(name=name, axis=tree.axis[k], range=(tree.lower_rad[k], tree.upper_rad[k]))
        joint.limited, joint.armature = True, FINGER_ARMATURE
        segment = k % 4
        touch = shape | ({"contype": HAND | DISTAL, "conaffinity": OBJECT | DISTAL} if segment >= 2 else {})
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=(0, 0, 0, *_end(tree, k)),
                      size=(FINGER_RADII_M[segment], 0, 0), mass=FINGER_MASSES_KG[segment], **touch)  # fmt: skip
        if segment == 3:
            body.add_geom(name=f"tip_{k // 4}", type=mujoco.mjtGeom.mjGEOM_SPHERE, pos=_end(tree, k),
                          size=(TIP_RADIUS_M, 0, 0), mass=0.0, **(touch | {"rgba": GREY}))  # fmt: skip
        _add_servo(spec, name, FINGER_STIFFNESS, FINGER_DAMPING, FINGER_TORQUE_N_M)
        bodies.append(body)


def _end(tree: RobotTree, joint: int) -> np.ndarray:
    """Where the next joint of the finger is, or its tip, in this joint's frame."""
    if joint % 4 < 3:
        return tree.offset_m[joint + 1]
    return tree.link_offset_m[tree.link(f"link_{joint}.0_tip")]


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    found = np.zeros(4)
    mujoco.mju_mat2Quat(found, rotation.flatten())
    return found


def _add_servo(spec: mujoco.MjSpec, joint: str, stiffness: float, damping: float, torque_n_m: float) -> None:
    actuator = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    actuator.set_to_position(kp=stiffness, kv=damping)
    actuator.forcerange, actuator.forcelimited = (-torque_n_m, torque_n_m), True
