"""`make bench-gpu` on a machine without a GPU: the sentence, the row of a missing weight, real samples in a small run.

The whole suite in small runs with the commands of docs/gpu.md (tests/e2e/test_docs_commands.py).
"""

import json

import pytest
import torch

from benchmarks import gpu
from benchmarks.on_device import Setting
from models.weights import fetch


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match=r"torch sees no GPU here.*--device cpu --small --random-weights"):
        gpu.main(None, "cuda", False, False, tmp_path / "gpu.json")
    assert not (tmp_path / "gpu.json").exists()


def test_a_missing_weight_becomes_a_row_with_the_command_and_the_rest_is_measured(no_hub, tmp_path, monkeypatch):
    fetch(["demo_kitchen"])

    def small_masks(setting):
        return gpu.gpu_tracker.masks(Setting("cpu", small=True, random_weights=True))

    monkeypatch.setattr(gpu, "SUITE", {"real": gpu.gpu_tracker.masks, "small": small_masks})
    file = tmp_path / "gpu.json"
    gpu.main(None, "cpu", True, False, file)
    missing, ratio, peak = json.loads(file.read_text())["comparisons"]
    assert "hf download facebook/sam2.1-hiera-tiny sam2.1_hiera_tiny.pt" in missing["found"]
    assert "RANDOM weights" in ratio["what"] and len(ratio["ours"]) == len(ratio["theirs"]) == 5
    assert min(ratio["ours"] + ratio["theirs"]) > 0 and ratio["ratio_least"] <= ratio["ratio"] <= ratio["ratio_most"]
    assert "MiB" in peak["found"]


def test_what_fails_becomes_a_row_and_the_exit_code_tells(tmp_path, monkeypatch):
    def broken(setting):
        raise RuntimeError("out of memory on the card")
        yield

    monkeypatch.setattr(gpu, "SUITE", {"broken": broken})
    with pytest.raises(gpu.typer.Exit) as ended:
        gpu.main(None, "cpu", True, False, tmp_path / "gpu.json")
    assert ended.value.exit_code == 1
    assert "failed: RuntimeError: out of memory on the card" in (tmp_path / "gpu.json").read_text()
