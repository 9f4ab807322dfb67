"""The arm behind the service: start, stop, emergency stop, and what a panel shows. Nothing of a tick goes through Ray.

In: commands of a person. Out: the state of the loop, and the newest camera picture as JPEG. `Controller` is a plain
class; app.py makes it the `Control` deployment with one replica. The loop itself is robot.session, in its own thread
of this process; it observes, limits and acts whether or not anybody is connected.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robot.arm import Arm
from robot.contract import PolicyContract, load_contract
from robot.errors import RobotError
from robot.loop import TickRecord
from robot.networks import NetworkPerception, NetworkPolicy, SegmenterActor
from robot.policies import Policy, ScriptedPick, StandStill, refuse_real_arm
from robot.priority import prefer_this_thread
from robot.rate import MonotonicClock
from robot.records import JOINTS
from robot.robots import Robot
from robot.session import Session, load_limits
from robot.sim import SimConfig, SimRobot
from robot.so101 import So101Config, So101Robot
from serve.errors import Conflict, ServiceError
from serve.settings import ControlSettings

log = logging.getLogger("ray.serve")

# The panel's picture; small, because software rendering shares the processor with the models. A policy that looks gets
# the size that its contract names.
CAMERA_PX = (320, 240)
# Under what the networks that ship were trained (docs/skills.md).
PRETRAINED_CONTRACT = "so101_lift"
JPEG_QUALITY = 80
# Lift, way back and settling take up to 10 s (robot/loop.py); a stop that takes longer is told as it is.
STOP_TIMEOUT_S = 20.0


class Controller:
    """One arm. Call from any thread. Phases: idle, starting, running, returning, failed."""

    def __init__(self, settings: ControlSettings) -> None:
        self._settings = settings
        self._contract = load_contract(settings.contract)
        self._limits = load_limits(settings.limits or settings.robot)
        self._arm = Arm()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._session: Session | None = None
        self._stop = threading.Event()
        self._phase, self._why, self._policy = "idle", "", ""
        self._estop = ""
        self._newest: TickRecord | None = None

    def start(self, policy: str, seconds: float | None, seed: int, *, release_estop: bool) -> dict[str, Any]:
        """Begin a run; what `state` tells. Raises Conflict while one is on, or while the emergency stop is latched."""
        with self._lock:
            if self._estop and not release_estop:
                raise Conflict(f"the emergency stop is latched ({self._estop}); look at the arm, then release it")
            if self._thread is not None and self._thread.is_alive():
                raise Conflict(f"the arm is {self._phase}; stop it first")
            self._estop = ""
            self._phase, self._why, self._policy = "starting", "", policy
            self._stop.clear()
            self._newest, self._session = None, None
            self._thread = threading.Thread(
                target=self._run, args=(policy, seconds, seed), name="control-loop", daemon=True
            )
            self._thread.start()
        return self.state()

    def stop(self) -> dict[str, Any]:
        """End the run: back to rest, then torque off; comes back when that is done."""
        self._stop.set()
        thread = self._thread
        if thread is not None:
            thread.join(STOP_TIMEOUT_S)
            if thread.is_alive():
                raise ServiceError(f"the arm is not at rest after {STOP_TIMEOUT_S:g} s")
        return self.state()

    def estop(self, reason: str) -> dict[str, Any]:
        """Latch the emergency stop: the arm brakes and stays, with torque."""
        with self._lock:  # held for microseconds by everybody; without it a start could wipe the latch out
            self._estop = self._estop or reason
            session = self._session
        if session is not None:
            session.governor.estop.press(reason)
        return self.state()

    def state(self) -> dict[str, Any]:
        """Phase, loop state and reason, joints, rate, lateness."""
        told: dict[str, Any] = {
            "robot": self._settings.robot,
            "phase": self._phase,
            "why": self._why,
            "policy": self._policy,
            "estop": self._estop,
            "joints": list(JOINTS),
            "lower_rad": _rounded(self._arm.lower_rad),
            "upper_rad": _rounded(self._arm.upper_rad),
            "rate_hz": self._contract.rate_hz,
        }
        record, session = self._newest, self._session
        if record is not None and session is not None:
            told |= _loop_state(record, session)
        return told

    def picture(self) -> tuple[int, bytes] | None:
        """Instant and JPEG of the newest camera picture, None without one."""
        record = self._newest
        if record is None or record.observation is None or record.observation.frame is None:
            return None
        frame = record.observation.frame
        bgr = cv2.cvtColor(np.asarray(frame.rgb), cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return frame.captured_ns, jpeg.tobytes()

    def close(self) -> None:
        """Bring the arm to rest before the process ends."""
        if self._thread is not None and self._thread.is_alive():
            log.info("the service ends: the arm returns to rest")
            self.stop()

    def _run(self, policy: str, seconds: float | None, seed: int) -> None:
        session: Session | None = None
        try:
            session = self._opened(policy, seed)
            with self._lock:
                self._session, self._phase = session, "running"
                if self._estop:
                    session.governor.estop.press(self._estop)
            session.run(seconds, self._stop, [self._keep])
            self._phase = "idle"
            self._why = "" if session.at_rest else "the arm is not at rest: torque was left on, support it"
        except RobotError as error:
            self._phase, self._why = "failed", str(error)
            log.error("control run refused: %s", error)
        except Exception as error:
            self._phase, self._why = "failed", f"{type(error).__name__}; see the logs"
            log.exception("control run failed")
        finally:
            if session is not None:
                session.close()

    def _opened(self, policy: str, seed: int) -> Session:
        if self._settings.robot != "sim":
            refuse_real_arm(policy)
        prefer_this_thread()
        clock = MonotonicClock()
        contract, decider, segmenter = self._contract, _decider(policy, self._contract), None
        if policy == "pretrained":
            contract, decider, segmenter = _pretrained()
        session = Session(
            robot=self._robot(clock, seed, contract, looks=segmenter is not None),
            policy=decider,
            contract=contract,
            limits=self._limits,
            clock=clock,
            perception=NetworkPerception(segmenter, None, contract.image.disparity.depth_epsilon_m),
        )
        session.open()
        return session

    def _robot(self, clock: MonotonicClock, seed: int, contract: PolicyContract, *, looks: bool) -> Robot:
        settings = self._settings
        if settings.robot == "sim":
            width, height = (contract.camera.width_px, contract.camera.height_px) if looks else CAMERA_PX
            return SimRobot(
                SimConfig(width_px=width, height_px=height, camera_fps=settings.camera_fps, planes=looks, seed=seed),
                clock,
            )
        if not settings.port or settings.calibration is None:
            raise RobotError("control.robot so101 needs control.port and control.calibration in the settings")
        source = settings.camera
        camera = None if not source else int(source) if source.isdigit() else Path(source)
        return So101Robot(So101Config(port=settings.port, calibration=settings.calibration, camera=camera), clock)

    def _keep(self, record: TickRecord) -> None:
        self._newest = record
        if self._stop.is_set() and self._phase == "running":
            self._phase = "returning"


def _decider(policy: str, contract: PolicyContract) -> Policy:
    return ScriptedPick(contract) if policy == "scripted" else StandStill(contract)


def _pretrained() -> tuple[PolicyContract, Policy, SegmenterActor]:
    """The networks that ship. Imported here: only a service that runs them pays for torch."""
    from actors import so101_policy, so101_segmenter

    actor = so101_policy.So101Policy(so101_policy.SHIPPED)
    segmenter = so101_segmenter.So101Segmenter(so101_segmenter.SHIPPED)
    for network in (actor, segmenter):
        network.load()
    segmenter.warm_up()
    return load_contract(PRETRAINED_CONTRACT), NetworkPolicy(actor), segmenter


def _rounded(values: np.ndarray) -> list[float | None]:
    """JSON has no NaN: None stands for it."""
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]


def _loop_state(record: TickRecord, session: Session) -> dict[str, Any]:
    report = session.loop.report
    lateness = report.lateness
    observation = record.observation
    told: dict[str, Any] = {
        "loop": record.command.state.value,
        "reason": record.command.reason,
        "clamped": list(record.command.clamped),
        "command_rad": _rounded(record.command.target_rad),
        "measured_rad": None if observation is None else _rounded(observation.joints.position_rad),
        "tick": record.tick.index,
        "decisions": report.decisions,
        "late_ms": {"p50": lateness.percentile_ms(50), "p99": lateness.percentile_ms(99)},
        "missed": lateness.missed,
    }
    if observation is not None and observation.object_position_m is not None:
        told["object_m"] = _rounded(observation.object_position_m)
    return told
