"""Writes an episode as LeRobotDataset v3, through LeRobot's own writer, beside the loop.

In: TickRecords. Out: a dataset folder that `lerobot` loads, with everything replay.py needs to repeat the decisions.
A sink of loop.py; encodes in its own thread. Whatever ends a run, `close` saves the episode and finalises the files, or
removes them and says so: a folder that is there holds a whole episode.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robot.contract import PolicyContract
from robot.errors import RecordingError, RecordingLost
from robot.loop import TickRecord
from robot.priority import give_way
from robot.records import JOINTS, N_JOINTS, Observation

# Twelve seconds at 50 Hz, 0.3 GB of pictures: at half the speed (a busy machine) an episode of 20 s still fits.
# A writer that falls further behind will not catch up, and memory would grow.
QUEUE_LENGTH = 600
# LeRobot drops pictures, and only logs it, when this one stays full for 0.1 s: all behind it would be shifted.
ENCODER_QUEUE_LENGTH = 60
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


def require_new(folder: Path) -> None:
    """Raise RecordingError unless an episode can be made there without touching anything."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RecordingError(f"{folder} exists and is not an empty folder; choose another one for this episode")


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
        require_new(folder)
        self._folder, self._contract, self._task = folder, contract, task
        self._features = _features(contract, image_shape, planes)
        self._image_shape = image_shape
        self._queue: queue.Queue[TickRecord | None] = queue.Queue(QUEUE_LENGTH)
        self._failure: BaseException | None = None
        self.failed = threading.Event()
        self._on_failure = on_failure
        self._dataset = self._create(rate_hz)
        self._about = {"contract": contract.model_dump(mode="json"), "contract_sha256": contract.sha256, **about}
        self._saved_frames = 0
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
        """Save and finalise what there is. Raises RecordingLost when something is missing. Safe to repeat."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._failure is None:
            return
        failure, self._failure = self._failure, None
        if self._saved_frames:
            what = f"ended early; its first {self._saved_frames} frames are saved and whole"
        else:
            shutil.rmtree(self._folder, ignore_errors=True)
            what = "is lost, nothing of it is left on the disk"
        raise RecordingLost(f"the recording to {self._folder} {what}: {failure}") from failure

    def _create(self, rate_hz: float) -> Any:
        import av
        import datasets
        from lerobot.configs.video import RGBEncoderConfig
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        # They would write over the panel: statistics of the encoder, a bar for saving, and errors that are raised too.
        av.logging.set_libav_level(av.logging.ERROR)
        logging.getLogger("lerobot.datasets").setLevel(logging.CRITICAL)
        datasets.disable_progress_bars()
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
                encoder_queue_maxsize=ENCODER_QUEUE_LENGTH,
            )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise RecordingError(f"{self._folder} cannot be made: {error}") from error

    def _run(self) -> None:
        give_way()
        try:
            while (record := self._queue.get()) is not None:
                if self._failure is None:
                    self._wait_for_encoder()
                    self._dataset.add_frame(self._frame(record))
        except Exception as error:  # noqa: BLE001 - disk full, encoder gone: told by close(), the loop goes on to rest
            self._fail(error)
        finally:
            self._finalise()

    def _wait_for_encoder(self) -> None:
        """Until it has room, or has died, which add_frame tells. LeRobot has no public way to ask."""
        encoder = self._dataset.writer._streaming_encoder
        if encoder is None:
            return
        while any(q.full() and encoder._threads[key].is_alive() for key, q in encoder._frame_queues.items()):
            time.sleep(0.01)

    def _finalise(self) -> None:
        try:
            frames = self._dataset.writer.episode_buffer["size"] if self._dataset.has_pending_frames() else 0
            if frames:
                self._dataset.save_episode()
            self._dataset.finalize()
            if frames:
                self._check_video(frames)
                (self._folder / META_FILE).write_text(json.dumps(self._about, indent=1))
            self._saved_frames = frames
        except Exception as error:  # noqa: BLE001
            self._fail(error)
            with contextlib.suppress(Exception):  # its threads and open files must end all the same
                self._dataset.finalize()

    def _check_video(self, frames: int) -> None:
        """Raise RecordingError unless the video has one picture per row: a dropped one would shift all behind it."""
        import av

        for path in sorted((self._folder / "videos").rglob("*.mp4")):
            with av.open(str(path)) as video:
                pictures = video.streams.video[0].frames
            if pictures != frames:
                raise RecordingError(f"the encoder kept {pictures} of {frames} pictures; the machine was too busy")

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
