"""What only the POSIX place promises: data on the disk before its name, links and not copies, no traces of losers."""

import errno
import os
from pathlib import Path

import pytest

from data_jobs.runs.errors import RunError
from data_jobs.runs.places import open_store
from data_jobs.runs.store import STAGING, link_or_copy, published_files

CLIP = "run_id=r/video_id=v/clip_id=c"
KEY = "ab" * 32


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "out")
    store.prepare()
    return store


def staged(store):
    return list((store.root / STAGING).iterdir())


def fails_with(number):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return fail


# --- durability -------------------------------------------------------------------------------------------------------


@pytest.fixture
def forced(monkeypatch):
    """(inode, size) of everything that was forced to the disk; whoever gets a name without that fails the test."""
    seen, fsync = set(), os.fsync

    def remember(descriptor):
        fsync(descriptor)
        seen.add((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

    def checked(really):
        def name_it(source, target, **options):
            for path in filter(Path.is_file, [Path(source), *Path(source).rglob("*")]):
                assert (path.stat().st_ino, path.stat().st_size) in seen, f"{target} can be seen, its data can be lost"
            really(source, target, **options)

        return name_it

    monkeypatch.setattr(os, "fsync", remember)
    for name in ("link", "rename", "replace"):
        monkeypatch.setattr(os, name, checked(getattr(os, name)))
    return seen


def test_nothing_has_a_name_before_its_bytes_are_on_the_disk(store, forced, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "clips.parquet").write_bytes(b"listing")
    store.publish_artifact(KEY, b"table")
    store.publish_folder(CLIP, {"meta.json": b"{}"}, {"masks.parquet": KEY})
    store.publish_file("run_id=r/dead_letter/d.json", b"letter")
    store.replace_file("run_id=r/run_manifest.json", b"manifest")
    store.replace_folder("run_id=r/manifests", tmp_path / "source")
    assert sorted(size for _, size in forced) == [2, 5, 6, 7, 8]


# --- publishing -------------------------------------------------------------------------------------------------------


def test_a_clip_shares_the_artifact_on_the_disk(store):
    assert not store.has_artifact(KEY)
    assert store.publish_artifact(KEY, b"table") is True
    assert store.has_artifact(KEY)
    assert store.publish_folder(CLIP, {"meta.json": b"{}"}, {"masks.parquet": KEY}) is True
    assert (store.root / CLIP / "masks.parquet").samefile(store.artifact(KEY))
    assert store.artifact(KEY).read_bytes() == b"table"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_where_no_link_can_be_made_there_is_a_copy(tmp_path, monkeypatch, number):
    (tmp_path / "a").write_bytes(b"table")
    monkeypatch.setattr(os, "link", fails_with(number))
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"table"


def test_a_link_that_fails_for_another_reason_is_no_copy(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"table")
    monkeypatch.setattr(os, "link", fails_with(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_winners_and_losers_leave_nothing_behind(store):
    for _ in range(2):
        store.publish_artifact(KEY, b"table")
        store.publish_folder(CLIP, {"meta.json": b"{}"}, {"masks.parquet": KEY})
        store.publish_file("run_id=r/dead_letter/d.json", b"{}")
        store.replace_file("run_id=r/run_manifest.json", b"{}")
    assert staged(store) == []
    assert [path.name for path in (store.root / "run_id=r").glob(".*")] == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_place_that_refuses_a_clip_ends_the_run_and_shows_nothing(store, monkeypatch, number):
    monkeypatch.setattr(os, "rename", fails_with(number))
    with pytest.raises(RunError, match=r"cannot write to .*out"):
        store.publish_folder(CLIP, {"meta.json": b"{}"}, {})
    assert not store.exists(CLIP)


def test_a_disk_that_cannot_publish_a_clip_is_not_taken_for_another_writer(store, monkeypatch):
    monkeypatch.setattr(os, "rename", fails_with(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        store.publish_folder(CLIP, {"meta.json": b"{}"}, {})


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", fails_with(errno.EROFS))
    with pytest.raises(RunError, match="read-only file system"):
        open_store(tmp_path / "out").prepare()


# --- what dead writers leave, and what is no result -------------------------------------------------------------------


def test_a_sweep_takes_what_dead_writers_left_and_nothing_else(store):
    store.publish_file("run_id=r/dead_letter/d.json", b"{}")
    store.publish_artifact(KEY, b"table")
    assert store.sweep() == 0, "to prepare leaves nothing behind"
    (store.root / STAGING / "folder").mkdir()
    (store.root / STAGING / "folder" / "half").write_bytes(b"ha")
    (store.root / STAGING / "file").write_bytes(b"ha")
    assert store.sweep() == 2
    assert staged(store) == store.orphans() == []
    assert store.has_artifact(KEY)
    assert store.exists("run_id=r/dead_letter/d.json")


def test_only_clips_and_dead_letters_are_results(store):
    run = store.root / "run_id=r"
    store.publish_folder(CLIP, {"meta.json": b"{}"}, {})
    store.publish_file("run_id=r/dead_letter/d.json", b"{}")
    for other in ("notes/clip_id=x", "video_id=v/clip_id=c/folder", "video_id=w/notes"):
        (run / other).mkdir(parents=True)
        (run / other / "file.txt").write_text("a person's")
    for other in ("a=b.txt", "dead_letter/readme.txt", "ledger.sqlite"):
        (run / other).write_text("a person's")
    assert store.folders("run_id=r") == [CLIP]
    assert store.files(CLIP) == ["meta.json"]
    names = ["dead_letter/d.json", "video_id=v/clip_id=c/meta.json"]
    assert [name for name, _ in store.published("run_id=r")] == names
    assert [path.relative_to(run).as_posix() for path in published_files(run)] == names


def test_a_run_keeps_its_ledger_beside_its_results(store):
    assert store.ledger_path("run_id=r") == store.root / "run_id=r" / "ledger.sqlite"


def test_a_record_may_be_the_first_thing_of_its_run(store):
    store.replace_file("run_id=new/records/run_manifest.json", b"{}")
    assert store.read("run_id=new/records/run_manifest.json") == b"{}"


def test_a_folder_that_cannot_be_copied_leaves_the_older_one(store, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"older")
    store.replace_folder("run_id=r/manifests", tmp_path / "source")
    with pytest.raises(RunError, match="no such file"):
        store.replace_folder("run_id=r/manifests", tmp_path / "gone")
    assert store.read("run_id=r/manifests/a") == b"older"


def test_a_replaced_folder_makes_room_until_the_next_sweep(store, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"")
        store.replace_folder("run_id=r/manifests", tmp_path / name)
    assert store.files("run_id=r/manifests") == ["b"]
    assert store.sweep() == 1
