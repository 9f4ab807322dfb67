"""What is shipped: halved weights that answer alike, the table as it was measured, a report made again."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from models.manipulation import checkpoint
from models.manipulation.network import build
from models.manipulation.size import SIZES
from models.manipulation.temporal import TemporalFusion
from train_jobs.manipulation.__main__ import app
from train_jobs.manipulation.ship import table

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results" / "manipulation.json"


def test_halved_weights_are_smaller_and_answer_alike(tmp_path):
    torch.manual_seed(0)
    network = build(SIZES["tiny"]).eval()
    checkpoint.save(network, tmp_path / "manipulation.safetensors", {"steps": 3})
    checkpoint.save_temporal(TemporalFusion(SIZES["tiny"]), tmp_path / "temporal.safetensors", {})
    result = CliRunner().invoke(app, ["ship", "--output", str(tmp_path), "--to", str(tmp_path / "shipped")])
    assert result.exit_code == 0, result.output
    halved = tmp_path / "shipped" / checkpoint.MANIPULATION.name
    assert halved.stat().st_size < 0.6 * (tmp_path / "manipulation.safetensors").stat().st_size
    again, note = checkpoint.load(halved, "tiny")
    assert note["steps"] == 3
    pictures, camera = (
        torch.rand(2, 3, 128, 128),
        torch.tensor([[160.0, 0, 60], [0, 160, 68], [0, 0, 1]]).expand(2, 3, 3),
    )
    with torch.no_grad():
        apart = network(pictures, camera).hand.joints_m - again(pictures, camera).hand.joints_m
    assert float(apart.abs().max()) < 5e-3


def test_nothing_is_shipped_without_both_stages(tmp_path):
    result = CliRunner().invoke(app, ["ship", "--output", str(tmp_path), "--to", str(tmp_path / "shipped")])
    assert result.exit_code == 1 and "run stage1 and stage2 with this --output first" in result.output
    assert not (tmp_path / "shipped").exists()


def test_a_report_is_made_from_weights_alone(tmp_path):
    torch.manual_seed(0)
    checkpoint.save(build(SIZES["tiny"]), tmp_path / "random.safetensors", {})
    words = ["--weights", str(tmp_path / "random.safetensors"), "--pictures", "24", "--bank", "24"]
    result = CliRunner().invoke(app, ["evaluate", *words, "--output", str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert table(found) in result.output
    assert 0 < found["objects"]["held"] < 24
    wrong = CliRunner().invoke(app, ["evaluate", "--weights", str(tmp_path / "nowhere")])
    assert wrong.exit_code == 1 and "cannot be read" in wrong.output


@pytest.mark.parametrize("page", ["docs/manipulation.md"])
def test_the_table_is_what_was_measured(page):
    assert table(json.loads(RESULTS.read_text())) in (ROOT / page).read_text(), "paste what `evaluate` prints"
