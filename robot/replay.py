"""A recorded episode, played again: as a robot, and as a proof that policy and governor decide the same.

In: a folder that recorder.py wrote. Out: a Robot that answers with the recorded joints, and `verify`, which runs the
pipeline, the policy, the decoder and the governor over the recording and compares bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot.actions import make_decoder
from robot.arm import Arm
from robot.contract import ArmOffer, CameraOffer, PolicyContract
from robot.errors import ObservationError, RobotError
from robot.observation import ObservationPipeline
from robot.policies import Policy
from robot.rate import Clock
from robot.recorder import META_FILE, NO_DECISION
from robot.records import JOINTS, Joints, Observation
from robot.safety import Governor, SafetyLimits

# Reasons that the governor gives itself; every other one came to it from the loop.
GOVERNORS_OWN = ("workspace", "not_finite", "wrong_length")


@dataclass(frozen=True, slots=True)
class Episode:
    """The rows of one recording, as arrays with one entry per tick."""

    folder: Path
    columns: dict[str, np.ndarray]
    contract: PolicyContract
    about: dict[str, Any]
    rate_hz: float

    def __len__(self) -> int:
        return len(self.columns["loop.tick"])

    def observation(self, row: int) -> Observation:
        """What the loop knew at that row; without the picture, whose planes are in the decision."""
        take = {name: values[row] for name, values in self.columns.items()}
        joints = Joints(take["exact.position_rad"], take["exact.velocity_rad_s"], int(take["loop.measured_ns"]))
        place = take["observation.object_position_m"]
        return Observation(joints, None, place if self.about.get("object_known") else None)


def load_episode(folder: Path) -> Episode:
    """Read a recording. Raises RobotError when it is not one of ours."""
    meta = folder / META_FILE
    if not meta.is_file():
        raise RobotError(f"{folder} is not a recording of this program: {META_FILE} is missing")
    import pyarrow.parquet as pq

    about = json.loads(meta.read_text())
    files = sorted((folder / "data").rglob("*.parquet"))
    if not files:
        raise RobotError(f"{folder} holds no episode: the recording ended before its first frame was saved")
    table = pq.read_table(files).to_pydict()
    columns = {name: np.array(values) for name, values in table.items()}
    size = json.loads((folder / "meta" / "info.json").read_text())
    contract = PolicyContract.model_validate_json(json.dumps(about["contract"]))
    return Episode(folder, columns, contract, about, float(about.get("rate_hz", size["fps"])))


class ReplayRobot:
    """Robot protocol over a recording: answers with its joints, row by row, and keeps what it was told."""

    def __init__(self, episode: Episode, clock: Clock) -> None:
        self.episode = episode
        self._clock = clock
        self._row = -1
        self.commands_rad: list[np.ndarray] = []

    def connect(self) -> None:
        """Rewind."""
        self._row = -1

    def arm_offer(self) -> ArmOffer:
        """The arm of the recording."""
        return ArmOffer(f"recording {self.episode.folder.name}", JOINTS, "mujoco_base", calibrated=True)

    def camera_offer(self) -> CameraOffer | None:
        """None: pictures are replayed as the planes that the policy saw."""
        return None

    def enable(self) -> None:
        """Nothing to power."""

    def observe(self) -> Observation:
        """The next row, stamped with now. Raises ObservationError after the last."""
        if self._row + 1 >= len(self.episode):
            raise ObservationError("the recording is over")
        self._row += 1
        recorded = self.episode.observation(self._row)
        joints = Joints(recorded.joints.position_rad, recorded.joints.velocity_rad_s, self._clock.now_ns())
        return Observation(joints, None, recorded.object_position_m)

    def act(self, target_rad: np.ndarray) -> np.ndarray:
        """Keep it."""
        self.commands_rad.append(np.array(target_rad))
        return self.commands_rad[-1]

    def close(self, *, release_torque: bool) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found."""

    decisions: int
    decisions_equal: int
    commands: int
    commands_equal: int
    first_difference: str = ""

    @property
    def same(self) -> bool:
        """Whether every decision and every command came out again, bit for bit."""
        return self.decisions == self.decisions_equal and self.commands == self.commands_equal


def replayed_decisions(episode: Episode, policy: Policy) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(row, recorded action, action decided now) for every decision of the recording, in order."""
    pipeline = ObservationPipeline(episode.contract, None)
    columns = episode.columns
    row_of_tick = {int(tick): row for row, tick in enumerate(columns["loop.tick"])}
    size = episode.contract.image.size_px
    for row, tick in enumerate(columns["decision.tick"].ravel()):
        if tick == NO_DECISION:
            continue
        if columns["decision.depth"].ravel()[row] == 0:
            pipeline.reset()
            policy.reset()
        planes = columns["decision.planes"][row].reshape(2, size, size) if "decision.planes" in columns else None
        given = pipeline.push_planes(planes, episode.observation(row_of_tick[int(tick)]))
        yield row, columns["decision.action"][row], np.asarray(policy.decide(given), np.float32)


def verify(episode: Episode, policy: Policy, limits: SafetyLimits) -> Verdict:
    """Repeat the whole recording: decisions from the recorded planes and joints, commands from the decisions."""
    difference = ""
    decided: dict[int, np.ndarray] = {}
    equal = 0
    for row, recorded, now in replayed_decisions(episode, policy):
        decided[row] = now
        same = recorded.astype(np.float32).tobytes() == now.tobytes()
        equal += same
        if not same and not difference:
            difference = f"decision of row {row}: recorded {recorded}, now {now}"
    commands_equal, command_difference = _replay_commands(episode, decided, limits)
    rows = int((episode.columns["loop.state"] != "return").sum())
    return Verdict(len(decided), equal, rows, commands_equal, difference or command_difference)


def _replay_commands(episode: Episode, decided: dict[int, np.ndarray], limits: SafetyLimits) -> tuple[int, str]:
    arm = Arm()
    governor, decoder = Governor(limits, arm, episode.rate_hz), make_decoder(episode.contract, arm)
    governor.start(np.array(episode.about["rest_rad"]))
    columns, equal, difference, holding = episode.columns, 0, "", True
    for row in range(len(episode)):
        state, reason = str(columns["loop.state"][row]), str(columns["loop.reason"][row])
        if state == "return":
            continue
        joints_rad = columns["exact.position_rad"][row].astype(np.float64)
        wish = None
        if state == "move" or reason in GOVERNORS_OWN:
            if row in decided:
                if holding:
                    decoder.reset(joints_rad)
                decoder.accept(decided[row], joints_rad)
            wish = decoder.wish(joints_rad)
        holding = wish is None
        command = governor.limit(wish, reason)
        same = command.target_rad.tobytes() == columns["exact.command_rad"][row].astype(np.float64).tobytes()
        equal += same
        if not same and not difference:
            difference = f"command of row {row}: recorded {columns['exact.command_rad'][row]}, now {command.target_rad}"
    return equal, difference
