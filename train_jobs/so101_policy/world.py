"""One simulated table for episodes: the physics, decoder and camera of the live loop, as fast as they compute.

In: an episode's number, actions. Out: pictures and joints, and the truth for those who may see it (expert, judge).
Used by rollout.py. The loop runs at the contract's 50 Hz; a decision comes every `Conditions.every` ticks, because no
camera gives 50 pictures a second, and `latency_ticks` late. An episode ends at the first success or at its time limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from robot import scene
from robot.actions import make_decoder
from robot.arm import Arm
from robot.contract import PolicyContract
from robot.records import Joints
from robot.rendering import WristCamera
from train_jobs.so101.look import Wardrobe, furnish
from train_jobs.so101.ranges import LookRanges
from train_jobs.so101_policy import episodes

# As the public task counts it: held by both fingers and this high for this long.
LIFTED_M, HELD_S = 0.08, 0.2
STATIC, MOVING = "gripper", "moving_jaw_so101_v1"


@dataclass(frozen=True, slots=True)
class Conditions:
    """How fast and how late the world is seen and answered."""

    every: int = 2  # ticks of the 50 Hz loop per decision
    latency_ticks: int = 0  # from picture to action
    seconds: float = 8.0
    shake_m: float = 0.0  # camera, drawn anew for every picture
    shake_rad: float = 0.0
    depth_noise: float = 0.0  # share of the distance, pixel by pixel


@dataclass(frozen=True, slots=True)
class Truth:
    """What only the simulator knows."""

    tool_m: np.ndarray  # (3,)
    across: np.ndarray  # (3,) unit: the way the moving finger closes, in the base frame
    cube_m: np.ndarray  # (3,)
    opening: float  # of the jaw, -1 closed to 1 open
    jaw_speed_rad_s: float
    touches_static: bool
    touches_moving: bool


@dataclass(frozen=True, slots=True)
class Sight:
    """One picture of the wrist camera."""

    rgb: np.ndarray  # (H, W, 3) uint8
    depth_m: np.ndarray  # (H, W) float32
    class_ids: np.ndarray  # (H, W) uint8, the truth


class World:
    """`begin` an episode, then `look`, `joints` and `act` until `over`."""

    def __init__(
        self,
        contract: PolicyContract,
        conditions: Conditions,
        look: LookRanges | None,
        seed: int,
        size_px: tuple[int, int] | None = (160, 120),
    ) -> None:
        """`look` None: the embedded look. `size_px` None: no camera, for an expert that needs no pictures."""
        self.model, self._body_class = scene.build(furnish)
        self.data = mujoco.MjData(self.model)
        self.arm = Arm()
        self.conditions = conditions
        self._look, self._seed = look, seed
        self._wardrobe = Wardrobe(self.model)
        self._decoder = make_decoder(contract, self.arm)
        self._qpos, self._qvel, self._ctrl = scene.joint_addresses(self.model)
        self._substeps = round(1 / contract.rate_hz / scene.TIMESTEP_S)
        self._tick_s = 1 / contract.rate_hz
        self._cube = self.model.body("cube").id
        self._fingers = {name: self.model.body(name).id for name in (STATIC, MOVING)}
        self._tool = self.model.site("tool").id
        self._camera_id = self.model.camera(scene.CAMERA).id
        self._camera = None
        if size_px is not None:
            self._camera = WristCamera(self.model, scene.CAMERA, *size_px, self._body_class)

    def wear(self, look: LookRanges | None) -> None:
        """What the next episodes look like; None is the embedded look."""
        self._look = look

    def begin(self, number: int) -> None:
        """Episode `number` of this world's seed: the same start and look, whoever plays it."""
        rng = np.random.default_rng([self._seed, number])
        self.start = episodes.draw(self.arm, rng)
        self._rng = np.random.default_rng([self._seed, number, 1])
        mujoco.mj_resetData(self.model, self.data)
        address = self.model.joint("cube").qposadr[0]
        half = self.start.cube_turn_rad / 2
        self.data.qpos[address : address + 7] = [*self.start.cube_m, np.cos(half), 0, 0, np.sin(half)]
        self.data.qpos[self._qpos] = self.start.joints_rad
        self.data.ctrl[self._ctrl] = self.start.joints_rad
        self.brightness = 0.0
        if self._look is not None:
            self.brightness = self._wardrobe.dress(self.data, self._camera, self._look, rng)
        else:
            self._wardrobe.undress(self.data, self._camera)
        mujoco.mj_forward(self.model, self.data)
        self._decoder.reset(self.start.joints_rad)
        self._waiting: list[tuple[int, np.ndarray]] = []
        self.ticks, self._held_ticks, self.success, self._acted = 0, 0, False, False

    @property
    def seconds(self) -> float:
        """Simulated time since the start."""
        return self.ticks * self._tick_s

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.success or self.seconds >= self.conditions.seconds

    def act(self, action: np.ndarray) -> None:
        """Take a decision and run until the next one is due."""
        self._waiting.append((self.ticks + self.conditions.latency_ticks, np.asarray(action)))
        for _ in range(self.conditions.every):
            if not self.over:
                self._tick()

    def _tick(self) -> None:
        joints = self.data.qpos[self._qpos]
        while self._waiting and self._waiting[0][0] <= self.ticks:
            self._decoder.accept(self._waiting.pop(0)[1], joints)
            self._acted = True
        if self._acted:  # before the first decision the arm holds
            self.data.ctrl[self._ctrl] = self._decoder.wish(joints)
        mujoco.mj_step(self.model, self.data, self._substeps)
        self.ticks += 1
        lifted = self.data.xpos[self._cube, 2] > LIFTED_M and all(self._touching())
        self._held_ticks = self._held_ticks + 1 if lifted else 0
        self.success = self._held_ticks * self._tick_s >= HELD_S - 1e-9

    def joints(self) -> Joints:
        """As the encoders measure them."""
        return Joints(self.data.qpos[self._qpos], self.data.qvel[self._qvel], round(self.seconds * 1e9))

    def truth(self) -> Truth:
        """For the expert and for labels."""
        joints = self.data.qpos[self._qpos]
        low, high = self.arm.lower_rad[-1], self.arm.upper_rad[-1]
        static, moving = self._touching()
        mujoco.mj_kinematics(self.model, self.data)
        return Truth(
            tool_m=self.data.site_xpos[self._tool].copy(),
            across=self.data.site_xmat[self._tool].reshape(3, 3)[:, 2].copy(),
            cube_m=self.data.xpos[self._cube].copy(),
            opening=float(2 * (joints[-1] - low) / (high - low) - 1),
            jaw_speed_rad_s=float(self.data.qvel[self._qvel[-1]]),
            touches_static=static,
            touches_moving=moving,
        )

    def look(self) -> Sight:
        """A picture of now. Needs a camera."""
        assert self._camera is not None, "this world was built without a camera"
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        if self.conditions.shake_m or self.conditions.shake_rad:
            self._shake()
        self._camera.look(self.data)
        rgb = self._camera.colour()
        depth_m, ids = self._camera.depth_and_classes()
        if self.conditions.depth_noise:
            noise = self._rng.normal(1.0, self.conditions.depth_noise, depth_m.shape).astype(np.float32)
            depth_m = np.maximum(depth_m * noise, np.float32(0.01))
        return Sight(rgb, depth_m, ids)

    def close(self) -> None:
        """Free the renderer."""
        if self._camera is not None:
            self._camera.close()

    def _shake(self) -> None:
        shift, turn = self.conditions.shake_m, self.conditions.shake_rad
        self.data.cam_xpos[self._camera_id] += self._rng.uniform(-shift, shift, 3)
        axis, matrix, quaternion = self._rng.normal(size=3), np.zeros(9), np.zeros(4)
        mujoco.mju_axisAngle2Quat(quaternion, axis / np.linalg.norm(axis), self._rng.uniform(-turn, turn))
        mujoco.mju_quat2Mat(matrix, quaternion)
        turned = self.data.cam_xmat[self._camera_id].reshape(3, 3) @ matrix.reshape(3, 3)
        self.data.cam_xmat[self._camera_id] = turned.ravel()

    def _touching(self) -> tuple[bool, bool]:
        """Whether the cube touches the static and the moving finger."""
        contacts = self.data.contact
        bodies = self.model.geom_bodyid[contacts.geom[: self.data.ncon]]
        others = set(bodies[(bodies == self._cube).any(axis=1)].ravel().tolist())
        return self._fingers[STATIC] in others, self._fingers[MOVING] in others
