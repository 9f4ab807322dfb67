"""Helpers for driving `python -m data_jobs.egoworld` as a user does: as a process, or in this one for speed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml
from typer.testing import CliRunner

from data_jobs.egoworld.__main__ import app

ROOT = Path(__file__).resolve().parents[2]


def stub_config(
    folder: Path, *, clip_length_s: float = 1.0, memory_gib: float = 1.0, timeout_s: float = 2.0, **params
) -> Path:
    """A config whose only operator is the fault-injecting one."""
    path = folder / "stub.yaml"
    settings = {
        "splitter": {"method": "fixed_stride", "clip_length_s": clip_length_s, "min_clip_s": 0.0},
        "operators": {
            "hamer": {"backend": "tests.faults.operator:FaultyHands", "params": params},
            "sam2": {"enabled": False},
        },
        "guard": {"timeout_s": timeout_s, "timeout_s_per_frame": 0.0, "memory_gib": memory_gib},
        "retry": {"max_retries": 3, "base_delay_s": 0.01, "backoff": 1.0},
        "metrics": {"failure_rate_max": 1.0, "empty_mask_rate_max": 1.0},  # tests/e2e/test_egoworld_qc.py sets its own
        "speed_of_light": {"sample_frames": 0},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def command(videos: object, config: Path, output: object, engine: str = "local", run_id: str = "r") -> tuple:
    """The words of a run."""
    inputs = ("--input", videos, "--config", config)
    return ("run", *inputs, "--output", output, "--run-id", run_id, "--engine", engine)


def call(*args: object) -> tuple[int, str]:
    """Run the command line in this process; (exit code, everything it printed)."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def start(*args: object) -> subprocess.Popen:
    """Run the command line as its own process, in its own group."""
    return subprocess.Popen(
        [sys.executable, "-m", "data_jobs.egoworld", *map(str, args)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"COLUMNS": "200"},
    )


def kill_after(process: subprocess.Popen, run_folder: Path, clips: int, patience_s: float = 120) -> int:
    """SIGKILL the driver once at least `clips` clips are published; returns how many were."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and process.poll() is None:
        if (count := published(run_folder)) >= clips:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return count
        time.sleep(0.02)
    raise AssertionError(f"the run ended or stalled before {clips} clips were published: {process.communicate()[0]}")


def published(run_folder: Path) -> int:
    """Clip folders published so far."""
    return sum(1 for _ in run_folder.glob("video_id=*/clip_id=*"))


def tree_hash(output: str) -> str:
    """The tree hash in what a command printed."""
    return re.search(r"tree sha256 ([0-9a-f]{64})", output).group(1)


def letters(run_folder: Path) -> list[dict]:
    """All dead letters."""
    return [json.loads(path.read_text()) for path in sorted((run_folder / "dead_letter").glob("*.json"))]
