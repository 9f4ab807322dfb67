"""Operators that no other end-to-end test runs, through the command line: what they publish against what is true.

Tables before the one under test come from a program of the test's own, by the backend `external`. SAM 2 and
GroundingDINO have seeded RANDOM weights here: real code, no meaning.
"""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from actors.tracker.mesh import render
from data_jobs.egoworld.schemas import schema_of
from models.kinematics import allegro, shadow
from models.kinematics.urdf import read_urdf
from tests.data_jobs.egoworld.film import even, write_film, write_pictures
from tests.data_jobs.egoworld.test_batched_retarget import hand_pose
from tests.data_jobs.egoworld.test_sam2_video import random_checkpoint, random_dino  # noqa: F401
from tests.data_jobs.egoworld.test_template_pose import FOCAL, SIDE, mesh, posed, write_ply  # noqa: F401
from tests.e2e.egoworld import ROOT, call, command

pytestmark = pytest.mark.timeout(600)

# Everything that is not black is the object.
MASKS = """
import json, pathlib, sys
import cv2, numpy as np, pyarrow as pa, pyarrow.parquet as pq
from pycocotools import mask as coco
clip, rows = pathlib.Path(sys.argv[1]), []
for frame in pq.read_table(clip / "frames.parquet").to_pylist():
    mask = cv2.imread(str(clip / frame["file"])).any(axis=2)
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    rle = json.dumps({"size": list(mask.shape), "counts": rle["counts"].decode()})
    rows.append({"frame_index": frame["frame_index"], "mask_rle": rle, "object_id": 4, "class": "thing", "score": 1.0,
                 "box": [0.0] * 4, "predicted_iou": 1.0, "stability": 1.0, "prompt": "detector_box"})
pq.write_table(pa.Table.from_pylist(rows), sys.argv[2])
"""
# The number that is drawn in the picture (film.picture), as the object's identity.
NUMBERS = """
import json, pathlib, sys
import cv2, numpy as np, pyarrow as pa, pyarrow.parquet as pq
from pycocotools import mask as coco
from tests.data_jobs.egoworld.film import number_of
clip, rows = pathlib.Path(sys.argv[1]), []
for frame in pq.read_table(clip / "frames.parquet").to_pylist():
    picture = cv2.imread(str(clip / frame["file"]))
    rle = coco.encode(np.asfortranarray(picture[:, :, 0] * 0, np.uint8))
    rle = json.dumps({"size": list(picture.shape[:2]), "counts": rle["counts"].decode()})
    rows.append({"frame_index": frame["frame_index"], "mask_rle": rle, "object_id": number_of(picture), "class": "it",
                 "score": 1.0, "box": [0.0] * 4, "predicted_iou": 1.0, "stability": 1.0, "prompt": "detector_box"})
pq.write_table(pa.Table.from_pylist(rows), sys.argv[2])
"""
COPY = "import shutil, sys; shutil.copy({table!r}, sys.argv[2])"


def external(folder, text, **params):
    (folder / "program.py").write_text(text)
    words = [sys.executable, str(folder / "program.py"), "{clip}", "{output}"]
    return {"backend": "external", "params": {"command": words, "licence": "Apache-2.0"} | params}


