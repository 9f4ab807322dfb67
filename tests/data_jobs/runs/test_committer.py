"""What every place for results promises, asked of both: whole or not at all, never replaced, the same tree hash."""

import multiprocessing
import os
import signal

import pytest

from data_jobs.runs.errors import RunError
from data_jobs.runs.objects import Objects
from data_jobs.runs.places import Run, below, open_run, open_store, where_of

CLIP = "run_id=r/video_id=v/clip_id=c"
WRITERS = 2


def publish(store, meta=b"meta", clip=CLIP, key="ab" * 32):
    store.publish_artifact(key, b"table")
    return store.publish_folder(clip, {"meta.json": meta}, {"masks.parquet": key})


def test_the_second_writer_loses_and_changes_nothing(store):
    assert publish(store, b"first")
    before = list(store.published("run_id=r"))
    assert not publish(store, b"second")
    assert not store.publish_artifact("ab" * 32, b"another table")
    assert list(store.published("run_id=r")) == before
    assert store.read(f"{CLIP}/meta.json") == b"first"
    assert store.read(f"{CLIP}/masks.parquet") == b"table"


def test_single_files_are_never_replaced_but_can_be_taken_back(store):
    name = "run_id=r/dead_letter/c.json"
    assert store.publish_file(name, b"one")
    assert not store.publish_file(name, b"two")
    assert store.read(name) == b"one"
    store.remove(name)
    store.remove(name)
    assert not store.exists(name)
    assert store.publish_file(name, b"two")


def test_listing_and_reading(store, place):
    publish(store)
    publish(store, clip="run_id=r/video_id=v/clip_id=b")
    publish(store, clip="run_id=other/video_id=v/clip_id=z")
    store.publish_file("run_id=r/dead_letter/d.json", b"{}")
    store.replace_file("run_id=r/run_manifest.json", b"1")
    store.replace_file("run_id=r/run_manifest.json", b"2")
    assert store.folders("run_id=r") == ["run_id=r/video_id=v/clip_id=b", CLIP]
    assert store.files(CLIP) == ["masks.parquet", "meta.json"]
    assert open_run(below(place, "run_id=r")).letters() == ["d.json"]
    assert store.read("run_id=r/run_manifest.json") == b"2"
    assert store.exists(CLIP)
    assert not store.exists("run_id=r/video_id=v/clip_id=nobody")
    assert store.files("run_id=r/nothing") == store.folders("run_id=nobody") == []
    with pytest.raises(FileNotFoundError):
        store.read(f"{CLIP}/nothing.parquet")
    with pytest.raises(FileNotFoundError):
        store.read("run_id=r/nothing.json")


def test_a_replaced_folder_is_whole(store, tmp_path):
    name = "run_id=r/manifests"
    for round_, files in enumerate([("a", "b"), ("a",)]):
        source = tmp_path / f"source{round_}"
        source.mkdir()
        for file in files:
            (source / file).write_text(f"{file}{round_}")
        store.replace_folder(name, source)
        with store.local_folder(name) as folder:
            assert {path.name: path.read_text() for path in folder.iterdir()} == {f: f"{f}{round_}" for f in files}


def test_a_folder_that_was_never_put_reads_as_an_empty_one(store):
    with store.local_folder("run_id=r/manifests") as folder:
        assert list(folder.iterdir()) == []


def test_both_places_give_one_tree_hash(tmp_path, bucket):
    hashes = set()
    for where in (tmp_path / "out", bucket):
        store = open_store(where)
        store.prepare()
        for clip in ("a-1", "a", "b=c", "é"):
            publish(store, meta=clip.encode(), clip=f"run_id=r/video_id=v{clip}/clip_id={clip}")
        store.publish_file("run_id=r/dead_letter/zz.json", b"{}")
        store.publish_file("run_id=r/dead_letter/a.json", b"{1}")
        store.replace_file("run_id=r/run_manifest.json", str(where).encode())
        hashes.add(Run(store, "run_id=r").tree_sha256())
    assert len(hashes) == 1


# --- two writers, and writers that die -------------------------------------------------------------------------------


def race(place, writer, barrier, clips, won):
    store = open_store(place)
    for clip in range(clips):
        barrier.wait(60)
        mine = publish(store, meta=f"by {writer}".encode() * 1000, clip=f"run_id=r/video_id=v/clip_id={clip}")
        won.put((clip, writer, mine))


def test_of_two_writers_of_one_clip_exactly_one_wins(store, place):
    """The processes meet at a barrier before each clip; what is published is the winner's, whole."""
    context, clips = multiprocessing.get_context("spawn"), 12
    barrier, won = context.Barrier(WRITERS), context.Queue()
    writers = [context.Process(target=race, args=(place, i, barrier, clips, won)) for i in range(WRITERS)]
    for process in writers:
        process.start()
    results = [won.get(timeout=120) for _ in range(clips * WRITERS)]
    for process in writers:
        process.join(60)
    for clip in range(clips):
        [winner] = [writer for number, writer, mine in results if number == clip and mine]
        folder = f"run_id=r/video_id=v/clip_id={clip}"
        assert store.read(f"{folder}/meta.json") == f"by {winner}".encode() * 1000
        assert store.read(f"{folder}/masks.parquet") == b"table"
    assert len(store.folders("run_id=r")) == clips


def die_before_commit(place):
    create = Objects.create

    def or_die(self, name, data):
        if name.endswith("/commit.json"):
            os.kill(os.getpid(), signal.SIGKILL)
        return create(self, name, data)

    Objects.create = or_die
    publish(open_store(place), meta=b"never seen")


def test_a_writer_killed_between_data_and_commit_leaves_no_clip(bucket):
    process = multiprocessing.get_context("spawn").Process(target=die_before_commit, args=(bucket,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    store = open_store(bucket)
    store.prepare()
    assert not store.exists(CLIP)
    assert store.folders("run_id=r") == list(store.published("run_id=r")) == []
    assert len(store.orphans()) == 1  # the meta.json that nothing names; the artifact was committed by itself
    assert publish(store, meta=b"resumed")
    assert store.read(f"{CLIP}/meta.json") == b"resumed"
    assert len(store.orphans()) == 1


def test_damaged_data_is_not_handed_out(bucket):
    store = open_store(bucket)
    publish(store)
    [name] = [n for n in store.objects.names(".objects") if store.objects.read(n) == b"meta"]
    store.objects.put(name, b"something else")
    with pytest.raises(OSError, match="does not hold the bytes"):
        store.read(f"{CLIP}/meta.json")


# --- places that cannot be used --------------------------------------------------------------------------------------


def test_a_bucket_that_is_not_there(bucket):
    with pytest.raises(RunError, match="bucket does not exist"):
        open_store("s3://nobody-has-this-bucket/x").prepare()


def test_a_store_that_ignores_the_condition_is_refused(bucket, monkeypatch):
    """As older S3-compatible servers do: every put succeeds."""
    monkeypatch.setattr(Objects, "create", lambda self, name, data: self.put(name, data) or True)
    with pytest.raises(RunError, match="ignores `If-None-Match"):
        open_store(bucket).prepare()


def test_an_unknown_kind_of_place_is_refused():
    with pytest.raises(RunError, match="choose a local folder or one of s3://"):
        where_of("ftp://somewhere/out")
