"""Which files are found, in which order, and that nothing hostile in a folder hangs or hides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_jobs.egoworld.discover import discover
from data_jobs.egoworld.probe import probe
from data_jobs.runs.errors import InputError, RunError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def names(*inputs: Path) -> list[str]:
    return [found.name for found in discover(list(inputs))]


def test_folders_are_walked_in_name_order_and_extensions_know_no_case(tmp_path):
    for name in ("b/2.MP4", "b/10.mp4", "a/deep/er/1.mKv", "c.webm", "notes.txt", "no_extension"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["a/deep/er/1.mKv", "b/10.mp4", "b/2.MP4", "c.webm"]


def test_hidden_entries_and_our_own_output_are_passed_over(tmp_path):
    for name in (".trash/x.mp4", ".x.mp4", "out/run_id=20260101_000000/x.mp4", "out/.artifacts/x.mp4", "out/y.mp4"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["out/y.mp4"]


def test_a_file_named_by_hand_may_have_any_extension_and_is_listed_once(tmp_path):
    film = touch(tmp_path / "recording.bin")
    clip = touch(tmp_path / "a.mp4")
    assert names(film, clip, tmp_path) == ["recording.bin", "a.mp4"]


def test_a_folder_named_like_a_video_is_listed_and_refused_but_not_entered(tmp_path):
    touch(tmp_path / "directory.mp4" / "inside.mp4")
    (found,) = discover([tmp_path])
    assert found.name == "directory.mp4"
    with pytest.raises(InputError, match=r"directory\.mp4 is a folder, not a file"):
        probe(str(found.path), found.name)


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path):
    touch(tmp_path / "input" / "sub" / "a.mp4")
    touch(tmp_path / "elsewhere" / "b.mp4")
    (tmp_path / "input" / "sub" / "parent").symlink_to(tmp_path / "input")
    (tmp_path / "input" / "link").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "input") == ["link/b.mp4", "sub/a.mp4"]


@pytest.mark.timeout(20)
def test_broken_links_pipes_and_unreadable_files_are_listed_and_refused_without_hanging(tmp_path):
    (tmp_path / "loop_a.mp4").symlink_to(tmp_path / "loop_b.mp4")
    (tmp_path / "loop_b.mp4").symlink_to(tmp_path / "loop_a.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    found = discover([tmp_path])
    assert [entry.name for entry in found] == ["dangling.mp4", "loop_a.mp4", "loop_b.mp4", "pipe.mp4"]
    for entry in found:
        with pytest.raises(InputError, match=entry.name):
            probe(str(entry.path), entry.name)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_an_unreadable_file_is_refused_by_name(tmp_path):
    film = touch(tmp_path / "secret.mp4")
    film.chmod(0)
    with pytest.raises(InputError, match=r"secret\.mp4 cannot be read: no read permission"):
        probe(str(film), film.name)


def test_a_missing_input_stops_the_run(tmp_path):
    touch(tmp_path / "a.mp4")
    with pytest.raises(RunError, match=r"nowhere does not exist; give a folder"):
        discover([tmp_path, tmp_path / "nowhere"])


@pytest.mark.parametrize("inputs", [[], ["."]])
def test_no_video_at_all_stops_the_run_and_says_what_was_looked_for(tmp_path, inputs):
    with pytest.raises(RunError, match=r"no video found .* looked for .*\.mp4"):
        discover([tmp_path / name for name in inputs])
