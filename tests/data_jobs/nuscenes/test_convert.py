"""convert.py, job.py, sequences.py: what lies on disk, resuming, dead letters, and equal bytes from both
engines."""

import configparser
import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_jobs.nuscenes.check_pictures import PAPER, camera_picture
from data_jobs.nuscenes.convert import convert
from data_jobs.nuscenes.mot_files import read_mot
from data_jobs.nuscenes.schema import CAMERAS
from data_jobs.nuscenes.splits import scene_names, split_of, split_table
from data_jobs.runs.errors import InputError, RunError


def test_a_sequence_has_the_seeds_files(converted):
    folder = converted / "train" / "scene-0001_CAM_FRONT"
    info = configparser.ConfigParser()
    info.read(folder / "seqinfo.ini")
    frames = pq.ParquetFile(folder / "frames.parquet").read()
    assert dict(info["Sequence"]) == {
        "name": "scene-0001_CAM_FRONT", "framerate": "10", "seqlength": str(len(frames)), "imwidth": "1600",
        "imheight": "900",
    }  # fmt: skip
    line = (folder / "gt/gt.txt").read_text().splitlines()[0].split(",")
    assert len(line) == 10 and line[6] == "1.000000" and line[8] in ("1.00", "2.00", "3.00", "4.00") and line[9] == "-1"
    rows = read_mot(folder / "gt/gt.txt")
    assert rows.frame.min() >= 1 and rows.frame.max() <= len(frames) and set(rows.class_id) <= set(range(7))
    assert (np.diff(frames["timestamp_us"].to_numpy()) > 0).all()


def test_each_scene_has_six_sequences_in_its_official_split(converted):
    for split, scene in (("train", "scene-0001"), ("val", "scene-0003")):
        assert sorted(p.name for p in (converted / split).iterdir()) == sorted(f"{scene}_{c}" for c in CAMERAS)


def test_ids_are_dense_shared_by_the_cameras_and_named_in_the_side_table(converted):
    folder = converted / "joint/split=train/scene=scene-0001"
    labels = pq.ParquetFile(folder / "labels.parquet").read().to_pandas()
    names = pq.ParquetFile(folder / "identities.parquet").read().to_pandas()
    assert names.id.tolist() == list(range(1, len(names) + 1)) and names.instance_token.is_unique
    assert set(labels.id) <= set(names.id)
    assert (labels.groupby("id").camera.nunique() > 1).any()
    assert labels.groupby("id").class_id.nunique().max() == 1
    for camera, name in enumerate(CAMERAS):
        rows = read_mot(converted / "train" / f"scene-0001_{name}" / "gt/gt.txt")
        mine = labels[(labels.camera == camera) & ~labels.void]
        assert sorted(zip(rows.frame, rows.id, strict=True)) == sorted(zip(mine.frame, mine.id, strict=True))


def test_void_subclasses_are_kept_apart(converted):
    void = [read_mot(path) for path in sorted(converted.glob("*/*/gt/void.txt"))]
    names = [pq.ParquetFile(p).read().to_pandas() for p in sorted(converted.glob("joint/*/*/identities.parquet"))]
    assert sum(len(rows.frame) for rows in void) > 0
    assert all(set(t[t.void].category) <= {"human.pedestrian.stroller"} for t in names)
    assert all(not t.category.str.startswith("movable_object").any() for t in names)


def test_statistics_add_up(converted):
    stats = json.loads((converted / "dataset_stats.json").read_text())
    total = stats["splits"]["train"]
    rows = [read_mot(path) for path in (converted / "train").glob("*/gt/gt.txt")]
    assert total["boxes"] == sum(len(r.frame) for r in rows) == sum(total["boxes_per_class"].values())
    frames = [pq.ParquetFile(path).read() for path in (converted / "train").glob("*/frames.parquet")]
    keyframes = sum(np.sum(f["is_key_frame"].to_numpy()) for f in frames)
    assert total["keyframe_share_of_frames"] == pytest.approx(keyframes / sum(map(len, frames)), abs=1e-6)


