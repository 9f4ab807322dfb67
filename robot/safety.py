"""The safety governor: the only road from a decision to a driver.

In: a wished joint target (or none, with the reason why), once per tick. Out: a Command whose position, velocity,
acceleration and tool position are inside the limits, whatever was asked. Called by loop.py; knows no robot, no policy.

Why it cannot run away. Per joint and tick of length T the command moves by v*T. Three facts are kept by induction:
1. v is within the velocity limit, and differs from the last v by at most the acceleration limit times T;
2. from (q, v) the joint can still stop before its position limit with the acceleration it has (`_fastest`);
3. the whole stopping path from (q, v), all joints braking together, keeps the tool in the workspace box.
Braking is always allowed: the path it takes is the rest of the one that was checked a tick before. So whenever a wish
fails a check there is a command that is safe, and a hold is a braked stop, never a jump and never the last action.
"""

from __future__ import annotations

import threading

import numpy as np
from pydantic import BaseModel, Field, model_validator

from robot.arm import Arm
from robot.cartesian import Box
from robot.records import N_JOINTS, Command, LoopState

# Slack for float rounding when a limit is compared with a value that was computed to lie exactly on it.
ROUNDING = 1e-9


class SafetyLimits(BaseModel, frozen=True, extra="forbid"):
    """What the governor keeps. One file per arm in configs/robot/."""

    max_velocity_rad_s: tuple[float, ...] = Field(min_length=N_JOINTS, max_length=N_JOINTS)
    max_acceleration_rad_s2: tuple[float, ...] = Field(min_length=N_JOINTS, max_length=N_JOINTS)
    max_jerk_rad_s3: float = Field(gt=0, description="smoothing of speeding up; never delays braking")
    joint_margin_rad: float = Field(ge=0, description="kept free before the model's joint limits")
    workspace_m: Box = Field(description="where a policy may bring the tool")
    transit_m: Box = Field(description="where return-to-rest may bring it; holds the rest pose")
    max_frame_age_ms: float = Field(gt=0)
    max_joint_age_ms: float = Field(gt=0)
    max_action_age_ms: float = Field(gt=0, description="from observation to use")
    max_following_error_rad: float = Field(gt=0, description="command against measurement: the arm is blocked")
    dead_man_ms: float = Field(gt=0, description="silence after which a remote operator counts as gone")

    @model_validator(mode="after")
    def _positive(self) -> SafetyLimits:
        if min(self.max_velocity_rad_s) <= 0 or min(self.max_acceleration_rad_s2) <= 0:
            raise ValueError("velocity and acceleration limits must be greater than 0 for every joint")
        return self


def _fastest(gap_rad: np.ndarray, acceleration: np.ndarray, period_s: float) -> np.ndarray:
    """The highest speed from which a joint still stops within `gap_rad`, braking once per period.

    Moving at v for one period and braking by a*T in each that follows covers D(v), piecewise linear in v with knots
    at D(n*a*T) = a*T²*n*(n+1)/2; this is its inverse.
    """
    gap_rad = np.maximum(gap_rad, 0.0)
    unit = acceleration * period_s**2
    n = np.floor((np.sqrt(1.0 + 8.0 * gap_rad / unit) - 1.0) / 2.0)
    return (gap_rad / period_s + acceleration * period_s * n * (n + 1.0) / 2.0) / (n + 1.0)


class EmergencyStop:
    """A latch. Any thread may press it; only `release` lets go, and the loop never calls that."""

    def __init__(self) -> None:
        self._pressed = threading.Event()
        self.reason = ""

    def press(self, reason: str) -> None:
        """Stop and stay stopped. The first reason is kept."""
        if not self._pressed.is_set():
            self.reason = reason
        self._pressed.set()

    def release(self) -> None:
        """Let go, by a person's decision."""
        self._pressed.clear()
        self.reason = ""

    @property
    def pressed(self) -> bool:
        """Whether it is latched."""
        return self._pressed.is_set()


