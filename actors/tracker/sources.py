"""Frames with their real instants: from a film, a folder of pictures, or a camera.

In: what the user named. Out: (image, time_ns), and at the end the reason for it. Called by the command line. A camera
is read by a thread that keeps the newest frame only and counts the others; nothing queues.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np

from actors.tracker.errors import SourceUnusable

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
CAMERA_SILENCE_S = 2.0
POLL_S = 0.005

Timed = tuple[np.ndarray, int]


class Frames(Protocol):
    """`why_ended` is set once iteration is over."""

    live: bool
    why_ended: str

    def __iter__(self) -> Iterator[Timed]:
        """(H, W, 3) uint8 RGB and nanoseconds; the first frame of a film is at 0."""


def open_source(named: str, folder_rate_hz: float) -> Frames:
    """A film's path, a folder's path, a camera's number, or `/dev/video…`. Raises SourceUnusable."""
    path = Path(named)
    if named.isdigit() or named.startswith("/dev/video"):
        return Camera(named)
    if path.is_dir():
        return Folder(path, folder_rate_hz)
    if path.is_file():
        return Film(path)
    raise SourceUnusable(f"{named!r} is no film, no folder of pictures and no camera (a number, or /dev/video0)")


class Film:
    """Frames as a video file shows them, at their own presentation times."""

    live = False

    def __init__(self, path: Path) -> None:
        self._path, self.why_ended = path, ""
        try:
            with av.open(str(path)) as container:
                if not container.streams.video:
                    raise SourceUnusable(f"{path} has no pictures in it")
        except (av.FFmpegError, OSError) as error:
            raise SourceUnusable(f"{path} cannot be opened as a film: {error}") from error

    def __iter__(self) -> Iterator[Timed]:
        """See Frames."""
        self.why_ended = ""
        with av.open(str(self._path)) as container:
            first: float | None = None
            try:
                for frame in container.decode(video=0):
                    seconds = frame.time if frame.time is not None else 0.0
                    first = seconds if first is None else first
                    yield frame.to_ndarray(format="rgb24"), max(0, round((seconds - first) * 1e9))
            except av.FFmpegError as error:
                self.why_ended = f"the film cannot be decoded any further: {error}"
            else:
                self.why_ended = "the film is over"


class Folder:
    """Pictures in the order of their names; they carry no time, so `rate_hz` gives it."""

    live = False

    def __init__(self, path: Path, rate_hz: float) -> None:
        self._paths = sorted(each for each in path.iterdir() if each.suffix.lower() in PICTURES)
        if not self._paths:
            raise SourceUnusable(f"{path} holds no pictures ({', '.join(PICTURES)})")
        self._step_ns, self.why_ended = round(1e9 / rate_hz), ""

    def __iter__(self) -> Iterator[Timed]:
        """See Frames. A file that is no picture ends it."""
        for number, path in enumerate(self._paths):
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is None:
                self.why_ended = f"{path} is no readable picture"
                return
            yield np.ascontiguousarray(picture[:, :, ::-1]), number * self._step_ns
        self.why_ended = "the folder is over"


class Camera:
    """The newest frame of a camera; `dropped` counts those that nobody had time for."""

    live = True

    def __init__(self, named: str) -> None:
        self._capture = cv2.VideoCapture(int(named) if named.isdigit() else named)
        if not self._capture.isOpened():
            raise SourceUnusable(f"no camera answers at {named!r}")
        self._named, self.why_ended, self.dropped = named, "", 0
        self._newest: Timed | None = None
        self._lock, self._stop = threading.Lock(), threading.Event()

    def __iter__(self) -> Iterator[Timed]:
        """See Frames. Ends with a reason when the camera falls silent."""
        reader = threading.Thread(target=self._read, name="camera", daemon=True)
        reader.start()
        started = heard = time.monotonic_ns()
        try:
            while not self.why_ended:
                with self._lock:
                    taken, self._newest = self._newest, None
                if taken is not None:
                    heard = time.monotonic_ns()
                    yield taken[0], taken[1] - started
                elif time.monotonic_ns() - heard > CAMERA_SILENCE_S * 1e9:
                    self.why_ended = f"camera {self._named} has given no frame for {CAMERA_SILENCE_S:g} s"
                else:
                    time.sleep(POLL_S)
        finally:
            self._stop.set()
            reader.join(CAMERA_SILENCE_S)
            self._capture.release()

    def _read(self) -> None:
        while not self._stop.is_set():
            there, picture = self._capture.read()
            if not there:
                self.why_ended = f"camera {self._named} gives no more frames (unplugged?)"
                return
            with self._lock:
                self.dropped += self._newest is not None
                self._newest = np.ascontiguousarray(picture[:, :, ::-1]), time.monotonic_ns()
