"""What Prometheus would scrape of a run on a real cluster: the engine, the metered ledger and Ray's own endpoint."""

import time
import urllib.request
from functools import partial

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from data_jobs.egoworld.config import EgoworldConfig
from data_jobs.egoworld.manifest import build_manifest
from data_jobs.egoworld.plan import make_plan
from data_jobs.egoworld.task import EgoworldJob, host_of
from data_jobs.runs.cluster import remote_ledger
from data_jobs.runs.engine import run_ray
from data_jobs.runs.metrics import METRICS
from tests.faults.videos import write_video

PREFIX = "egoworld_"
PATIENCE_S = 60


@pytest.fixture(scope="module")
def cluster():
    if ray.is_initialized():
        pytest.fail("another test left a Ray cluster running")
    ray.init(
        num_cpus=3,
        object_store_memory=128 * 2**20,
        log_to_driver=False,
        address="local",
        include_dashboard=False,  # as in cluster.py: the endpoint does not need it
        _system_config={"metrics_report_interval_ms": 500},
    )
    yield
    ray.shutdown()


def job_of(folder, share_of) -> EgoworldJob:
    settings = {
        "splitter": {"method": "fixed_stride", "clip_length_s": 0.5, "min_clip_s": 0.0},
        "operators": {
            "sam2": {"enabled": False},
            "hamer": {
                "backend": "tests.faults.operator:FaultyHands",
                "params": {"healthy_ms": 1.0, "share_of": share_of},
            },
        },
        "retry": {"max_retries": 2, "base_delay_s": 0.01},
        "backpressure": {"max_in_flight_cpu": 1},
        "speed_of_light": {"sample_frames": 0},
    }
    plan, _ = make_plan(EgoworldConfig.model_validate(settings), lambda name: "0" * 64)
    return EgoworldJob(plan, folder, "metered")


def scrape() -> dict[str, dict[frozenset, float]]:
    """Sample name → tags → value, from the metrics port of this node."""
    [node] = [node for node in ray.nodes() if node["Alive"]]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, dict[frozenset, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if PREFIX in sample.name and sample.labels.get("run_id") == "metered":
                tags = {k: v for k, v in sample.labels.items() if k in ("state", "cause", "stage", "result", "le")}
                found.setdefault(sample.name, {})[frozenset(tags.items())] = sample.value
    return found


def wait_for(settled) -> dict[str, dict[frozenset, float]]:
    """Scrape until `settled` says yes; the metrics travel to the endpoint with a delay."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = scrape()
        if settled(found):
            return found
        assert time.monotonic() < deadline, f"not exported in {PATIENCE_S} s; found {found}"
        time.sleep(0.5)


def value(found, name, **tags) -> float:
    return found[f"ray_{PREFIX}{name}"][frozenset(tags.items())]


def test_a_scrape_sees_names_and_values(cluster, tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", 60)
    job = job_of(tmp_path / "out", {"bug": 0.3, "transient": 0.2})
    job.store.prepare()
    clips = build_manifest([tmp_path / "videos"], job.plan.config.chosen_splitter()).clip_table
    job.run_folder.mkdir()
    ledger = remote_ledger(str(job.run_folder / "ledger.sqlite"), "egoworld", job.run_id)
    epoch = ledger.begin(job.run_id, "ray", "{}")
    ledger.register([(row["clip_id"], row["video_id"], 5) for row in clips.to_pylist()], "Pending")
    results = [outcome.result for outcome in run_ray(host_of(job), clips, ledger, epoch)]
    ledger.end(epoch, "finished")
    ledger.show_speed(0.75)
    done, dead, causes = results.count("done"), results.count("dead"), ledger.dead_by_cause()
    assert done and {"bug", "transient"} <= set(causes), "the seed of the stub gives some of each"

    found = wait_for(lambda seen: f"ray_{PREFIX}speed_of_light_ratio" in seen and value(seen, "clips", state="Done"))

    clips_in = partial(value, found, "clips")
    assert (clips_in(state="Done"), clips_in(state="Dead"), clips_in(state="Pending")) == (done, dead, 0)
    assert value(found, "queue_depth") == 0
    assert {cause: value(found, "dead_letters", cause=cause) for cause in causes} == causes
    assert value(found, "dead_letters", cause="timeout") == 0
    # One attempt per bug, two per transient failure, and one per clip that was done, in each stage.
    failed = causes["bug"] + 2 * causes["transient"]
    assert value(found, "attempts_total", stage="hamer", result="failed") == failed
    assert value(found, "attempts_total", stage="hamer", result="done") == done
    assert value(found, "attempts_total", stage="publish", result="done") == done
    assert value(found, "stage_seconds_count", stage="hamer", result="done") == done
    assert value(found, "stage_seconds_sum", stage="hamer", result="done") >= done * 0.001
    assert value(found, "frames_per_s") >= 0
    assert value(found, "speed_of_light_ratio") == 0.75


def test_every_metric_is_exported_under_its_name(cluster):
    ends = {"gauge": "", "counter": "_total", "histogram": "_bucket"}
    found = scrape()
    for metric in METRICS:
        assert f"ray_{PREFIX}{metric.name}{ends[metric.kind]}" in found
