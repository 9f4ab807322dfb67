"""configs/egoworld_full.yaml: all five tables from one rendered clip, with the real models that can be had."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_jobs.egoworld.demo import write_rendered
from data_jobs.egoworld.schemas import TABLES, schema_of
from tests.e2e.egoworld import ROOT, call

FRAMES = 12


@pytest.mark.timeout(900)
def test_all_five_tables_come_out(tmp_path, weights):
    pytest.importorskip("pycolmap", reason="fast3r:pycolmap needs the optional package pycolmap")
    for name in ("palm_detection_full", "hand_landmark_full", "mobile_sam", "efficientdet_lite0"):
        weights(name)
    (tmp_path / "videos").mkdir()
    behind = np.broadcast_to(np.linspace(60, 160, 480, dtype=np.uint8)[:, None, None], (480, 640, 3)).copy()
    write_rendered(tmp_path / "videos" / "hands.mp4", [behind] * FRAMES, FRAMES, "made by a test")
    code, text = call(
        "run", "--input", tmp_path / "videos", "--config", ROOT / "configs" / "egoworld_full.yaml",
        "--output", tmp_path, "--run-id", "full", "--engine", "local",
    )  # fmt: skip
    assert code == 0, text
    [clip] = (tmp_path / "run_id=full").glob("video_id=*/clip_id=*")
    tables = {name: pq.ParquetFile(clip / f"{name}.parquet").read() for name in TABLES}
    assert all(table.schema.equals(schema_of(name)) for name, table in tables.items())
    assert len(tables["mapping"]) == len(tables["hand_pose"]) > 0
    assert set(tables["fast3r_pose"]["outcome"].to_pylist()) == {"too_short"}  # half a second, one view
    meta = json.loads((clip / "meta.json").read_text())
    assert {table["operator"] for table in meta["tables"].values()} == {
        "hamer:mediapipe", "sam2:mobile_sam", "foundationpose:templates", "dex_retarget:dex_retargeting",
        "fast3r:pycolmap",
    }  # fmt: skip
    assert call("verify", "--run", tmp_path / "run_id=full")[0] == 0
