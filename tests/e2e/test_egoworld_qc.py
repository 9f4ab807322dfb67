"""Thresholds of the `metrics` block: a run beyond them says so, names the clips, and ends with code 5."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_jobs.egoworld.qc import COLUMNS, clip_qc
from data_jobs.egoworld.schemas import TABLES, schema_of
from data_jobs.runs.columns import arrow_schema
from tests.e2e.egoworld import call, command, letters, stub_config
from tests.faults.videos import write_video


def run(tmp_path, share_of, **metrics):
    write_video(tmp_path / "videos" / "a.mp4", 60)
    path = stub_config(tmp_path, share_of=share_of)
    settings = yaml.safe_load(path.read_text())
    settings["metrics"] = metrics
    settings["operators"]["sam2"] = {"backend": "tests.faults.operator:HalfEmptyMasks"}
    path.write_text(yaml.safe_dump(settings))
    code, text = call(*command(tmp_path / "videos", path, tmp_path))
    rows = pq.ParquetFile(tmp_path / "run_id=r" / "qc.parquet").read()
    assert rows.schema.equals(arrow_schema(COLUMNS))
    return code, text, rows.to_pylist()


def test_within_all_thresholds(tmp_path):
    code, text, rows = run(tmp_path, {}, empty_mask_rate_max=0.5)
    assert code == 0 and "quality" not in text
    assert [row["state"] for row in rows] == ["done"] * 6
    assert all((row["frames"], row["hand_rate"], row["mask_frames_empty"]) == (10, 1.0, 5) for row in rows)
    [clip, *_] = (tmp_path / "run_id=r").glob("video_id=*/clip_id=*")
    assert json.loads((clip / "meta.json").read_text())["qc"]["empty_mask_rate"] == 0.5


def test_too_many_failures_are_named(tmp_path):
    code, text, rows = run(tmp_path, {"input": 0.5}, empty_mask_rate_max=0.5)
    dead = [letter["clip_id"] for letter in letters(tmp_path / "run_id=r")]
    assert code == 5 and 0 < len(dead) < 6
    assert f"quality: failure rate {len(dead) / 6:.3f} is above 0.01: {dead[0]}" in text
    assert [row["clip_id"] for row in rows if not row["within"]] == dead
    assert {row["cause"] for row in rows if row["state"] == "dead"} == {"input"}
    record = json.loads((tmp_path / "run_id=r" / "run_manifest.json").read_text())
    assert record["qc"]["clips_beyond"] == dead and record["state"] == "finished"


def test_too_many_empty_masks_are_named(tmp_path):
    code, text, rows = run(tmp_path, {}, empty_mask_rate_max=0.2)
    assert code == 5
    assert f"quality: empty-mask rate 0.500 is above 0.2: {rows[0]['clip_id']}" in text and "and 1 more" in text
    assert call("verify", "--run", tmp_path / "run_id=r")[0] == 0


def test_a_rate_of_nothing_is_not_a_rate(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", 10)
    code, _ = call(*command(tmp_path / "videos", stub_config(tmp_path), tmp_path))
    [row] = pq.ParquetFile(tmp_path / "run_id=r" / "qc.parquet").read().to_pylist()
    assert code == 0 and row["empty_mask_rate"] is None and row["camera_outcome"] is None


def test_every_table_may_be_empty_or_hold_what_was_not_found():
    def read(table, columns):
        return tables[table].select(columns)

    tables = {name: schema_of(name).empty_table() for name in TABLES}
    assert {k: v for k, v in clip_qc(read, list(TABLES), 10).items() if v} == {}
    nan, pose = [float("nan")] * 7, [0.0] * 7
    tables["object_pose"] = pa.table({"pose": pa.array([nan, pose], schema_of("object_pose").field("pose").type)})
    outcomes = ["no_parallax"] * 2
    camera = {"pose": pa.array([nan, nan], schema_of("fast3r_pose").field("pose").type), "outcome": pa.array(outcomes)}
    tables["fast3r_pose"] = pa.table(camera)
    found = clip_qc(read, ["object_pose", "fast3r_pose"], 10)
    assert found == {"object_found_rate": 0.5, "camera_outcome": "no_parallax", "camera_posed_rate": 0.0}


@pytest.mark.parametrize("value", [-0.1, 1.5, "many"])
def test_a_threshold_is_a_rate(tmp_path, value):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"metrics": {"failure_rate_max": value}}))
    code, text = call(*command(tmp_path, path, tmp_path / "out"))
    assert code == 1 and "metrics.failure_rate_max" in text
