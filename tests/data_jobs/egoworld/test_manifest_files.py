"""What is written is read back, from Parquet and from JSON lines; the bytes repeat; foreign tables are refused."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_jobs.egoworld.manifest import build_manifest, clips
from data_jobs.egoworld.manifest_files import read_clip_table, read_manifest, write_manifest
from data_jobs.egoworld.records import Video
from data_jobs.egoworld.splitters import FixedStride
from data_jobs.runs.errors import RunError
from tests.data_jobs.egoworld.film import even, write_film

# What the earlier tools' readers look for.
EARLIER_VIDEO = ["video_id", "path", "duration_s", "fps", "width", "height", "audio", "checksum", "split"]
EARLIER_CLIP = [
    "clip_id", "video_id", "start_s", "end_s", "frame_start", "frame_end", "overlap_s", "scenedetect_failed",
    "status", "last_error", "retry_count",
]  # fmt: skip


@pytest.fixture
def manifest(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    write_film(videos / "küche 手 №1.mp4", even(40))
    write_film(videos / "b.mkv", np.cumsum(np.arange(1, 50) * 100).tolist())
    (videos / "copy.mkv").write_bytes((videos / "b.mkv").read_bytes())
    (videos / "bad.mp4").write_text("words")
    return build_manifest([videos], FixedStride(clip_length_s=0.5, min_clip_s=0.1), split="eval")


def assert_same(one, other):
    assert one.clip_table.equals(other.clip_table)
    assert (one.rejected, one.duplicates) == (other.rejected, other.duplicates)
    assert (one.mtimes_ns, one.split) == (other.mtimes_ns, other.split)
    for mine, theirs in zip(one.videos, other.videos, strict=True):
        for field in fields(Video):
            np.testing.assert_array_equal(getattr(mine, field.name), getattr(theirs, field.name))


def test_parquet_and_json_lines_give_the_manifest_back(manifest, tmp_path):
    folder = tmp_path / "manifest"
    write_manifest(manifest, folder)
    assert_same(read_manifest(folder), manifest)
    for file in folder.glob("*.parquet"):
        file.unlink()
    assert_same(read_manifest(folder), manifest)


def test_the_same_manifest_gives_the_same_bytes(manifest, tmp_path):
    write_manifest(manifest, tmp_path / "one")
    write_manifest(read_manifest(tmp_path / "one"), tmp_path / "two")
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    stems = ("clip_manifest", "duplicates", "rejected", "video_manifest")
    assert names == [f"{stem}.{kind}" for stem in stems for kind in ("jsonl", "parquet")]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_earlier_readers_find_their_columns(manifest, tmp_path):
    write_manifest(manifest, tmp_path)
    for stem, columns in (("video_manifest", EARLIER_VIDEO), ("clip_manifest", EARLIER_CLIP)):
        lines = (tmp_path / f"{stem}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [list(json.loads(line))[: len(columns)] for line in lines] == [columns] * len(lines)
        assert pq.read_table(tmp_path / f"{stem}.parquet").column_names[: len(columns)] == columns
    assert json.loads(lines[0])["status"] == "Pending"


def test_a_manifest_without_any_video_is_written_and_read(tmp_path):
    (tmp_path / "bad.mp4").write_text("words")
    manifest = build_manifest([tmp_path / "bad.mp4"], FixedStride())
    write_manifest(manifest, tmp_path / "out")
    assert_same(read_manifest(tmp_path / "out"), manifest)
    for file in (tmp_path / "out").glob("*.parquet"):
        file.unlink()
    assert_same(read_manifest(tmp_path / "out"), manifest)


def test_records_of_the_read_table_are_those_of_the_written_one(manifest, tmp_path):
    write_manifest(manifest, tmp_path)
    assert list(clips(read_clip_table(tmp_path))) == list(clips(manifest.clip_table))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(RunError, match=r"no video_manifest\.parquet and no video_manifest\.jsonl in"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row | {"extra": 1}, "clip_manifest"),
        (lambda row: row | {"frame_start": "three"}, "clip_manifest"),
        (lambda row: {name: value for name, value in row.items() if name != "start_pts"}, "rows without start_pts"),
        (lambda row: row | {"path": None}, "rows without path"),
    ],
)
def test_a_foreign_or_broken_table_is_refused(manifest, tmp_path, change, message):
    write_manifest(manifest, tmp_path)
    (tmp_path / "clip_manifest.parquet").unlink()
    file = tmp_path / "clip_manifest.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[1] = change(rows[1])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(RunError, match=message):
        read_clip_table(tmp_path)


def test_a_parquet_file_with_other_columns_is_refused(manifest, tmp_path):
    write_manifest(manifest, tmp_path)
    file = tmp_path / "clip_manifest.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["start_pts"]), file)
    with pytest.raises(RunError, match=r"lacks the columns \['start_pts'\]"):
        read_clip_table(tmp_path)
    file.write_bytes(b"words")
    with pytest.raises(RunError, match=r"clip_manifest\.parquet is not a clip_manifest table"):
        read_clip_table(tmp_path)
