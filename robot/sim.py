"""A simulated SO-101 over a table with a cube: the embedded default robot.

In: joint targets. Out: joints, and the wrist camera's colour, depth and class ids. Driven by the loop's clock: physics
is advanced to `clock.now_ns()` whenever it is asked. With a real clock the camera runs in its own thread, like a real
one; with a VirtualClock every observation renders its own frame and the whole run is deterministic.
"""

from __future__ import annotations

import threading
from typing import Any

import mujoco
import numpy as np
from pydantic import BaseModel, Field

from robot import scene
from robot.arm import Arm
from robot.cartesian import MAX_STEP_RAD, damped_step, gripper_rad
from robot.contract import ArmOffer, CameraOffer
from robot.errors import ConnectionFailed, ObservationError
from robot.priority import give_way
from robot.rate import Clock
from robot.records import JOINTS, N_ARM_JOINTS, Frame, Joints, Observation
from robot.rendering import WristCamera

# More simulated time than this is not caught up after a stall: the world stood still with us.
MAX_CATCH_UP_S = 0.25
# Start of an episode as in training (stage 3): wrist down, jaw 65 % open, tool 35 mm above the cube's centre and
# 15 mm beside it, because the fixed finger is thicker than the moving one.
WRIST_DOWN_RAD = np.pi / 2
START_OPENING = 0.3
START_OFFSET_M = (0.0, -0.015, 0.035)
CUBE_CENTRE_M = (0.25, 0.0)
CUBE_SPREAD_M = 0.02


class SimConfig(BaseModel, frozen=True, extra="forbid"):
    """One simulated episode."""

    width_px: int = Field(default=640, gt=0)
    height_px: int = Field(default=480, gt=0)
    camera_fps: float = Field(default=30.0, gt=0)
    camera: bool = Field(default=True, description="without it nothing is rendered and no OpenGL is needed")
    planes: bool = Field(default=True, description="depth and class ids beside colour")
    seed: int = 0


