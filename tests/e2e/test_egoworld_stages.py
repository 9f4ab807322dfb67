"""What is computed again when a parameter or a video changes, proved by counting the operators' calls."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.e2e.egoworld import call, letters, stub_config
from tests.faults.videos import write_video


def config_of(folder: Path, hands: str = "", masks: str = "") -> Path:
    path = stub_config(folder)
    settings = yaml.safe_load(path.read_text())
    calls = {"calls_folder": str(folder / "calls")}
    settings["operators"] = {
        "hamer": {"backend": "tests.faults.operator:FaultyHands", "params": calls | {"label": hands}},
        "sam2": {"backend": "tests.faults.operator:FaultyMasks", "params": calls | {"label": masks}},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def run(tmp_path):
    """Runs the clips under a run id; returns how often each operator was called."""
    (tmp_path / "calls").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", 50, seed=1)
    write_video(tmp_path / "videos" / "b.mp4", 30, seed=2)

    def run(run_id: str, **labels: str) -> Counter:
        config = config_of(tmp_path, **labels)
        command = ("--input", tmp_path / "videos", "--config", config, "--output", tmp_path / "out", "--run-id", run_id)
        code, text = call("run", *command, "--engine", "local")
        assert code == 0, text
        assert letters(tmp_path / "out" / f"run_id={run_id}") == []
        counts: Counter = Counter()
        for path in (tmp_path / "calls").iterdir():
            counts[path.name.partition("-")[0]] += len(path.read_text().splitlines())
            path.unlink()
        return counts

    return run


def test_only_what_changed_is_computed_again(run, tmp_path):
    assert run("first") == {"hamer": 8, "sam2": 8}
    assert run("same") == {}
    assert run("masks", masks="other") == {"sam2": 8}
    assert run("hands", hands="other") == {"hamer": 8, "sam2": 8}
    write_video(tmp_path / "videos" / "b.mp4", 30, seed=3)
    assert run("video") == {"hamer": 3, "sam2": 3}


@pytest.mark.parametrize(("fits", "dead"), [("4", False), ("1", True)])
def test_lack_of_gpu_memory_halves_the_window_then_buries(tmp_path, fits, dead):
    """16 → 8 → 4 frames in three attempts; a clip that needs less goes to the dead letter."""
    write_video(tmp_path / "videos" / "a.mp4", 20)
    config = stub_config(tmp_path, label=fits)
    config.write_text(config.read_text().replace("FaultyHands", "OutOfMemoryHands"))
    command = ("--input", tmp_path / "videos", "--config", config, "--output", tmp_path, "--run-id", "r")
    call("run", *command, "--engine", "local")
    found = letters(tmp_path / "run_id=r")
    assert len(found) == (2 if dead else 0)
    for letter in found:
        assert (letter["cause"], letter["error_type"], letter["attempts"]) == ("resource", "OutOfMemoryError", 3)
        assert letter["message"] == "window of 4 frames does not fit"