def test_the_nominal_rate_has_one_keyframe_in_six(database, requests, tmp_path):
    result = convert(requests(database, tmp_path / "out", split="val", rate="12"))
    total = result.stats["splits"]["val"]
    assert result.proof.done == 1 and total["keyframes"] == 6 * 12 and total["frames"] == 6 * (6 * 11 + 1)
    assert "frameRate=12" in (tmp_path / "out/val/scene-0003_CAM_BACK/seqinfo.ini").read_text()


def files_of(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and not str(p.relative_to(folder)).startswith((".", "ledger"))
    }


def test_resuming_completes_what_is_missing_and_changes_nothing(database, converted, requests, tmp_path):
    output = tmp_path / "out"
    convert(requests(database, output, split="val"))
    first = files_of(output / "val")
    result = convert(requests(database, output))
    assert result.proof.holds and result.proof.done == 2
    assert files_of(output / "val") == first
    assert files_of(output) == files_of(converted)


@pytest.mark.slow
def test_ray_gives_the_bytes_of_the_local_engine(database, converted, requests, tmp_path):
    result = convert(requests(database, tmp_path / "out", engine="ray", workers=2))
    assert result.proof.holds and files_of(tmp_path / "out") == files_of(converted)


def test_an_output_folder_holds_one_kind_of_labels(database, requests, tmp_path):
    convert(requests(database, tmp_path / "out", split="val"))
    with pytest.raises(RunError, match="interpolation was native, is linear2d"):
        convert(requests(database, tmp_path / "out", interpolation="linear2d"))


@pytest.mark.parametrize("split", ["test", "nonsense"])
def test_unknown_splits_are_refused_with_the_choices(database, requests, tmp_path, split):
    with pytest.raises(RunError, match="train, held_out, val"):
        convert(requests(database, tmp_path / "out", split=split))


def shift_time(rows):
    rows[2]["timestamp"] = rows[1]["timestamp"] - 1


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("sample", shift_time, "timestamps must increase"),
        ("sample_data", shift_time, "timestamps must increase"),
        ("sample_annotation", lambda rows: rows[5].update(size=[1.0, 0.0, 2.0]), "size is not positive"),
        ("sample_annotation", lambda rows: rows[5].update(rotation=[0.0, 0.0, 0.0, 0.0]), "not a unit quaternion"),
        ("sample_annotation", lambda rows: rows.append({**rows[5], "token": "again"}), "stands twice in one sample"),
    ],
)
def test_a_bad_scene_is_a_dead_letter_and_the_others_convert(damaged, requests, tmp_path, table, change, message):
    damaged.edit(table, change)
    result = convert(requests(damaged.root, tmp_path / "out"))
    assert result.proof.holds and (result.proof.done, result.proof.dead) == (1, 1)
    (letter,) = result.letters
    assert letter.clip_id == "scene-0001" and letter.cause == "input" and message in letter.message
    assert f"table {table}, token" in letter.message
    assert not (tmp_path / "out/train").exists() and len(list((tmp_path / "out/val").iterdir())) == 6


def test_a_camera_without_intrinsics_is_named(damaged, requests, tmp_path):
    damaged.edit("calibrated_sensor", lambda rows: rows[0].update(camera_intrinsic=[]))
    result = convert(requests(damaged.root, tmp_path / "out"))
    assert result.proof.dead == 2 and all("images of CAM_FRONT cannot" in letter.message for letter in result.letters)


@pytest.mark.parametrize(("name", "why"), [("scene-0077", "official test scene"), ("street-7", "in no official list")])
def test_a_scene_in_no_split_is_a_dead_letter_that_says_why(damaged, requests, tmp_path, name, why):
    damaged.edit("scene", lambda rows: rows[0].update(name=name))
    result = convert(requests(damaged.root, tmp_path / "out"))
    assert (result.proof.done, result.proof.dead) == (1, 1) and why in result.letters[0].message


