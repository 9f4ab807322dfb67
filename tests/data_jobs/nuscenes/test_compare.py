"""The comparison scores every row on the same recordings, and its table and page say what was measured."""

import json

import numpy as np
import pytest

from data_jobs.nuscenes import compare as job
from data_jobs.nuscenes import suite
from data_jobs.nuscenes.compare_page import page
from models.trackssm.pretrained import PRETRAINED


@pytest.fixture(scope="module")
def results(database, converted):
    parts = suite.read_suite(converted, database / "detections.parquet", "val")
    chosen = [row for row in job.entries([PRETRAINED]) if row.name in (job.REFERENCE, "last box") or "own" in row.name]
    return job.compare([parts[:3], parts[3:]], chosen, [job.CONDITIONS[1]], lambda line: None)


def test_rows_are_baselines_and_the_network_with_and_without_its_gate():
    names = [row.name for row in job.entries([PRETRAINED])]
    assert names[-2:] == ["TrackSSM, trackssm_small", "TrackSSM, trackssm_small, own gate"]
    assert job.REFERENCE in names and len(names) == 7


def test_a_score_per_suite_and_a_difference_taken_suite_by_suite(results):
    last, reference, _ = results
    assert len(last.scores) == 2 and 0 < last.values("HOTA").mean() < reference.values("HOTA").mean() < 100
    difference = (last.values("HOTA") - reference.values("HOTA")).mean()
    line = next(line for line in job.table(results).splitlines() if "last box" in line)
    assert f"{difference:.2f} ±" in line


def test_the_interval_is_students():
    values = np.array([1.0, 2.0, 3.0])
    assert job.half_width(values) == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    assert job.spread(values[:1]) == "1.0"


def test_json_and_page_hold_every_row(results):
    data = json.loads(job.as_json(results, {"suites": "two"}))
    assert [row["motion"] for row in data["results"]] == [r.entry for r in results]
    html = page(results, "two halves of a scene.")
    assert all(r.entry.replace("'", "&#39;") in html for r in results) and html.count("<rect") == len(results)
