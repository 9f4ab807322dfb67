"""Episodes are LeRobot datasets, finalised however a run ends, and decide again the same, bit for bit."""

import shutil
import time

import numpy as np
import pytest

from robot.errors import RecordingError, RobotError
from robot.loop import TickRecord
from robot.networks import NetworkPerception
from robot.policies import ScriptedPick
from robot.rate import Tick, VirtualClock
from robot.recorder import Recorder
from robot.records import Command, Frame, Joints, LoopState, Observation
from robot.replay import ReplayRobot, load_episode, verify
from robot.session import Session, load_limits
from robot.sim import SimConfig, SimRobot
from tests.robot.test_faults import Seeing, _After


def record(folder, contract, *, camera=False, seconds=0.6, seed=3, break_at=None, policy=ScriptedPick):
    """One episode in virtual time; `break_at` raises inside the loop at that tick."""
    clock = VirtualClock()
    robot = SimRobot(SimConfig(camera=camera, seed=seed), clock)
    perception = NetworkPerception(None, None, contract.image.disparity.depth_epsilon_m)
    session = Session(robot, policy(contract), contract, load_limits("sim"), clock, perception)
    session.open()
    about = {"rest_rad": session.rest_rad.tolist(), "object_known": True, "rate_hz": contract.rate_hz, "limits": "sim"}
    recorder = Recorder(
        folder,
        contract,
        contract.rate_hz,
        image_shape=(480, 640, 3) if camera else None,
        planes=policy is Seeing,
        task="pick",
        about=about,
    )

    def breaker(record):
        if break_at is not None and record.tick.index >= break_at and record.command.state == "move":
            raise RuntimeError("a sink broke")

    try:
        session.run(None, _After(clock, seconds), [recorder, breaker])
    finally:
        session.close()
        recorder.close()
    return session


def open_dataset(folder):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/test", root=folder, video_backend="pyav")


def test_an_episode_loads_in_lerobot_and_replays_bit_for_bit(tmp_path, pick101, rendering):
    pick101 = pick101.model_copy(update={"rate_hz": 25.0})  # software rendering of 50 pictures a second takes long
    session = record(tmp_path / "episode", pick101, camera=True, policy=Seeing, seconds=0.4)
    assert session.at_rest
    dataset = open_dataset(tmp_path / "episode")
    episode = load_episode(tmp_path / "episode")
    assert len(dataset) == len(episode) and dataset.fps == 25
    row = dataset[9]
    assert row["observation.images.wrist"].shape == (3, 480, 640) and row["action"].shape == (6,)
    assert float(row["observation.images.wrist"].std()) > 0.02, "there is a picture"
    verdict = verify(episode, Seeing(pick101), load_limits("sim"))
    assert verdict.same and verdict.decisions == verdict.commands == 11, verdict


def test_replay_sees_another_policy(tmp_path, pick101):
    record(tmp_path / "episode", pick101)

    class Other(ScriptedPick):
        def decide(self, given):
            return np.nextafter(super().decide(given), np.float32(2))

    verdict = verify(load_episode(tmp_path / "episode"), Other(pick101), load_limits("sim"))
    assert not verdict.same and "row" in verdict.first_difference


def test_replay_sees_other_limits(tmp_path, pick101):
    record(tmp_path / "episode", pick101)
    verdict = verify(load_episode(tmp_path / "episode"), ScriptedPick(pick101), load_limits("so101"))
    assert verdict.decisions == verdict.decisions_equal and verdict.commands > verdict.commands_equal


def test_an_exception_in_the_loop_still_leaves_a_whole_dataset_and_an_arm_at_rest(tmp_path, pick101):
    with pytest.raises(RuntimeError, match="a sink broke"):
        record(tmp_path / "episode", pick101, break_at=10)
    dataset = open_dataset(tmp_path / "episode")
    assert len(dataset) > 100, "eleven ticks and the return to rest"
    assert set(load_episode(tmp_path / "episode").columns["loop.state"]) == {"move", "return"}


def test_a_full_disk_ends_the_recording_and_is_told(tmp_path, pick101, monkeypatch):
    from lerobot.datasets.dataset_writer import DatasetWriter

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DatasetWriter, "_save_episode_data", full)
    with pytest.raises(RecordingError, match="No space left"):
        record(tmp_path / "episode", pick101)


def test_a_slow_encoder_keeps_every_picture(tmp_path, pick101, monkeypatch):
    """LeRobot gives a picture up after 0.1 s of a full queue, and every one behind it would lie one row too early."""
    import PIL.Image

    class SlowImage:
        @staticmethod
        def fromarray(array):
            time.sleep(0.25)
            return PIL.Image.fromarray(array)

    monkeypatch.setattr("lerobot.datasets.video_utils.Image", SlowImage)
    monkeypatch.setattr("robot.recorder.ENCODER_QUEUE_LENGTH", 2)
    recorder = Recorder(
        tmp_path / "episode", pick101, 50, image_shape=(64, 64, 3), planes=False, task="stand", about={"rate_hz": 50}
    )
    for index in range(8):
        joints = Joints(np.zeros(6), np.zeros(6), index)
        frame = Frame(np.full((64, 64, 3), 30 * index, np.uint8), index)
        command = Command(np.zeros(6), LoopState.HOLD, "test")
        recorder(TickRecord(Tick(index, 0, 0, 0), index, Observation(joints, frame), None, command, None, 0))
    recorder.close()
    dataset = open_dataset(tmp_path / "episode")
    seen = [float(dataset[i]["observation.images.wrist"].mean()) * 255 for i in range(8)]
    assert seen == pytest.approx([30 * i for i in range(8)], abs=4)


def test_a_folder_in_use_is_not_touched(tmp_path, pick101):
    (tmp_path / "episode").mkdir()
    (tmp_path / "episode" / "precious").write_text("x")
    with pytest.raises(RecordingError, match="not an empty folder"):
        record(tmp_path / "episode", pick101)
    assert (tmp_path / "episode" / "precious").read_text() == "x"


def test_what_is_no_recording_is_refused(tmp_path, pick101):
    with pytest.raises(RobotError, match="not a recording"):
        load_episode(tmp_path)
    record(tmp_path / "episode", pick101, seconds=0.1)
    shutil.rmtree(tmp_path / "episode" / "data")
    with pytest.raises(RobotError, match="no episode"):
        load_episode(tmp_path / "episode")


def test_the_replay_robot_answers_with_the_recorded_joints(tmp_path, pick101):
    record(tmp_path / "episode", pick101, seconds=0.2)
    episode, clock = load_episode(tmp_path / "episode"), VirtualClock(5)
    robot = ReplayRobot(episode, clock)
    robot.connect()
    robot.enable()
    for row in range(len(episode)):
        assert np.array_equal(robot.observe().joints.position_rad, episode.columns["exact.position_rad"][row])
    with pytest.raises(RobotError, match="over"):
        robot.observe()
    robot.close(release_torque=True)
