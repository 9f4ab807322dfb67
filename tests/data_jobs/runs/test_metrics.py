"""The arithmetic behind the metrics, and the dashboard that shows them."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_jobs.runs.metrics import METRICS, FrameRate, queue_depth


def test_names_are_unique_and_every_metric_says_what_it_is():
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(metric.meaning for metric in METRICS)


def test_the_dashboard_shows_metrics_that_exist_and_all_of_them():
    board = json.loads((Path(__file__).resolve().parents[3] / "configs" / "grafana_jobs.json").read_text())
    kinds = {metric.name: metric.kind for metric in METRICS}
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    found = [re.search(r"ray_\$\{job\}_(\w+)", expression).group(1) for expression in asked]
    suffixes = {"gauge": "", "counter": "_total", "histogram": "_bucket"}
    assert set(found) == {name + suffixes[kind] for name, kind in kinds.items()}
    asked_tags = {
        tag for expression in asked for tags in re.findall(r"by \(([^)]*)\)", expression) for tag in tags.split(", ")
    }
    assert asked_tags <= {tag for metric in METRICS for tag in metric.tags} | {"run_id", "le"}


@given(
    rate=st.floats(0.5, 1000), step_s=st.floats(0.01, 20), looks=st.integers(2, 200), window_s=st.sampled_from([1, 30])
)
def test_a_steady_stream_gives_its_own_rate(rate, step_s, looks, window_s):
    meter = FrameRate(window_s)
    found = [meter.update(i * step_s, round(i * step_s * rate)) for i in range(looks)]
    assert found[0] == 0
    for i, value in enumerate(found[1:], start=1):
        spanned_s = min(i * step_s, window_s)
        assert value == pytest.approx(rate, abs=1.01 / spanned_s)  # both totals are rounded to whole frames


def test_the_rate_falls_to_nothing_when_nothing_comes():
    meter = FrameRate(10)
    assert meter.update(0, 0) == 0
    assert meter.update(1, 100) == 100
    assert meter.update(6, 100) < 20
    assert meter.update(20, 100) == pytest.approx(0)


def test_the_rate_forgets_looks_from_before_its_window():
    meter = FrameRate(5)
    for second in range(1000):
        meter.update(second, 10 * second)
    assert len(meter._seen) <= 7


def test_what_waits_is_pending_or_to_be_tried_again():
    assert queue_depth({"Pending": (3, 30), "Failed": (2, 9), "Running": (1, 5), "Done": (7, 70)}) == 5
    assert queue_depth({}) == 0
