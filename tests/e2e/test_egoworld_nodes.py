"""egoworld on two Ray nodes that share a file system: one dies in the middle, and nobody can tell from the result."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ray.cluster_utils import Cluster

from tests.e2e.egoworld import ROOT, call, command, letters, published, stub_config, tree_hash
from tests.faults.videos import write_video

CLIPS = 60


@pytest.fixture
def cluster():
    """A head with two places for workers and a second node with two more."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 2**27})
    yield cluster
    cluster.shutdown()


def config_of(folder: Path, workers: int, **more: object) -> Path:
    path = stub_config(folder, slow_ms=300.0, share_of={"slow": 1.0}, calls_folder=str(folder / "calls"))
    (folder / "calls").mkdir(exist_ok=True)
    settings = yaml.safe_load(path.read_text()) | {"backpressure": {"max_in_flight_cpu": workers}, **more}
    path.write_text(yaml.safe_dump(settings))
    return path


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = parent_of(pid)
    return False


def sandboxes_on(raylet: int, calls: Path) -> list[int]:
    """Ids of the sandbox processes that have worked on clips below this raylet."""
    pids = [int(path.name.rpartition("-")[2]) for path in calls.iterdir()]
    return [pid for pid in pids if descends(pid, raylet)]


def await_that(condition, process, patience_s=300):
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return value


def driver_on(cluster: Cluster, videos: Path, config: Path, output: Path) -> subprocess.Popen:
    """A run of the command line on this cluster."""
    return subprocess.Popen(
        [sys.executable, "-m", "data_jobs.egoworld", *map(str, command(videos, config, output, "ray"))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "200", "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_a_run_outlives_one_of_its_nodes(cluster, tmp_path):
    """More workers than the surviving node has room for: nothing may wait for a place that never comes."""
    videos = write_video(tmp_path / "videos" / "a.mp4", CLIPS * 10).parent
    config = config_of(tmp_path, workers=3)
    doomed = cluster.add_node(num_cpus=2, object_store_memory=2**27)
    cluster.wait_for_nodes()
    driver = driver_on(cluster, videos, config, tmp_path / "out")
    try:
        run, calls = tmp_path / "out" / "run_id=r", tmp_path / "calls"
        raylet = doomed.all_processes["raylet"][0].process.pid
        sandboxes = await_that(lambda: published(run) >= 5 and sandboxes_on(raylet, calls), driver)
        cluster.remove_node(doomed, allow_graceful=False)
        assert published(run) < CLIPS
        text = driver.communicate(timeout=300)[0]
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == 0, text
    assert f"planned {CLIPS} = done {CLIPS} + dead 0" in text
    assert letters(run) == []
    assert not [pid for pid in sandboxes if Path(f"/proc/{pid}").exists()]
    code, undisturbed = call(*command(videos, config, tmp_path / "local"))
    assert code == 0
    assert tree_hash(undisturbed) == tree_hash(text)


def devices_of(pid: int) -> str:
    """What CUDA_VISIBLE_DEVICES said when the process began, "" if nothing."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return next((each.partition("=")[2] for each in variables if each.startswith("CUDA_VISIBLE_DEVICES=")), "")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_workers_share_the_gpus_that_the_config_names(tmp_path):
    """Two logical GPUs and two workers: each sandbox sees one, and not the same. No card is needed to tell."""
    videos = write_video(tmp_path / "videos" / "a.mp4", CLIPS * 10).parent
    config = config_of(tmp_path, workers=2, num_gpus=2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "num_gpus": 2, "object_store_memory": 2**27})
    driver = driver_on(cluster, videos, config, tmp_path / "out")
    try:
        raylet = cluster.head_node.all_processes["raylet"][0].process.pid
        sandboxes = await_that(
            lambda: len(found := set(sandboxes_on(raylet, tmp_path / "calls"))) == 2 and found, driver
        )
        assert {devices_of(pid) for pid in sandboxes} == {"0", "1"}
        text = driver.communicate(timeout=300)[0]
    finally:
        driver.kill()
        driver.wait()
        cluster.shutdown()
    assert driver.returncode == 0, text
