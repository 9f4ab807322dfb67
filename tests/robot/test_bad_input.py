"""Everything wrong that can be handed to `python -m robot`: one sentence, exit 2, no torque, nothing half-written."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from robot import rendering as gl
from robot.__main__ import app
from robot.contract import CONTRACTS, load_contract
from robot.errors import RenderingUnavailable
from tests.robot.cameras import FileCamera, write_video
from tests.robot.servos import TORQUE_AT
from tests.robot.test_client import Server

ROOT = Path(__file__).resolve().parents[2]


def refusal(*arguments, code=2, begins="refused:"):
    """The one sentence that the program ends with."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output and not isinstance(result.exception, RuntimeError | OSError | ValueError)
    text = result.output[result.output.index(begins) :]
    assert "\n" not in text.strip(), "one line"
    return text


@pytest.fixture
def real_arm(servos, calibration_file):
    """Options of a real arm; afterwards no servo has torque."""
    yield ["--robot", "so101", "--port", "/dev/ttyTEST", "--calibration", calibration_file, "--policy", "stand_still",
           "--seconds", 0.2]  # fmt: skip
    assert not any(servo.memory[TORQUE_AT] for servo in servos.servos.values())


@pytest.fixture
def networks(shared_dir, tmp_path):
    """A snapshot and a segmentation checkpoint with random weights, from the parity script."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("make_checkpoint", shared_dir / "parity" / "make_checkpoint.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    paths = tmp_path / "1_snapshot.pt", tmp_path / "best.ckpt"
    for path, kind in zip(paths, ("drqv2_snapshot", "efficientvit_seg"), strict=True):
        make.save_checkpoint(make.build_checkpoint(kind, 7, optimizer="empty"), path)
    return paths


def contract_with(tmp_path, part, **change):
    content = yaml.safe_load((CONTRACTS / "pick101_v19.yaml").read_text())
    content[part] |= change
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_no_calibration(real_arm, tmp_path):
    real_arm[5] = tmp_path / "none.json"
    assert "lerobot-calibrate" in refusal(*real_arm)


def test_a_calibration_of_five_motors(real_arm, calibration, tmp_path):
    del calibration["gripper"]
    real_arm[5].write_text(json.dumps(calibration))
    assert "an SO-101 has" in refusal(*real_arm)


def test_a_motor_that_does_not_answer(real_arm, servos):
    del servos.servos[4]
    assert "not all six motors answer" in refusal(*real_arm)


def test_an_arm_without_power(real_arm, servos):
    servos.powered = False
    assert "power supply" in refusal(*real_arm)


def test_a_busy_port(real_arm, servos):
    servos.busy = True
    assert "busy" in refusal(*real_arm)


def test_a_real_camera_of_another_size(real_arm, tmp_path, monkeypatch):
    monkeypatch.setattr("lerobot.cameras.opencv.camera_opencv.cv2.VideoCapture", FileCamera)
    video = write_video(tmp_path / "wide.avi", 1280, 720)
    assert "gives no picture" in refusal(*real_arm, "--camera", video)


@pytest.mark.parametrize(
    "change, name",
    [({"width_px": 1280, "height_px": 720}, "camera_size"), ({"colour": "bgr"}, "colour_order")],
)
def test_a_camera_that_the_contract_does_not_know(tmp_path, networks, rendering, change, name):
    mine = contract_with(tmp_path, "camera", **change)
    assert name in refusal("--fast", "--policy", networks[0], "--contract", mine)


def test_a_checkpoint_of_another_layout_names_what_differs(networks):
    snapshot, segmenter = networks
    assert "expected `agent` and `cfg`" in refusal("--fast", "--policy", segmenter)
    assert "it asks for omegaconf" in refusal("--fast", "--policy", snapshot, "--segmenter", snapshot)
    segmenter.write_bytes(b"PK")
    assert "best.ckpt" in refusal("--fast", "--policy", snapshot, "--segmenter", segmenter)


def test_the_segmenter_of_the_noisy_run(networks, rendering):
    assert "segmenter_weights" in refusal("--fast", "--policy", networks[0], "--segmenter", networks[1])


def test_a_server_with_another_contract():
    server = Server(load_contract("handoff074"))
    assert "other contract" in refusal("--fast", "--server", server.url)
    server.close()


def test_a_server_that_was_started_with_another_contract_than_it_says(pick101, rendering):
    server = Server(pick101)
    server.offer["contract_sha256"] = "0" * 64
    assert "contract_hash" in refusal("--fast", "--server", server.url)
    server.close()


@pytest.mark.parametrize("content", ["speed: 3", "- 1", "name: [", "", "rate_hz: fast"])
def test_a_contract_or_limits_file_that_is_none(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    assert "mine.yaml" in refusal("--contract", path)
    assert "mine.yaml" in refusal("--limits", path)


def test_a_calibration_that_is_none(real_arm):
    real_arm[5].write_text('{"gripper": {"id": "six"}}')
    assert "gripper.id" in refusal(*real_arm)


def test_the_shipped_policy_under_terms_that_it_was_not_trained_for(rendering):
    assert "segmenter_weights" in refusal("--policy", "pretrained", "--contract", "pick101_v19")
    assert "action_space" in refusal("--policy", "pretrained", "--contract", "handoff074")


def test_a_folder_in_use_is_refused_before_torque(real_arm, tmp_path):
    (tmp_path / "episode").mkdir()
    (tmp_path / "episode" / "precious").write_text("x")
    assert "another one" in refusal(*real_arm, "--record", tmp_path / "episode")
    assert (tmp_path / "episode" / "precious").read_text() == "x"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs root and tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_run_at_rest_and_leaves_nothing(small_disk, rendering):
    text = refusal(
        "--policy",
        "scripted",
        "--fast",
        "--seconds",
        20,
        "--record",
        small_disk / "episode",
        code=3,
        begins="not recorded:",
    )
    assert "is lost" in text and "No space left" in text
    assert not list(small_disk.iterdir())


def test_a_full_disk_lays_a_real_arm_down(real_arm, small_disk, servos, tmp_path, monkeypatch):
    monkeypatch.setattr("lerobot.cameras.opencv.camera_opencv.cv2.VideoCapture", FileCamera)
    real_arm[-1] = 20
    arguments = [*real_arm, "--camera", write_video(tmp_path / "wrist.avi"), "--record", small_disk / "episode"]
    assert "No space left" in refusal(*arguments, code=3, begins="not recorded:")
    assert servos.sync_writes, "it had torque, and real_arm sees that it has none now"


def test_a_real_arm_records_its_camera(real_arm, servos, tmp_path, monkeypatch):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    monkeypatch.setattr("lerobot.cameras.opencv.camera_opencv.cv2.VideoCapture", FileCamera)
    arguments = [*real_arm, "--camera", write_video(tmp_path / "wrist.avi"), "--record", tmp_path / "episode"]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    picture = LeRobotDataset("local/test", root=tmp_path / "episode", video_backend="pyav")[3]
    left, right = picture["observation.images.wrist"][:, :, :300], picture["observation.images.wrist"][:, :, 340:]
    assert left[0].mean() > 2 * left[2].mean() and right[2].mean() > 2 * right[0].mean()


def test_where_nothing_renders_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(gl, "PLATFORMS", ())
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for look in (gl.detect, gl.detect_or_install):
        with pytest.raises(RenderingUnavailable, match=r"apt-get install .*libegl1"):
            look()


def test_a_platform_that_fails_does_not_spoil_the_next_one(rendering):
    """In a new process: OpenGL is loaded once per process."""
    code = "from robot import rendering; rendering.PLATFORMS = ('none', 'osmesa', 'egl'); print(rendering.detect())"
    done = subprocess.run([str(ROOT / ".venv/bin/python"), "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() in ("osmesa", "egl"), done.stderr
