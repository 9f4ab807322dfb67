"""A wrist camera from a video file: what LeRobot's own OpenCV camera opens in tests.

OpenCV really decodes the file. What a file cannot do and a camera driver can is added: it keeps a pace, never ends, and
accepts the size and rate that it has. LeRobot's class, its thread and its colour conversion run as they are.
"""

import time

import cv2
import numpy as np

FPS = 30


def write_video(path, width_px=640, height_px=480, frames=12, seed=0):
    """Left half red, right half blue, with sensor noise."""
    rng = np.random.default_rng(seed)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (width_px, height_px))
    assert writer.isOpened()
    for _ in range(frames):
        bgr = rng.integers(0, 60, (height_px, width_px, 3), np.uint8)
        bgr[:, : width_px // 2, 2] += 180
        bgr[:, width_px // 2 :, 0] += 180
        writer.write(bgr)
    writer.release()
    return path


RealCapture = cv2.VideoCapture


class FileCamera:
    """Takes the place of cv2.VideoCapture, which cannot be inherited from: it frees instances past Python's collector.

    `unplugged` and `delivers` break it for all instances.
    """

    unplugged = False
    delivers = None  # (width, height) of the pictures where the driver lies about their size

    def __init__(self, path, backend=cv2.CAP_ANY):
        self._file = RealCapture(str(path), cv2.CAP_FFMPEG)
        self._next_s = time.monotonic()
        self.isOpened, self.get, self.release = self._file.isOpened, self._file.get, self._file.release

    def set(self, prop, value):
        own = {cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS}
        return prop in own and round(self.get(prop)) == round(value)

    def read(self):
        self._next_s = max(self._next_s + 1 / FPS, time.monotonic())
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        if FileCamera.unplugged:
            return False, None
        there, bgr = self._file.read()
        if not there:
            self._file.set(cv2.CAP_PROP_POS_FRAMES, 0)
            there, bgr = self._file.read()
        return there, bgr if FileCamera.delivers is None else cv2.resize(bgr, FileCamera.delivers)
