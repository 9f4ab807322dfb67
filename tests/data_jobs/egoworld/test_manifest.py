"""Every input is accounted for; identities depend on content and cut alone; what did not change is not read again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_jobs.egoworld import manifest as module
from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.manifest import CLIP_SCHEMA, build_manifest, clip_from_row, clips
from data_jobs.egoworld.splitters import FixedStride
from data_jobs.runs.errors import RunError, TransientError
from tests.data_jobs.egoworld.film import even, number_of, write_film

SECOND = FixedStride(clip_length_s=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    root.mkdir()
    write_film(root / "a.mp4", even(75))
    (root / "more").mkdir()
    write_film(root / "more" / "b.mp4", even(40))
    shutil.copy(root / "a.mp4", root / "more" / "copy of a.mp4")
    (root / "empty.mp4").touch()
    (root / "directory.mp4").mkdir()
    return root


def test_every_input_is_a_video_a_duplicate_or_rejected(folder):
    seen = []
    manifest = build_manifest([folder], SECOND, progress=lambda done, total, name: seen.append((done, total, name)))
    assert [video.name for video in manifest.videos] == ["a.mp4", "more/b.mp4"]
    assert [(row.name, row.video_id) for row in manifest.duplicates] == [
        ("more/copy of a.mp4", manifest.videos[0].video_id)
    ]
    assert [(row.name, row.message) for row in manifest.rejected] == [
        ("directory.mp4", "directory.mp4 is a folder, not a file"),
        ("empty.mp4", "empty.mp4 is empty (0 bytes)"),
    ]
    order = ["a.mp4", "directory.mp4", "empty.mp4", "more/b.mp4", "more/copy of a.mp4"]
    assert seen == [(done, 5, name) for done, name in enumerate(order, start=1)]


def test_clip_rows_hold_every_frame_and_are_enough_to_read_it(folder):
    manifest = build_manifest([folder], SECOND)
    assert manifest.clip_table.schema == CLIP_SCHEMA
    bounds = [(row["frame_start"], row["frame_end"]) for row in manifest.clip_table.to_pylist()]
    assert bounds == [(0, 30), (30, 75), (0, 40)]  # remainders of half a second and less join the clip before
    for clip in clips(manifest.clip_table):
        frames = [number_of(image) for window in ClipReader(clip, 16).windows() for image in window.images]
        assert frames == list(range(clip.frame_start, clip.frame_end))
        assert (clip.start_s, clip.end_s) == pytest.approx((clip.frame_start / 30, (clip.frame_end - 1) / 30))
    row = manifest.clip_table.slice(1, 1).to_pylist()[0]
    assert (row["status"], row["last_error"], row["retry_count"]) == ("Pending", "", 0)
    assert (row["start_s"], row["end_s"]) == (clip_from_row(row).start_s, clip_from_row(row).end_s)


def test_identity_depends_on_content_and_cut_not_on_place_or_name(folder, tmp_path):
    first = build_manifest([folder], SECOND).clip_table["clip_id"].to_pylist()
    moved = tmp_path / "moved"
    folder.rename(moved)
    (moved / "a.mp4").rename(moved / "z.mp4")
    assert set(build_manifest([moved], SECOND).clip_table["clip_id"].to_pylist()) == set(first)
    assert all(re.fullmatch(r"[0-9a-f]{16}-\d{9}-\d{9}-[0-9a-f]{8}", clip_id) for clip_id in first)
    other = build_manifest([moved], FixedStride(clip_length_s=1.0, min_clip_s=0.9)).clip_table["clip_id"].to_pylist()
    assert not set(other) & set(first)


def test_the_same_inputs_give_the_same_manifest_in_any_order_of_threads(folder):
    tables = [build_manifest([folder], SECOND).clip_table for _ in range(3)]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_unchanged_files_are_not_read_again(folder, monkeypatch):
    known = build_manifest([folder], SECOND)
    assert build_manifest([folder], SECOND, known=known) is known
    probed, real = [], module.probe
    monkeypatch.setattr(module, "probe", lambda path, name: probed.append(name) or real(path, name))
    write_film(folder / "c.mp4", even(20))
    (folder / "empty.mp4").unlink()
    again = build_manifest([folder], SECOND, known=known)
    assert sorted(probed) == ["c.mp4", "directory.mp4", "more/copy of a.mp4"]
    assert [video.name for video in again.videos] == ["a.mp4", "c.mp4", "more/b.mp4"]
    np.testing.assert_array_equal(again.videos[0].pts, known.videos[0].pts)
    other = build_manifest([folder], FixedStride(clip_length_s=2.0), known=again)
    assert other.clip_table["clip_id"].to_pylist() != again.clip_table["clip_id"].to_pylist()


def test_a_file_that_was_written_anew_is_read_again(folder):
    known = build_manifest([folder], SECOND)
    write_film(folder / "a.mp4", even(10))
    again = build_manifest([folder], SECOND, known=known)
    assert [video.frame_count for video in again.videos] == [10, 40, 75]  # its copy is now the only one of its kind
    assert again.duplicates == ()


def test_nothing_but_bad_files_is_still_a_manifest(tmp_path):
    (tmp_path / "a.mp4").write_text("words")
    manifest = build_manifest([tmp_path], SECOND)
    assert (len(manifest.videos), manifest.clip_table.num_rows, len(manifest.rejected)) == (0, 0, 1)


def test_an_empty_folder_stops_the_run(tmp_path):
    with pytest.raises(RunError, match="no video found"):
        build_manifest([tmp_path], SECOND)


def test_failing_storage_is_not_blamed_on_the_file(folder, monkeypatch):
    def fail(path: str, name: str) -> None:
        raise TransientError(f"{name}: reading failed")

    monkeypatch.setattr(module, "probe", fail)
    with pytest.raises(TransientError):
        build_manifest([folder], SECOND)
