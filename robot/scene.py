"""The simulated table: SO-101, a red cube and the wrist camera, as one MuJoCo model.

In: nothing but the published arm. Out: a compiled model and the class of each body's pixels. Used by sim.py.
Contact settings, cube and camera are those of the public policies' training scene (ggand0/pick-101
models/so101/lift_cube.xml, camera of its devlog 066).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mujoco
import numpy as np

from robot.arm import arm_spec
from robot.contract import SEGMENTER_CLASSES
from robot.records import JOINTS

TIMESTEP_S = 0.002
CUBE_HALF_M = 0.015
CUBE_MASS_KG = 0.03
CAMERA = "wrist"
CAMERA_POSITION_M = (0.008, -0.065, -0.019)
CAMERA_TILT_RAD = 0.398  # about x, then half a turn about z
CAMERA_FOV_DEG = 70.5
# Stall torque of the STS3215 at 12 V. With it the measured response of the training loop (4.4, 12.5, 16.6, 18.2 mm
# after 1..4 steps of one 20 mm command) is met within 0.4 mm; the package's 3.35 N m is too quick by 2 mm.
SERVO_TORQUE_N_M = 2.94
# The camera sits 2 cm from the fingers: with MuJoCo's default the near plane cuts them away.
NEAR_PLANE = 0.005

CLASS_OF_BODY = {
    "world": "table",
    "cube": "cube",
    "gripper": "static_finger",
    "moving_jaw_so101_v1": "moving_finger",
}


def _camera_quaternion() -> tuple[float, float, float, float]:
    """(w, x, y, z) of a turn about x by the tilt, then about the turned z by π."""
    half = CAMERA_TILT_RAD / 2
    return (0.0, 0.0, -math.sin(half), math.cos(half))


def _add_table(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    # Off-white top with a faint checker, so that the picture has texture for cameras and depth networks.
    spec.add_texture(
        name="table",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=(0.78, 0.74, 0.68),
        rgb2=(0.70, 0.66, 0.61),
        width=256,
        height=256,
    )
    material = spec.add_material(name="table", texrepeat=(12, 12))
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "table"
    world.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0.7, 0.7, 0.05), pos=(0.2, 0, 0), material="table"
    )
    world.add_light(pos=(0.1, -0.3, 1.5), dir=(0.1, 0.2, -1), castshadow=False, diffuse=(0.5, 0.5, 0.5))
    cube = world.add_body(name="cube", pos=(0.25, 0.0, CUBE_HALF_M))
    cube.add_freejoint(name="cube")
    cube.add_geom(
        name="cube",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(CUBE_HALF_M,) * 3,
        mass=CUBE_MASS_KG,
        rgba=(0.9, 0.1, 0.1, 1),
        friction=(0.5, 0.05, 0.001),
        condim=4,
    )


def _set_physics(spec: mujoco.MjSpec) -> None:
    option = spec.option
    option.timestep, option.noslip_iterations, option.impratio = TIMESTEP_S, 3, 10
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    for actuator in spec.actuators:
        actuator.forcerange = (-SERVO_TORQUE_N_M, SERVO_TORQUE_N_M)
    spec.visual.map.znear = NEAR_PLANE
    spec.visual.quality.offsamples = 0  # no multisampling: a quarter of the software renderer's time
    spec.visual.headlight.diffuse = (0.5, 0.5, 0.5)
    spec.visual.headlight.ambient = (0.35, 0.35, 0.35)


def build(add: Callable[[mujoco.MjSpec], None] | None = None) -> tuple[mujoco.MjModel, np.ndarray]:
    """The compiled scene and (nbody,) uint8 class ids in SEGMENTER_CLASSES for its bodies.

    `add` may change it before it is compiled (training does: clutter, lighter meshes); new bodies are background.
    """
    spec = arm_spec()
    _set_physics(spec)
    _add_table(spec)
    spec.body("gripper").add_camera(name=CAMERA, pos=CAMERA_POSITION_M, quat=_camera_quaternion(), fovy=CAMERA_FOV_DEG)
    if add is not None:
        add(spec)
    model = spec.compile()
    names = [CLASS_OF_BODY.get(model.body(index).name, "background") for index in range(model.nbody)]
    return model, np.array([SEGMENTER_CLASSES.index(name) for name in names], np.uint8)


def joint_addresses(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where JOINTS lie in qpos, qvel and ctrl."""
    joints = [model.joint(name) for name in JOINTS]
    return (
        np.array([joint.qposadr[0] for joint in joints]),
        np.array([joint.dofadr[0] for joint in joints]),
        np.array([model.actuator(name).id for name in JOINTS]),
    )