def test_a_scene_without_a_single_box_still_has_its_sequences(damaged, requests, tmp_path):
    def change(rows):
        first = json.loads((damaged.root / "v1.0-synthetic/sample.json").read_text())
        scene = first[0]["scene_token"]
        mine = {r["token"] for r in first if r["scene_token"] == scene}
        rows[:] = [r for r in rows if r["sample_token"] not in mine]

    damaged.edit("sample_annotation", change)
    result = convert(requests(damaged.root, tmp_path / "out"))
    assert result.proof.done == 2 and result.stats["splits"]["train"]["boxes"] == 0
    assert (tmp_path / "out/train/scene-0001_CAM_FRONT/gt/gt.txt").read_bytes() == b""


def test_official_lists_have_their_published_sizes_and_do_not_overlap():
    assert [len(scene_names(n)) for n in ("train_detect", "train_track", "val", "test")] == [350, 350, 150, 150]
    table = split_table("v1.0-trainval")
    sizes = {split: sum(s == split for s in table.values()) for split in ("train", "held_out", "val")}
    assert sizes == {"train": 630, "held_out": 70, "val": 150} and len(table) == 850
    # Held out: every fifth scene of the half that the official lists keep for tracking.
    assert [s for s, split in table.items() if split == "held_out"] == list(scene_names("train_track")[::5])
    assert not set(scene_names("test")) & set(table)
    assert split_of("scene-0553", "v1.0-mini") == "train" and split_of("scene-0103", "v1.0-mini") == "val"
    with pytest.raises(InputError):
        split_of("scene-0001", "v1.0-mini")


@pytest.mark.slow
def test_a_killed_conversion_resumes_to_the_same_bytes(database, converted, tmp_path):
    words = ["convert", "--dataroot", database, "--version", "v1.0-synthetic", "--output", tmp_path / "out",
             "--engine", "local", "--cache", tmp_path / "cache"]  # fmt: skip
    command = [sys.executable, "-m", "data_jobs.nuscenes", *map(str, words)]
    root = Path(__file__).resolve().parents[3]
    victim = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while victim.poll() is None and not list((tmp_path / "out").glob("*/scene-*_CAM_FRONT")):
        time.sleep(0.01)
    victim.kill()
    victim.wait()
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "planned 2 = done 2 + dead 0" in done.stdout
    assert files_of(tmp_path / "out") == files_of(converted)


def test_check_draws_on_the_image_where_it_exists_and_counts_those_that_do_not(converted, tmp_path):
    frames = pq.ParquetFile(converted / "joint/split=train/scene=scene-0001/frames.parquet").read()
    labels = pq.ParquetFile(converted / "joint/split=train/scene=scene-0001/labels.parquet").read()
    front = frames.filter(pc.equal(frames["camera"], CAMERAS.index("CAM_FRONT"))).to_pylist()
    first, second = front[len(front) // 2 : len(front) // 2 + 2]
    (tmp_path / first["filename"]).parent.mkdir(parents=True)
    assert cv2.imwrite(str(tmp_path / first["filename"]), np.full((900, 1600, 3), (0, 200, 0), np.uint8))
    for frame, exists, ground in ((first, True, (0, 200, 0)), (second, False, PAPER)):
        mine = pc.and_(pc.equal(labels["camera"], frame["camera"]), pc.equal(labels["frame"], frame["frame"]))
        bare, _ = camera_picture(frame, labels.filter(mine).slice(0, 0), tmp_path)
        drawn, found = camera_picture(frame, labels.filter(mine), tmp_path)
        assert found is exists
        empty, boxed = (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in (bare, drawn))
        np.testing.assert_allclose(np.median(empty, axis=(0, 1)), ground, atol=4)
        assert (np.abs(empty.astype(int) - boxed).max(axis=2) > 60).sum() > 50