def published(folder, table, **operators):
    """Run the operators over `folder`/videos; the published table of the one clip, and what meta.json says of it."""
    keys = ("hamer", "sam2", "foundationpose", "dex_retarget", "fast3r")
    settings = {
        "operators": {key: {"enabled": key in operators} | operators.get(key, {}) for key in keys},
        "metrics": {"empty_mask_rate_max": 1.0},
        "speed_of_light": {"sample_frames": 0},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    code, text = call(*command(folder / "videos", path, folder))
    assert code == 0, text
    assert call("verify", "--run", folder / "run_id=r")[0] == 0
    [clip] = (folder / "run_id=r").glob("video_id=*/clip_id=*")
    found = pq.ParquetFile(clip / f"{table}.parquet").read()
    assert found.schema.equals(schema_of(table))
    return found, json.loads((clip / "meta.json").read_text())["tables"][table]


@pytest.fixture
def videos(tmp_path):
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


VARIABLE = np.cumsum(np.random.default_rng(7).choice([500, 1001, 2000, 5000], 60)).tolist()


@pytest.mark.parametrize(
    ("times", "options"),
    [
        (VARIABLE, {"bf": "3", "g": "12"}),  # variable rate and B-frames
        (list(even(60)), {"g": "250", "keyint_min": "250", "bf": "2"}),  # one keyframe for all clips
    ],
)
def test_every_row_belongs_to_the_picture_it_names(videos, times, options):
    """From the listing of the video to the published clips: off by one frame anywhere is off by one here."""
    write_film(videos / "a.mp4", times, options=options)
    params = {"pictures": "png", "picture_interval_s": 1e-6, "env": {"PYTHONPATH": str(ROOT)}}
    path = videos.parent / "config.yaml"
    operators = {"sam2": external(videos.parent, NUMBERS, **params), "hamer": {"enabled": False}}
    splitter = {"method": "fixed_stride", "clip_length_s": 1.2, "min_clip_s": 0.0}
    path.write_text(
        yaml.safe_dump({"operators": operators, "splitter": splitter, "speed_of_light": {"sample_frames": 0}})
    )
    code, text = call(*command(videos, path, videos.parent))
    assert code == 0, text
    clips = sorted((videos.parent / "run_id=r").glob("video_id=*/clip_id=*"))
    rows = [row for clip in clips for row in pq.ParquetFile(clip / "masks.parquet").read().to_pylist()]
    assert len(clips) >= 2 and [row["frame_index"] for row in rows] == list(range(60))
    assert [row["object_id"] for row in rows] == list(range(60))
    seconds = (np.array(times) - times[0]) / 30_000
    assert np.allclose([row["timestamp_s"] - rows[0]["timestamp_s"] for row in rows], seconds, atol=1e-6)


def test_sam2_fills_every_frame(videos, random_checkpoint, random_dino):  # noqa: F811
    write_film(videos / "a.mp4", even(8))
    prompting = {"gd_checkpoint": str(random_dino), "box_threshold": 0.0, "text_threshold": 0.0}
    prompting |= {"prompt_interval_s": 0.1, "max_boxes_per_frame": 2}
    params = {"checkpoint": str(random_checkpoint), "config": "sam2.1_hiera_tiny", "image_size": 64}
    masks, meta = published(
        videos.parent, "masks", sam2={"backend": "sam2", "params": params | {"prompting": prompting}}
    )
    assert set(masks["frame_index"].to_pylist()) == set(range(8))
    assert meta["operator"] == "sam2:sam2" and random_checkpoint.name in meta["weights_sha256"]


def test_an_object_is_where_its_mask_says(videos, mesh):  # noqa: F811
    write_ply(videos.parent / "block.ply", mesh)
    truth = [posed((20, 30 + 5 * k, 40), (0.02 * k - 0.02, 0, 0.5)) for k in range(3)]
    write_pictures(videos / "a.mkv", [render(mesh, pose, SIDE, FOCAL)[0] for pose in truth])
    params = {"objects": {"block": str(videos.parent / "block.ply")}, "unit": "m", "focal_px": FOCAL}
    masks = external(videos.parent, MASKS, pictures="png", picture_interval_s=0.01)
    poses, meta = published(
        videos.parent, "object_pose", sam2=masks, foundationpose={"backend": "templates", "params": params}
    )
    assert meta["operator"] == "foundationpose:templates"
    assert poses["object_id"].to_pylist() == [4] * 3
    for row, pose in zip(poses.to_pylist(), truth, strict=True):
        assert np.linalg.norm(row["pose"][:3] - pose[:3, 3]) < 0.03, row


@pytest.mark.parametrize(
    ("backend", "params", "described"),
    [
        ("batched", {}, allegro.urdf_path),
        ("dex_retargeting", {}, allegro.urdf_path),
        ("dex_retargeting", {"robot": "shadow"}, shadow.urdf_path),
    ],
)
def test_a_robot_follows_both_hands(videos, backend, params, described):
    hands = hand_pose(seconds=0.5)
    pq.write_table(hands.drop_columns(["timestamp_s", "pts"]), videos.parent / "hands.parquet")
    write_film(videos / "a.mp4", even(len(set(hands["frame_index"].to_pylist()))))
    copy = COPY.format(table=str(videos.parent / "hands.parquet"))
    mapping, meta = published(
        videos.parent,
        "mapping",
        hamer=external(videos.parent, copy, pictures="none"),
        dex_retarget={"backend": backend, "params": params},
    )
    assert meta["operator"] == f"dex_retarget:{backend}" and len(mapping) == len(hands)
    for row in mapping.to_pylist():
        tree = read_urdf(described(row["robot"].split("_")[1]))
        assert tuple(row["joints"]) == tree.joints
        assert (np.array(row["pose"]) >= tree.lower_rad - 1e-6).all()
        assert (np.array(row["pose"]) <= tree.upper_rad + 1e-6).all()
    assert np.nanmedian(np.array(mapping["tip_error_m"].to_pylist())[:, :3]) < 0.02


def test_a_moving_camera_is_placed(videos):
    pytest.importorskip("pycolmap", reason="fast3r:pycolmap needs the optional package pycolmap")
    from tests.data_jobs.egoworld import test_colmap_pose as room

    places = [np.array([0.7 * step, 0.2 * step**2, 0.0]) for step in np.linspace(-1, 1, 8)]
    write_pictures(videos / "a.mkv", [room.render(np.eye(3), place) for place in places])
    poses, meta = published(
        videos.parent,
        "fast3r_pose",
        fast3r={"backend": "pycolmap", "params": {"interval_s": 0.1, "focal_px": room.FOCAL}},
    )
    assert meta["operator"] == "fast3r:pycolmap" and len(poses) == 8
    assert set(poses["outcome"].to_pylist()) == {"reconstructed"}
    # The camera did not turn: what it did is in the translations, which lie as far apart as the places did.
    found = np.stack(poses["pose"].to_numpy())[:, :3]
    steps = [np.linalg.norm(np.diff(each, axis=0), axis=1) for each in (found, np.stack(places))]
    assert np.allclose(steps[0] / steps[0].sum(), steps[1] / steps[1].sum(), atol=0.01)
