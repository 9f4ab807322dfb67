"""A program of the user's in a run: its table is published like any other, its failures are dead letters."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from data_jobs.egoworld.schemas import schema_of
from tests.e2e.egoworld import call, command, letters
from tests.faults.videos import write_video

PROGRAM = """
import json, os, pathlib, sys
clip = pathlib.Path(sys.argv[1])
mode = MODES[json.loads((clip / "clip.json").read_text())["frame_start"] // 10]
if mode == "exit": sys.exit("no weights")
if mode == "place": open("poses.parquet", "w").close(); sys.exit()
import pyarrow as pa, pyarrow.parquet as pq
frames = pq.read_table(clip / "frames.parquet").to_pylist()
pose = [float(os.environ.get("SCALE", 1))] * 7
rows = [{"frame_index": f["frame_index"], "pose": pose, "outcome": "reconstructed", "camera": [1.0] * 4,
         "reprojection_px": 0.5, "points": []} for f in frames if f["file"]]
pq.write_table(pa.Table.from_pylist(rows), sys.argv[2])
"""


def config(folder: Path, modes: list[str], **params: object) -> Path:
    program = folder / "program.py"
    program.write_text(PROGRAM.replace("MODES", repr(modes)))
    params = {
        "command": [sys.executable, str(program), "{clip}", "{output}"], "licence": "LicenseRef-research-only",
        "picture_interval_s": 0.5, "pictures": "jpeg",
    } | params  # fmt: skip
    path = folder / "external.yaml"
    settings = {
        "splitter": {"method": "fixed_stride", "clip_length_s": 1.0, "min_clip_s": 0.0},
        "operators": {
            "fast3r": {"enabled": True, "backend": "external", "params": params},
            "sam2": {"enabled": False},
            "hamer": {"enabled": False},
        },
        "allow_licence": ["LicenseRef-research-only"],
        "retry": {"max_retries": 1, "base_delay_s": 0.01},
        "metrics": {"failure_rate_max": 1.0},
        "speed_of_light": {"sample_frames": 0},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def test_tables_are_published_and_failures_buried(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", 30)
    settings = config(tmp_path, ["good", "exit", "place"])
    code, text = call(*command(tmp_path / "videos", settings, tmp_path))
    assert code == 0, text
    [clip] = (tmp_path / "run_id=r").glob("video_id=*/clip_id=*")
    table = pq.ParquetFile(clip / "fast3r_pose.parquet").read()
    assert table.schema.equals(schema_of("fast3r_pose")) and table["frame_index"].to_pylist() == [0, 5]
    meta = json.loads((clip / "meta.json").read_text())["tables"]["fast3r_pose"]
    assert (meta["operator"], meta["licence"]) == ("fast3r:external", "LicenseRef-research-only")
    found = {letter["clip_id"][17:26]: letter for letter in letters(tmp_path / "run_id=r")}
    assert {key: (letter["cause"], letter["attempts"]) for key, letter in found.items()} == {
        "000000010": ("bug", 1),
        "000000020": ("bug", 1),
    }
    assert "exit code 1; it said: no weights" in found["000000010"]["message"]
    assert "it wrote work/poses.parquet instead" in found["000000020"]["message"]
    assert call("verify", "--run", tmp_path / "run_id=r")[0] == 0


def test_a_restricted_licence_is_refused_in_one_sentence(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", 10)
    settings = config(tmp_path, ["good"])
    settings.write_text(settings.read_text().replace("- LicenseRef-research-only", "- MIT"))
    code, text = call(*command(tmp_path / "videos", settings, tmp_path))
    assert code == 1 and "write allow_licence: ['LicenseRef-research-only']" in text
    assert not (tmp_path / "run_id=r").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_ray_runtime_env_holds_the_program(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", 10)
    settings = config(tmp_path, ["good"], runtime_env={"env_vars": {"SCALE": "3"}})
    code, text = call(*command(tmp_path / "videos", settings, tmp_path, engine="local"))
    assert code == 1 and "runtime_env needs Ray" in text
    code, text = call(*command(tmp_path / "videos", settings, tmp_path, engine="ray", run_id="ray"))
    assert code == 0, text
    [path] = (tmp_path / "run_id=ray").glob("video_id=*/clip_id=*/fast3r_pose.parquet")
    assert set(pq.ParquetFile(path).read()["pose"].to_pylist()[0]) == {3.0}
