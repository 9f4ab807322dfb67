"""The command line: a run, a recording, its replay, refusals in one sentence, and Ctrl-C that ends at rest."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from robot.__main__ import app

runner = CliRunner()


def run(*arguments):
    result = runner.invoke(app, [str(a) for a in arguments])
    return result.exit_code, " ".join(result.output.split())


def test_the_scripted_pick_lifts_the_cube():
    code, text = run("--policy", "scripted", "--fast", "--seconds", 5, "--seed", 1)
    assert code == 0, text
    assert "contract pick101_v19 holds · policy scripted" in text and "0 missed" in text
    assert float(re.search(r"was ([\d.]+) m high", text)[1]) > 0.08, text


def test_the_shipped_networks_lift_the_cube(rendering):
    code, text = run("--fast", "--seconds", 1.2, "--seed", 1)
    assert code == 0 and "contract so101_lift holds · policy so101_lift.safetensors" in text, text
    assert float(re.search(r"was ([\d.]+) m high", text)[1]) > 0.08, text


@pytest.mark.parametrize("policy", ["scripted", "pretrained"])
def test_a_recording_replays_the_same(tmp_path, rendering, policy):
    code, text = run("--policy", policy, "--fast", "--seconds", 0.2, "--record", tmp_path / "episode")
    assert code == 0, text
    code, text = run("--robot", "replay", "--episode", tmp_path / "episode")
    assert code == 0 and re.search(r"11 of 11 decisions and 11 of 11 commands are the same", text)
    code, text = run("--robot", "replay", "--episode", tmp_path / "episode", "--policy", "stand_still")
    assert code == 1 and "row" in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--contract", "nope"], "choose one of handoff074, pick101_v19"),
        (["--contract", "handoff074"], "action_space"),
        (["--policy", "missing_snapshot.pt"], "missing_snapshot.pt"),
        (["--segmenter", "missing.ckpt"], "missing.ckpt"),
        (["--depth", "sonar"], "sensor or depth_anything"),
        (["--robot", "so101", "--policy", "stand_still"], "--port"),
        (["--robot", "so101"], "no default policy"),
        (["--robot", "so101", "--policy", "pretrained"], "seen renderings only"),
        (["--robot", "so101", "--policy", "so101_lift.safetensors"], "seen renderings only"),
        (["--robot", "so101", "--policy", "scripted"], "needs the simulator"),
        (["--robot", "so101", "--policy", "stand_still", "--fast"], "--fast is for the simulated arm only"),
        (
            ["--robot", "so101", "--policy", "stand_still", "--fault", "clock_jump"],
            "--fault is for the simulated arm only",
        ),
        (["--fault", "nan_jiont"], "choose one of camera_freeze, "),
        (["--policy", "scripted", "--rate", 10], "run faster than 17 Hz"),
        (["--robot", "replay"], "--episode"),
        (["--limits", "nowhere.yaml"], "nowhere.yaml"),
        (["--server", "ws://127.0.0.1:9"], "cannot be reached"),
    ],
)
def test_refusals_are_one_sentence_and_exit_2(arguments, message, rendering):
    code, text = run("--seconds", 0.1, *arguments)
    assert code == 2 and text.startswith("refused:") and message in text and "Traceback" not in text


def test_a_real_arm_needs_its_calibration(tmp_path):
    code, text = run(
        "--robot", "so101", "--port", "/dev/null", "--calibration", tmp_path / "no.json", "--policy", "x.pt"
    )
    assert code == 2 and ("lerobot-calibrate" in text or "x.pt" in text)


def test_a_real_arm_in_a_dry_run_gets_no_command(servos, calibration_file):
    code, text = run(
        "--robot", "so101", "--port", "/dev/ttyTEST", "--calibration", calibration_file,
        "--policy", "stand_still", "--seconds", 0.5, "--dry-run",
    )  # fmt: skip
    assert code == 0, text
    assert not servos.sync_writes and not servos.writes, "dry: nothing was written to any servo"


def test_a_real_arm_stands_still_and_is_released_at_rest(servos, calibration_file):
    code, text = run(
        "--robot", "so101", "--port", "/dev/ttyTEST", "--calibration", calibration_file,
        "--policy", "stand_still", "--seconds", 0.5,
    )  # fmt: skip
    assert code == 0 and "not at rest" not in text, text
    assert servos.sync_writes and not any(servo.memory[40] for servo in servos.servos.values())


def test_an_injected_fault_is_told():
    code, text = run("--policy", "scripted", "--fast", "--seconds", 2.5, "--fault", "nan_joint")
    assert code == 0 and "joint_not_finite" in text


def test_ctrl_c_ends_at_rest():
    command = [sys.executable, "-m", "robot", "--policy", "stand_still"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    deadline = time.monotonic() + 60
    assert "holds" in process.stdout.readline(), "the contract line comes first"
    assert time.monotonic() < deadline
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "'return':" in output and "not at rest" not in output and "Traceback" not in output
