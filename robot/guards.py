"""Is this observation fit to act on? The checks between a robot and the policy.

In: observations, one per tick. Out: the name of the first thing that is wrong, or an empty string. Called by loop.py.
Ages are judged ahead: what would be too old at the coming tick is too old now, so a limit is kept, not just noticed.
"""

from __future__ import annotations

import zlib

import numpy as np

from robot.records import Frame, Observation
from robot.safety import SafetyLimits

# Below this spread and brightness a picture is a covered lens or a dead sensor, not a dark room.
BLACK_MEAN = 4.0
BLACK_SPREAD = 2.0
# Sensor noise makes two equal pictures in a row a frozen driver; a third leaves no doubt.
EQUAL_FRAMES = 2


def is_black(rgb: np.ndarray) -> bool:
    """Whether a picture is a covered lens or a dead sensor. Looks at every 16th pixel."""
    sample = rgb[::16, ::16]
    return bool(sample.mean() < BLACK_MEAN and sample.std() < BLACK_SPREAD)


class Guards:
    """Remembers the last frame of one run."""

    def __init__(self, limits: SafetyLimits, period_ns: int, *, needs_frame: bool, noisy_camera: bool) -> None:
        self._limits = limits
        self._period_ns = period_ns
        self._needs_frame = needs_frame
        self._noisy_camera = noisy_camera
        self._captured_ns = -1
        self._digest = 0
        self._equal = 0
        self._verdict = ""

    def check(self, observation: Observation, command_rad: np.ndarray, now_ns: int) -> str:
        """joint_not_finite, joints_stale, not_following, no_frame, camera_stale, black_frame, camera_frozen, or ''."""
        joints = observation.joints
        if not (np.isfinite(joints.position_rad).all() and np.isfinite(joints.velocity_rad_s).all()):
            return "joint_not_finite"
        if self._too_old(joints.measured_ns, now_ns, self._limits.max_joint_age_ms):
            return "joints_stale"
        # The gripper is left out: closing on an object is not following, and is meant.
        if np.abs(joints.position_rad - command_rad)[:-1].max() > self._limits.max_following_error_rad:
            return "not_following"
        return self._check_frame(observation.frame, now_ns) if self._needs_frame else ""

    def _too_old(self, instant_ns: int, now_ns: int, limit_ms: float) -> bool:
        return now_ns - instant_ns + self._period_ns > limit_ms * 1e6 or instant_ns > now_ns

    def _check_frame(self, frame: Frame | None, now_ns: int) -> str:
        if frame is None:
            return "no_frame"
        if self._too_old(frame.captured_ns, now_ns, self._limits.max_frame_age_ms):
            return "camera_stale"
        if frame.captured_ns != self._captured_ns:
            self._captured_ns = frame.captured_ns
            self._verdict = self._look_at(frame)
        return self._verdict

    def _look_at(self, frame: Frame) -> str:
        if is_black(frame.rgb):
            return "black_frame"
        digest = zlib.crc32(np.ascontiguousarray(frame.rgb[::4, ::4]))
        self._equal = self._equal + 1 if digest == self._digest else 0
        self._digest = digest
        return "camera_frozen" if self._noisy_camera and self._equal >= EQUAL_FRAMES else ""