class SimRobot:
    """Robot protocol over MuJoCo."""

    def __init__(self, config: SimConfig, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        self.model, self._body_class = scene.build()
        self.data = mujoco.MjData(self.model)
        self._qpos, self._qvel, self._ctrl = scene.joint_addresses(self.model)
        self._cube = self.model.body("cube").id
        self._time_ns = 0
        self.cube_highest_m = 0.0  # of its centre, since the reset
        self._camera: WristCamera | None = None
        self._eye: _CameraThread | None = None

    def connect(self) -> None:
        """Reset the episode and open the camera."""
        self.reset()
        if not self.config.camera:
            return
        if self._clock.virtual:
            self._camera = self._open_camera()
        else:
            self._eye = _CameraThread(self)
            self._eye.start()

    def reset(self) -> None:
        """Cube at its seeded place, arm above it, everything at rest."""
        rng = np.random.default_rng(self.config.seed)
        cube_xy = np.array(CUBE_CENTRE_M) + rng.uniform(-CUBE_SPREAD_M, CUBE_SPREAD_M, 2)
        mujoco.mj_resetData(self.model, self.data)
        address = self.model.joint("cube").qposadr[0]
        self.data.qpos[address : address + 2] = cube_xy
        start = start_pose(Arm(), np.append(cube_xy, scene.CUBE_HALF_M) + START_OFFSET_M)
        self.data.qpos[self._qpos] = start
        self.data.ctrl[self._ctrl] = start
        mujoco.mj_forward(self.model, self.data)
        self.cube_highest_m = float(self.cube_position_m()[2])
        self._time_ns = self._clock.now_ns()

    def arm_offer(self) -> ArmOffer:
        """A perfect SO-101."""
        return ArmOffer("simulated SO-101", JOINTS, "mujoco_base", calibrated=True)

    def camera_offer(self) -> CameraOffer | None:
        """The rendered wrist camera."""
        if not self.config.camera:
            return None
        size = (self.config.width_px, self.config.height_px)
        return CameraOffer(*size, "rgb", scene.CAMERA_FOV_DEG, has_depth=self.config.planes, noisy=False)

    def enable(self) -> None:
        """Simulated servos always hold."""

    def observe(self) -> Observation:
        """Advance the world to now and look at it."""
        self._advance()
        now_ns = self._clock.now_ns()
        joints = Joints(self.data.qpos[self._qpos], self.data.qvel[self._qvel], now_ns)
        return Observation(joints, self._frame(now_ns), self.cube_position_m())

    def cube_position_m(self) -> np.ndarray:
        """(3,) centre of the cube in the base frame."""
        return self.data.xpos[self._cube].copy()

    def act(self, target_rad: np.ndarray) -> np.ndarray:
        """Set the servos' goals."""
        self.data.ctrl[self._ctrl] = target_rad
        return np.asarray(target_rad, np.float64)

    def close(self, *, release_torque: bool) -> None:
        """Stop the camera."""
        if self._eye is not None:
            self._eye.stop()
            self._eye = None
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    def _advance(self) -> None:
        behind_s = max(0.0, (self._clock.now_ns() - self._time_ns) / 1e9)
        steps = int(min(behind_s, MAX_CATCH_UP_S) / scene.TIMESTEP_S)
        if steps:
            mujoco.mj_step(self.model, self.data, steps)
            mujoco.mj_forward(self.model, self.data)
            self.cube_highest_m = max(self.cube_highest_m, float(self.cube_position_m()[2]))
        skipped_ns = max(0, int((behind_s - MAX_CATCH_UP_S) * 1e9))
        self._time_ns += round(steps * scene.TIMESTEP_S * 1e9) + skipped_ns
        self._time_ns = min(self._time_ns, self._clock.now_ns())  # a clock that ran back takes the world with it

    def _frame(self, now_ns: int) -> Frame | None:
        if self._eye is not None:
            self._eye.show(self.data.qpos, now_ns)
            return self._eye.newest()
        if self._camera is not None:
            return self.take_picture(self._camera, self.data, now_ns)
        return None

    def _open_camera(self) -> WristCamera:
        size = (self.config.width_px, self.config.height_px)
        return WristCamera(self.model, scene.CAMERA, *size, self._body_class)

    def take_picture(self, camera: WristCamera, data: mujoco.MjData, captured_ns: int) -> Frame:
        """One frame of the given state."""
        camera.look(data)
        rgb = camera.colour()
        depth_m, class_ids = camera.depth_and_classes() if self.config.planes else (None, None)
        return Frame(rgb, captured_ns, depth_m, class_ids)


class _CameraThread:
    """Renders at the camera's own pace, in its own thread, from the newest state it was shown."""

    def __init__(self, robot: SimRobot) -> None:
        self._robot = robot
        self._data = mujoco.MjData(robot.model)
        self._lock = threading.Lock()
        self._state: tuple[np.ndarray, int] = (robot.data.qpos.copy(), robot._clock.now_ns())
        self._frame: Frame | None = None
        self._failure: Exception | None = None
        self._first = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sim-camera", daemon=True)

    def start(self) -> None:
        """Start and wait for the first picture, so that a missing renderer is told at connect."""
        self._thread.start()
        self._first.wait(60.0)
        if self._failure is not None:
            raise self._failure
        if self._frame is None:
            raise ConnectionFailed("the simulated camera gave no picture within 60 s")

    def show(self, qpos: np.ndarray, captured_ns: int) -> None:
        """Put a newer state before the lens."""
        with self._lock:
            self._state = (qpos.copy(), captured_ns)

    def newest(self) -> Frame:
        """The last finished picture."""
        if self._failure is not None:
            raise ObservationError(f"the simulated camera stopped: {self._failure}")
        assert self._frame is not None, "start() waited for it"
        return self._frame

    def stop(self) -> None:
        """End the thread within 2 s."""
        self._stopping.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        give_way()
        camera: Any = None
        try:
            camera = self._robot._open_camera()
            while not self._stopping.is_set():
                started_ns = self._robot._clock.now_ns()
                self._take(camera)
                spent_s = (self._robot._clock.now_ns() - started_ns) / 1e9
                # A little rest even when rendering is slower than the camera: the loop shares these cores.
                self._stopping.wait(max(0.002, 1.0 / self._robot.config.camera_fps - spent_s))
        except Exception as error:  # noqa: BLE001 - edge of the thread; told by start() and newest()
            self._failure = error
        finally:
            self._first.set()
            if camera is not None:
                camera.close()

    def _take(self, camera: WristCamera) -> None:
        with self._lock:
            qpos, captured_ns = self._state
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._robot.model, self._data)
        mujoco.mj_camlight(self._robot.model, self._data)
        self._frame = self._robot.take_picture(camera, self._data, captured_ns)
        self._first.set()


def start_pose(arm: Arm, tool_m: np.ndarray) -> np.ndarray:
    """(6,) joints with the wrist straight down and the tool at `tool_m`, by damped least squares.

    Raises ConnectionFailed where the point is out of reach.
    """
    joints = np.array([0.0, 0.0, 0.0, WRIST_DOWN_RAD, WRIST_DOWN_RAD, gripper_rad(arm, START_OPENING)])
    for _ in range(200):
        joints[:N_ARM_JOINTS] += damped_step(arm, joints, tool_m, locked=(3, 4))
        joints = arm.clamp(joints)
        if np.linalg.norm(arm.tool_position(joints) - tool_m) < 1e-4:
            return joints
    raise ConnectionFailed(f"no start pose reaches {np.round(tool_m, 3)} m within {MAX_STEP_RAD} rad steps")
