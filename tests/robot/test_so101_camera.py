"""The real arm's wrist camera: LeRobot's own OpenCV class over a decoded video file, colours, stamps and failures."""

import time

import numpy as np
import pytest

from robot.errors import ConnectionFailed
from robot.guards import Guards
from robot.rate import MonotonicClock
from robot.session import load_limits
from robot.so101 import So101Config, So101Robot
from tests.robot.cameras import FPS, FileCamera, write_video


@pytest.fixture
def wrist(monkeypatch):
    monkeypatch.setattr("lerobot.cameras.opencv.camera_opencv.cv2.VideoCapture", FileCamera)
    monkeypatch.setattr(FileCamera, "unplugged", False)
    monkeypatch.setattr(FileCamera, "delivers", None)


@pytest.fixture
def arm(wrist, servos, calibration_file, tmp_path):
    made = []

    def make(path):
        config = So101Config(port="/dev/ttyTEST", calibration=calibration_file, camera=path)
        made.append(So101Robot(config, MonotonicClock()))
        return made[-1]

    yield make
    for robot in made:
        robot.close(release_torque=False)


def test_pictures_are_rgb_fresh_and_stamped_in_the_loops_clock(arm, tmp_path):
    robot = arm(write_video(tmp_path / "wrist.avi"))
    robot.connect()
    offer = robot.camera_offer()
    assert (offer.width_px, offer.height_px, offer.colour, offer.noisy) == (640, 480, "rgb", True)
    stamps = []
    for _ in range(20):
        frame = robot.observe().frame
        left, right = frame.rgb[:, :300].mean((0, 1)), frame.rgb[:, 340:].mean((0, 1))
        assert left[0] > 150 > 80 > left[2] and right[2] > 150 > 80 > right[0]
        stamps.append(frame.captured_ns)
        assert time.monotonic_ns() - frame.captured_ns < 500e6
        time.sleep(1 / FPS)
    assert stamps == sorted(stamps) and len(set(stamps)) > 5


def test_a_picture_does_not_change_under_the_readers_hands(arm, tmp_path):
    robot = arm(write_video(tmp_path / "wrist.avi"))
    robot.connect()
    frame = robot.observe().frame
    before = frame.rgb.copy()
    time.sleep(4 / FPS)
    assert np.array_equal(frame.rgb, before) and not np.array_equal(robot.observe().frame.rgb, before)


def test_an_unplugged_camera_is_stale_within_its_limit(arm, tmp_path, monkeypatch):
    robot = arm(write_video(tmp_path / "wrist.avi"))
    robot.connect()
    limits = load_limits("so101")
    guards = Guards(limits, 33_333_333, needs_frame=True, noisy_camera=True)
    monkeypatch.setattr(FileCamera, "unplugged", True)
    time.sleep(limits.max_frame_age_ms / 1e3 + 2 / FPS)
    observation = robot.observe()
    reason = guards.check(observation, observation.joints.position_rad, time.monotonic_ns())
    assert reason == "camera_stale"


def test_a_camera_of_another_size_is_refused(arm, tmp_path):
    with pytest.raises(ConnectionFailed, match=r"wrist camera.*width=640.*1280"):
        arm(write_video(tmp_path / "wide.avi", 1280, 720)).connect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # LeRobot's thread ends that way
def test_a_camera_that_lies_about_its_size_is_refused(arm, tmp_path, monkeypatch):
    monkeypatch.setattr(FileCamera, "delivers", (320, 240))
    with pytest.raises(ConnectionFailed, match="wrist camera"):
        arm(write_video(tmp_path / "wrist.avi")).connect()


def test_a_camera_that_is_not_there_is_refused_and_the_port_is_free_again(arm, servos, tmp_path):
    with pytest.raises(ConnectionFailed, match=r"wrist camera.*none.avi"):
        arm(tmp_path / "none.avi").connect()
    assert servos.opened == 0
