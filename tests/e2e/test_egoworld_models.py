"""egoworld with its real models on a short rendered clip: full tables, equal engines, a report."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from data_jobs.egoworld.demo import write_rendered
from data_jobs.egoworld.schemas import schema_of
from tests.e2e.egoworld import call, tree_hash

FRAMES = 20

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def run(tmp_path_factory, weights):
    """Run folder and printed text of a local run over one rendered clip."""
    for name in ("palm_detection_full", "hand_landmark_full", "mobile_sam", "efficientdet_lite0"):
        weights(name)
    place = tmp_path_factory.mktemp("models")
    gradient = np.linspace(60, 160, 480, dtype=np.uint8)[:, None, None]
    (place / "videos").mkdir()
    write_rendered(
        place / "videos" / "hands.mp4",
        [np.broadcast_to(gradient, (480, 640, 3)).copy()] * FRAMES,
        FRAMES,
        "made by a test",
    )
    code, text = call("run", "--input", place / "videos", "--output", place, "--run-id", "local", "--engine", "local")
    assert code == 0, text
    return place, text


def test_hands_are_found_in_nearly_every_frame(run):
    [path] = (run[0] / "run_id=local").glob("video_id=*/clip_id=*/hand_pose.parquet")
    table = pq.ParquetFile(path).read()
    assert table.schema.equals(schema_of("hand_pose"))
    assert len(set(table["frame_index"].to_pylist())) >= 0.9 * FRAMES
    assert set(table["handedness"].to_pylist()) <= {"left", "right"}
    assert all(len(pose) == 63 for pose in table["pose"].to_pylist())
    assert table["timestamp_s"].to_pylist() == [pts / 30 for pts in table["frame_index"].to_pylist()]


def test_masks_are_of_hands_and_readable_by_coco(run):
    [path] = (run[0] / "run_id=local").glob("video_id=*/clip_id=*/masks.parquet")
    rows = pq.ParquetFile(path).read().to_pylist()
    hands = [row for row in rows if row["class"].endswith("_hand")]
    assert hands
    for row in hands:
        rle = json.loads(row["mask_rle"])
        mask = coco.decode(rle)
        assert mask.shape == (480, 640)
        x0, y0, x1, y1 = (int(value) for value in row["box"])
        assert mask[y0:y1, x0:x1].sum() == mask.sum() > 1000
        assert row["stability"] > 0.8


def test_both_engines_write_the_same_bytes(run):
    place, text = run
    code, with_ray = call(
        "run", "--input", place / "videos", "--output", place / "ray", "--run-id", "r", "--engine", "ray"
    )
    assert code == 0, with_ray
    assert tree_hash(with_ray) == tree_hash(text)


def test_the_speed_of_light_is_printed(run):
    assert "a bare loop over the same models" in run[1]
    speed = json.loads((run[0] / "run_id=local" / "run_manifest.json").read_text())["speed_of_light"]
    assert speed["frames_per_s"] == pytest.approx(speed["bare_frames_per_s"] * speed["ratio"])


def test_a_report_and_an_overlay_come_out(run):
    folder = run[0] / "run_id=local"
    code, text = call("report", "--run", folder)
    assert code == 0, text
    assert (folder / "report" / "report.html").stat().st_size > 10_000
    assert len(list((folder / "report" / "overlay").glob("*.mp4"))) == 1
