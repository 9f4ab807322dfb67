"""The real SO-101, through LeRobot's SO101Follower.

In: joint targets in rad. Out: joints in rad and the wrist camera's newest frame. Called by the loop, from one thread.
LeRobot is imported when an arm is connected, not before. What is added to it: nothing prompts on the terminal, the goal
is set to the present pose before torque comes on, and torque goes off only when the caller says the arm rests.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from robot.arm import Arm
from robot.calibration import Calibration, load_calibration
from robot.contract import ArmOffer, CameraOffer
from robot.errors import CalibrationError, CommandError, ConnectionFailed, ObservationError
from robot.rate import Clock
from robot.records import JOINTS, N_JOINTS, Frame, Joints, Observation


class So101Config(BaseModel, frozen=True, extra="forbid"):
    """One real arm."""

    port: str = Field(min_length=1, description="serial port, see lerobot-find-port")
    calibration: Path
    use_degrees: bool = Field(default=True, description="LeRobot's unit on the bus; both give the same rad")
    camera: int | Path | None = Field(default=None, description="OpenCV index or device path of the wrist camera")
    width_px: int = Field(default=640, gt=0)
    height_px: int = Field(default=480, gt=0)
    camera_fps: int = Field(default=30, gt=0)


class So101Robot:
    """Robot protocol over LeRobot."""

    def __init__(self, config: So101Config, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        arm = Arm()
        self.calibration: Calibration = load_calibration(
            config.calibration, float(arm.lower_rad[-1]), float(arm.upper_rad[-1])
        )
        self._follower: Any = None
        self._last: Joints | None = None
        self._frame_shape: tuple[int, ...] = ()

    def connect(self) -> None:
        """Open port and camera, ping six motors, compare the calibration they hold. Torque stays as it is."""
        self._follower = self._make_follower()
        try:
            self._follower.bus.connect()
        except (ConnectionError, RuntimeError, OSError) as error:
            raise ConnectionFailed(self._why(error)) from error
        if not self._follower.bus.is_calibrated:
            self.close(release_torque=False)
            raise CalibrationError(
                f"the motors on {self.config.port} hold another calibration than {self.config.calibration}; "
                "choose this arm's file, or write it to the motors with lerobot-calibrate"
            )
        self._connect_camera()

    def arm_offer(self) -> ArmOffer:
        """The calibrated arm."""
        return ArmOffer(f"SO-101 on {self.config.port}", JOINTS, "mujoco_base", calibrated=True)

    def camera_offer(self) -> CameraOffer | None:
        """Size of a frame that really came, and LeRobot's colour order."""
        if self.config.camera is None:
            return None
        height_px, width_px = self._frame_shape[:2]
        colour = self._follower.cameras["wrist"].config.color_mode.value
        return CameraOffer(width_px, height_px, colour, None)

    def enable(self) -> None:
        """Goal = present pose, then LeRobot's gains and limits, then torque."""
        try:
            bus = self._follower.bus
            present = bus.sync_read("Present_Position", normalize=False, num_retry=2)
            bus.sync_write("Goal_Position", present, normalize=False)
            self._follower.configure()
        except (ConnectionError, RuntimeError) as error:
            raise ConnectionFailed(self._why(error)) from error

    def observe(self) -> Observation:
        """One sync read, and the frame the camera thread has."""
        try:
            values = self._follower.bus.sync_read("Present_Position")
        except (ConnectionError, RuntimeError, OSError) as error:
            raise ObservationError(f"reading the joints failed: {error}") from error
        measured_ns = self._clock.now_ns()
        raw = np.array([values[name] for name in JOINTS], np.float64)
        joints = self._joints(self.calibration.to_rad(raw, degrees=self.config.use_degrees), measured_ns)
        return Observation(joints, self._newest_frame())

    def act(self, target_rad: np.ndarray) -> np.ndarray:
        """One sync write; returns the targets as LeRobot sent them."""
        values = self.calibration.from_rad(np.array(target_rad, np.float64), degrees=self.config.use_degrees)
        action = {f"{name}.pos": float(value) for name, value in zip(JOINTS, values, strict=True)}
        try:
            sent = self._follower.send_action(action)
        except (ConnectionError, RuntimeError, OSError, ValueError) as error:
            raise CommandError(f"writing the goals failed: {error}") from error
        raw = np.array([sent[f"{name}.pos"] for name in JOINTS], np.float64)
        return self.calibration.to_rad(raw, degrees=self.config.use_degrees)

    def close(self, *, release_torque: bool) -> None:
        """Close the port; torque off only when asked. A fault latched in a servo does not keep the port open."""
        follower, self._follower = self._follower, None
        if follower is None:
            return
        for camera in follower.cameras.values():
            if camera.is_connected:
                camera.disconnect()
        bus = follower.bus
        if not bus.is_connected:
            return
        with contextlib.suppress(ConnectionError, RuntimeError):
            bus.disconnect(disable_torque=release_torque)
        if bus.is_connected:
            bus.disconnect(disable_torque=False)

    def _make_follower(self) -> Any:
        from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

        return SO101Follower(
            SO101FollowerConfig(
                port=self.config.port,
                id=self.config.calibration.stem,
                calibration_dir=self.config.calibration.parent,
                use_degrees=self.config.use_degrees,
                cameras=self._camera_configs(),
                disable_torque_on_disconnect=False,
                num_read_retries=0,  # each retry stalls the loop 50 ms; the loop holds and reads again next tick
            )
        )

    def _camera_configs(self) -> dict[str, Any]:
        if self.config.camera is None:
            return {}
        from lerobot.cameras.opencv import OpenCVCameraConfig

        size = {"width": self.config.width_px, "height": self.config.height_px, "fps": self.config.camera_fps}
        return {"wrist": OpenCVCameraConfig(index_or_path=self.config.camera, **size)}

    def _connect_camera(self) -> None:
        for camera in self._follower.cameras.values():
            try:
                camera.connect()
                self._frame_shape = camera.async_read(timeout_ms=2000).shape
            except (ConnectionError, RuntimeError, TimeoutError, OSError) as error:
                self.close(release_torque=False)
                raise ConnectionFailed(f"the wrist camera {self.config.camera} gives no picture: {error}") from error

    def _joints(self, position_rad: np.ndarray, measured_ns: int) -> Joints:
        """Velocity from two stamped readings, so that a late tick does not look like a fast joint."""
        velocity = np.zeros(N_JOINTS)
        if self._last is not None and measured_ns > self._last.measured_ns:
            seconds = (measured_ns - self._last.measured_ns) / 1e9
            velocity = (position_rad - self._last.position_rad) / seconds
        self._last = Joints(position_rad, velocity, measured_ns)
        return self._last

    def _newest_frame(self) -> Frame | None:
        if self.config.camera is None:
            return None
        camera = self._follower.cameras["wrist"]
        with camera.frame_lock:
            rgb, stamp_s = camera.latest_frame, camera.latest_timestamp
        if rgb is None or stamp_s is None:
            raise ObservationError("the wrist camera has given no frame yet")
        # The camera thread stamps with perf_counter; the loop's clock may be another one.
        age_ns = int((time.perf_counter() - stamp_s) * 1e9)
        return Frame(rgb, self._clock.now_ns() - age_ns)

    def _why(self, error: BaseException) -> str:
        text, port = f"{error} {error.__cause__ or ''}", self.config.port
        if "Missing motor IDs" in text:
            return (
                f"not all six motors answer on {port}: is the arm's power supply on and every cable in? "
                f"({' '.join(str(error).split())})"
            )
        if "busy" in text.lower() or "Resource temporarily" in text or "exclusively lock" in text:
            return f"port {port} is busy: another program (or another run of this one) has it open"
        if "Permission" in text:
            return f"no permission to open {port}: add yourself to its group (`sudo usermod -aG dialout $USER`)"
        return f"the arm on {port} cannot be reached: {' '.join(text.split())}"
