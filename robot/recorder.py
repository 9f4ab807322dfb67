"""Writes an episode as LeRobotDataset v3, through LeRobot's own writer, beside the loop.

In: TickRecords. Out: a dataset folder that `lerobot` loads, with everything replay.py needs to repeat the decisions.
A sink of loop.py; encodes in its own thread. Whatever ends a run, `close` saves the episode and finalises the files.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robot.contract import PolicyContract
from robot.errors import RecordingError
from robot.loop import TickRecord
from robot.priority import give_way
from robot.records import JOINTS, N_JOINTS, Observation

# Ten seconds at 30 Hz. A writer that falls further behind will not catch up, and memory would grow.
QUEUE_LENGTH = 300
# H.264 at its quickest keeps up with 30 pictures a second on one core; LeRobot's default AV1 does not.
VIDEO = {"vcodec": "h264", "preset": "ultrafast", "crf": 20}
META_FILE = "reafference.json"
NO_DECISION = -1


def _features(contract: PolicyContract, image_shape: tuple[int, ...] | None, planes: bool) -> dict[str, dict[str, Any]]:
    size = contract.image.size_px
    names = [f"{name}.pos" for name in JOINTS]
    features: dict[str, dict[str, Any]] = {
        "observation.state": {"dtype": "float32", "shape": (N_JOINTS,), "names": names},
        "action": {"dtype": "float32", "shape": (N_JOINTS,), "names": names},
        "observation.object_position_m": {"dtype": "float64", "shape": (3,), "names": ["x", "y", "z"]},
        "exact.position_rad": {"dtype": "float64", "shape": (N_JOINTS,), "names": list(JOINTS)},
        "exact.velocity_rad_s": {"dtype": "float64", "shape": (N_JOINTS,), "names": list(JOINTS)},
        "exact.command_rad": {"dtype": "float64", "shape": (N_JOINTS,), "names": list(JOINTS)},
        "decision.action": {"dtype": "float32", "shape": (contract.action.size,), "names": None},
        "loop.reason": {"dtype": "string", "shape": (1,), "names": None},
        "loop.state": {"dtype": "string", "shape": (1,), "names": None},
    }
    for name in ("loop.tick", "loop.now_ns", "loop.valid", "loop.measured_ns", "decision.tick", "decision.depth"):
        features[name] = {"dtype": "int64", "shape": (1,), "names": None}
    if planes:
        features["decision.planes"] = {"dtype": "uint8", "shape": (2 * size * size,), "names": None}
    if image_shape is not None:
        features["observation.images.wrist"] = {
            "dtype": "video",
            "shape": image_shape,
            "names": ["height", "width", "channels"],
        }
    return features


class Recorder:
    """One episode in one new folder."""

    def __init__(
        self,
        folder: Path,
        contract: PolicyContract,
        rate_hz: float,
        *,
        image_shape: tuple[int, ...] | None,
        planes: bool,
        task: str,
        about: dict[str, Any],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """`image_shape` (H, W, 3) or None without a camera; `about` is kept for replay;
        `on_failure` is called once from any thread when writing fails. Raises RecordingError."""
        if folder.exists() and any(folder.iterdir()):
            raise RecordingError(f"{folder} exists and is not empty; choose another folder for this episode")
        self._folder, self._contract, self._task = folder, contract, task
        self._features = _features(contract, image_shape, planes)
        self._image_shape = image_shape
        self._queue: queue.Queue[TickRecord | None] = queue.Queue(QUEUE_LENGTH)
        self._failure: BaseException | None = None
        self.failed = threading.Event()
        self._on_failure = on_failure
        self._dataset = self._create(rate_hz)
        about = {"contract": contract.model_dump(mode="json"), "contract_sha256": contract.sha256, **about}
        (folder / META_FILE).write_text(json.dumps(about, indent=1))
        self._last: Observation | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def __call__(self, record: TickRecord) -> None:
        """Take one tick; never waits. A writer that cannot keep up ends the recording, not the loop's rate."""
        if self.failed.is_set():
            return
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._fail(RecordingError(f"the recorder is {QUEUE_LENGTH} ticks behind: disk or encoder is too slow"))

    def close(self) -> None:
        """Save and finalise what there is. Raises RecordingError when something was lost. Safe to repeat."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise RecordingError(f"recording to {self._folder} failed: {failure}") from failure

    def _create(self, rate_hz: float) -> Any:
        from lerobot.configs.video import RGBEncoderConfig
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        if self._folder.exists():
            self._folder.rmdir()  # LeRobot insists on making it
        try:
            return LeRobotDataset.create(
                repo_id=f"local/{self._folder.name}",
                root=self._folder,
                fps=round(rate_hz),
                features=self._features,
                robot_type="so101_follower",
                video_backend="pyav",  # the other one needs FFmpeg libraries of the system
                streaming_encoding=True,
                rgb_encoder=RGBEncoderConfig(**VIDEO),
                encoder_threads=1,
            )
        except OSError as error:
            raise RecordingError(f"{self._folder} cannot be made: {error}") from error

    def _run(self) -> None:
        give_way()
        try:
            while (record := self._queue.get()) is not None:
                if self._failure is None:
                    self._dataset.add_frame(self._frame(record))
        except Exception as error:  # noqa: BLE001 - disk full, encoder gone: told by close(), the loop goes on to rest
            self._fail(error)
        finally:
            self._finalise()

    def _finalise(self) -> None:
        try:
            if self._dataset.has_pending_frames():
                self._dataset.save_episode()
        except Exception as error:  # noqa: BLE001
            self._fail(error)
        try:
            self._dataset.finalize()
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self.failed.set()
        self._on_failure()
        # Unblocks a full queue, so that close() can end the thread.
        while not self._queue.empty():
            self._queue.get_nowait()

    def _frame(self, record: TickRecord) -> dict[str, Any]:
        observation = record.observation or self._last
        if observation is None:
            raise RecordingError("the first tick had no observation")
        self._last = observation
        frame = self._state(record, observation) | self._decision(record)
        if self._image_shape is not None:
            picture = observation.frame
            frame["observation.images.wrist"] = (
                np.zeros(self._image_shape, np.uint8) if picture is None else np.array(picture.rgb)
            )
        return frame

    def _state(self, record: TickRecord, observation: Observation) -> dict[str, Any]:
        joints, place = observation.joints, observation.object_position_m
        return {
            "task": self._task,
            "observation.state": joints.position_rad.astype(np.float32),
            "action": record.command.target_rad.astype(np.float32),
            "observation.object_position_m": np.zeros(3) if place is None else np.array(place),
            "exact.position_rad": np.array(joints.position_rad),
            "exact.velocity_rad_s": np.array(joints.velocity_rad_s),
            "exact.command_rad": np.array(record.command.target_rad),
            "loop.reason": record.command.reason,
            "loop.state": record.command.state.value,
            "loop.tick": np.array([record.tick.index], np.int64),
            "loop.now_ns": np.array([record.now_ns], np.int64),
            "loop.measured_ns": np.array([joints.measured_ns], np.int64),
            "loop.valid": np.array([record.observation is not None], np.int64),
        }

    def _decision(self, record: TickRecord) -> dict[str, Any]:
        decision = record.decision
        planes = None if decision is None else decision.planes
        none = np.zeros(self._contract.action.size, np.float32)
        frame = {
            "decision.action": none if decision is None else decision.action,
            "decision.tick": np.array([NO_DECISION if decision is None else decision.tick], np.int64),
            "decision.depth": np.array([0 if decision is None else decision.depth], np.int64),
        }
        if "decision.planes" in self._features:
            size = self._features["decision.planes"]["shape"][0]
            frame["decision.planes"] = np.zeros(size, np.uint8) if planes is None else planes.reshape(-1)
        return frame