class Governor:
    """Turns wishes into commands. One per run; `start` before the first `limit`."""

    def __init__(self, limits: SafetyLimits, arm: Arm, rate_hz: float) -> None:
        self.limits = limits
        self.estop = EmergencyStop()
        self._arm = arm
        self._period_s = 1.0 / rate_hz
        self._velocity_limit = np.array(limits.max_velocity_rad_s)
        self._acceleration = np.array(limits.max_acceleration_rad_s2)
        self._lower = arm.lower_rad + limits.joint_margin_rad
        self._upper = arm.upper_rad - limits.joint_margin_rad
        self._position: np.ndarray = np.zeros(N_JOINTS)
        self._velocity: np.ndarray = np.zeros(N_JOINTS)
        self._speeding_up: np.ndarray = np.zeros(N_JOINTS)

    def start(self, joints_rad: np.ndarray) -> None:
        """Begin at rest where the arm is. Raises ValueError for joints that are not six finite numbers."""
        joints = np.asarray(joints_rad, np.float64)
        if joints.shape != (N_JOINTS,) or not np.isfinite(joints).all():
            raise ValueError(f"the governor starts from 6 finite joint angles, got {joints_rad!r}")
        self._position = joints.copy()
        self._velocity[:] = 0.0
        self._speeding_up[:] = 0.0
        # An arm that rests a little past a limit may stay there and come back, never go further out.
        self._lower = np.minimum(self._arm.lower_rad + self.limits.joint_margin_rad, joints)
        self._upper = np.maximum(self._arm.upper_rad - self.limits.joint_margin_rad, joints)

    def limit(self, wish_rad: np.ndarray | None, reason: str = "", *, returning: bool = False) -> Command:
        """The command of this tick: towards `wish_rad` (6,), or a braked hold with `reason` where there is none."""
        if self.estop.pressed:
            return self._hold(self.estop.reason, LoopState.ESTOP)
        if wish_rad is None:
            return self._hold(reason or "no_decision", LoopState.HOLD)
        wish = np.asarray(wish_rad)
        if wish.shape != (N_JOINTS,):
            return self._hold("wrong_length", LoopState.HOLD)
        if wish.dtype.kind not in "fiu" or not np.isfinite(wish).all():
            return self._hold("not_finite", LoopState.HOLD)
        box = self.limits.transit_m if returning else self.limits.workspace_m
        velocity, clamped = self._towards(wish.astype(np.float64))
        if not self._stops_inside(velocity, box):
            return self._hold("workspace", LoopState.HOLD)
        return self._take(velocity, LoopState.RETURN if returning else LoopState.MOVE, "", clamped)

    def at_rest(self) -> bool:
        """Whether the command stands still."""
        return not self._velocity.any()

    def _towards(self, wish: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        goal = np.clip(wish, self._lower, self._upper)
        gap = goal - self._position
        wanted = gap / self._period_s
        stopping = np.sign(gap) * _fastest(np.abs(gap), self._acceleration, self._period_s)
        velocity = np.where(np.abs(wanted) > np.abs(stopping), stopping, wanted)
        velocity = np.clip(velocity, -self._velocity_limit, self._velocity_limit)
        change = self._smoothed(velocity - self._velocity)
        reach = self._acceleration * self._period_s
        bounded = self._velocity + np.clip(change, -reach, reach)
        safe = np.clip(bounded, *self._speeds_that_stop())
        names = []
        if not np.array_equal(goal, wish):
            names.append("position")
        if (np.abs(wanted) > self._velocity_limit).any():
            names.append("velocity")
        if not np.allclose(bounded, velocity, rtol=0, atol=ROUNDING):
            names.append("acceleration")
        return safe, tuple(names)

    def _smoothed(self, change: np.ndarray) -> np.ndarray:
        """Let speeding up grow by at most the jerk limit; braking is left as it is."""
        step = self.limits.max_jerk_rad_s3 * self._period_s**2
        speeding_up = change * self._velocity >= 0
        allowed = np.abs(self._speeding_up) + step
        return np.where(speeding_up, np.clip(change, -allowed, allowed), change)

    def _speeds_that_stop(self) -> tuple[np.ndarray, np.ndarray]:
        """Speeds (low, high) that respect acceleration and from which the position limits are still kept."""
        reach = self._acceleration * self._period_s
        up = _fastest(self._upper - self._position, self._acceleration, self._period_s)
        down = _fastest(self._position - self._lower, self._acceleration, self._period_s)
        low = np.maximum.reduce([self._velocity - reach, -self._velocity_limit, -down])
        high = np.minimum.reduce([self._velocity + reach, self._velocity_limit, up])
        # Both ends contain the braked speed in exact arithmetic; rounding may cross them by an ulp.
        braked = self._braked(self._velocity)
        return np.minimum(low, braked), np.maximum(high, braked)

    def _braked(self, velocity: np.ndarray) -> np.ndarray:
        reach = self._acceleration * self._period_s
        return np.sign(velocity) * np.maximum(np.abs(velocity) - reach, 0.0)

    def _stops_inside(self, velocity: np.ndarray, box: Box) -> bool:
        """Whether this step and the braking after it keep the tool in the box, or at least bring it no further out."""
        allowed_m = max(0.0, self._outside_m(self._position, box), self._stopping_excess_m(box)) + ROUNDING
        position: np.ndarray = self._position
        while True:
            position = position + velocity * self._period_s
            if self._outside_m(position, box) > allowed_m:
                return False
            velocity = self._braked(velocity)
            if not velocity.any():
                return True

    def _stopping_excess_m(self, box: Box) -> float:
        """How far outside the box the present stopping path gets: it was accepted, so no less can be asked."""
        position, worst_m = self._position, 0.0
        velocity = self._braked(self._velocity)
        while velocity.any():
            position = position + velocity * self._period_s
            worst_m = max(worst_m, self._outside_m(position, box))
            velocity = self._braked(velocity)
        return worst_m

    def _outside_m(self, joints_rad: np.ndarray, box: Box) -> float:
        """Distance of the tool beyond the nearest wall of the box; 0 inside."""
        tool_m = self._arm.tool_position(joints_rad)
        low, high = np.array(box).T
        return float(np.max(np.maximum(np.maximum(low - tool_m, tool_m - high), 0.0)))

    def _hold(self, reason: str, state: LoopState) -> Command:
        return self._take(self._braked(self._velocity), state, reason, ())

    def _take(self, velocity: np.ndarray, state: LoopState, reason: str, clamped: tuple[str, ...]) -> Command:
        faster = (velocity * self._velocity >= 0) & (np.abs(velocity) > np.abs(self._velocity))
        self._speeding_up = np.where(faster, velocity - self._velocity, 0.0)
        self._velocity = velocity
        self._position = np.clip(self._position + velocity * self._period_s, self._lower, self._upper)
        return Command(self._position, state, reason, clamped)


class DeadMan:
    """A remote operator or server must be heard from; silence beyond the limit is a hold."""

    def __init__(self, limit_ms: float) -> None:
        self._limit_ns = round(limit_ms * 1e6)
        self._heard_ns: int | None = None

    def beat(self, now_ns: int) -> None:
        """Somebody is there. Any thread."""
        self._heard_ns = now_ns

    def silent(self, now_ns: int) -> bool:
        """Whether nobody was heard for too long, or at all."""
        heard_ns = self._heard_ns
        return heard_ns is None or not 0 <= now_ns - heard_ns <= self._limit_ns
