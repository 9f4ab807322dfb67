"""egoworld with its results in an object store: the same commands, the same tree hash, kills included."""

import os
import signal
import time

import pytest

from data_jobs.runs.places import open_run
from tests.data_jobs.runs.conftest import bucket, s3_environment  # noqa: F401 - fixtures
from tests.e2e.egoworld import call, command, start, stub_config, tree_hash
from tests.faults.videos import write_video

pytestmark = pytest.mark.timeout(700)


@pytest.fixture
def videos(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", 60, seed=1)
    write_video(tmp_path / "videos" / "b.mp4", 45, seed=2)
    (tmp_path / "videos" / "broken.mp4").write_text("this is no video")
    return tmp_path / "videos"


def test_every_command_works_and_the_hash_is_the_local_one(videos, tmp_path, bucket):  # noqa: F811
    config = stub_config(tmp_path, share_of={"input": 0.2, "transient": 0.2}, seed=4)
    code, text = call(*command(videos, config, tmp_path / "out"))
    assert code == 0, text
    code, remote = call(*command(videos, config, f"{bucket}/some/prefix"))
    assert code == 0, remote
    assert tree_hash(remote) == tree_hash(text)
    run = f"{bucket}/some/prefix/run_id=r"
    code, verified = call("verify", "--run", run)
    assert (code, tree_hash(verified)) == (0, tree_hash(text))
    assert "harmless leftovers" not in verified
    code, status = call("status", "--run", run)
    assert code == 0
    assert "finished" in status
    assert call("rebuild", "--run", run)[1] == call("rebuild", "--run", tmp_path / "out" / "run_id=r")[1]
    code, retried = call("retry", "--run", run, "--cause", "transient", "--engine", "local")
    assert (code, tree_hash(retried)) == (0, tree_hash(text))
    assert not list(tmp_path.glob("s3:*"))


def test_verify_finds_a_damaged_object(videos, tmp_path, bucket):  # noqa: F811
    call(*command(videos, stub_config(tmp_path), bucket))
    run = open_run(f"{bucket}/run_id=r")
    folder = run.store.folders(run.name)[0]
    held = run.store._held(folder)["hand_pose.parquet"]["sha256"]
    run.store.objects.put(f".objects/{held[:2]}/{held}", b"zeros")
    code, text = call("verify", "--run", f"{bucket}/run_id=r")
    assert code == 3
    assert "does not hold the bytes that its name promises" in text


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_killing_the_driver_and_resuming_gives_the_same_tree(videos, tmp_path, bucket, engine):  # noqa: F811
    config = stub_config(tmp_path, slow_ms=400.0, share_of={"slow": 1.0})
    first = start(*command(videos, config, bucket, engine))
    try:
        run, deadline = open_run(f"{bucket}/run_id=r"), time.monotonic() + 300
        while len(run.store.folders(run.name)) < 2:
            assert first.poll() is None, first.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert len(run.store.folders(run.name)) < 11
    second = start(*command(videos, config, bucket, engine))
    text = second.communicate(timeout=300)[0]
    assert second.returncode == 0, text
    assert "planned 12 = done 11 + dead 1" in text
    assert tree_hash(call(*command(videos, config, tmp_path / "out"))[1]) == tree_hash(text)
