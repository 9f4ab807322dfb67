"""A worker's memory does not grow with the clip: the sandbox, the task and the reader, measured from outside."""

from functools import partial
from pathlib import Path

import pytest

from benchmarks.egoworld_bounds import job_of, peak_bytes, repeat, write_stretch
from data_jobs.egoworld.manifest import build_manifest
from data_jobs.egoworld.task import EgoworldTask
from data_jobs.runs.guard import StageCall
from data_jobs.runs.sandbox import Sandbox

WIDTH, HEIGHT, RATE, WINDOW = 640, 360, 30, 16
WINDOW_BYTES = WINDOW * WIDTH * HEIGHT * 3


@pytest.fixture(scope="module")
def stretch(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("stretch") / "stretch.mp4"
    write_stretch(path, WIDTH, HEIGHT, RATE, 2)
    return path


def peaks(folder: Path, stretch: Path, times: int) -> tuple[int, int]:
    """Peak memory of a sandbox in bytes before and after it read one clip."""
    folder.mkdir()
    repeat(stretch, folder / "clip.mp4", times)
    operator = {
        "backend": "benchmarks.egoworld_bounds:ReadEveryFrame",
        "params": {"costs": str(folder / "costs.jsonl")},
    }
    job = job_of(folder / "out", operator, 3600)
    assert job.plan.config.guard.window_frames == WINDOW
    [row] = build_manifest([folder / "clip.mp4"], job.plan.config.chosen_splitter()).clip_table.to_pylist()
    assert job.frames(row) == times * 2 * RATE
    sandbox = Sandbox(partial(EgoworldTask, job), job.plan.preload(), 2 * 2**30)
    sandbox.start()
    try:
        before = peak_bytes(sandbox._child.pid)
        assert isinstance(sandbox.call(StageCall(row, "hamer", 0), 120), str)
        return before, peak_bytes(sandbox._child.pid)
    finally:
        sandbox.close()


def test_twenty_times_the_length_takes_the_same_memory(tmp_path, stretch):
    (_, short), (_, long) = peaks(tmp_path / "short", stretch, 1), peaks(tmp_path / "long", stretch, 20)
    assert long < 1.1 * short


def test_window_times_frame_size_bounds_a_worker(tmp_path, stretch):
    before, after = peaks(tmp_path / "clip", stretch, 5)
    # Two windows and what decoding and writing take besides, which does not depend on the window.
    assert after - before < 2 * WINDOW_BYTES + 64 * 2**20
