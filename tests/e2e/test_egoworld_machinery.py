"""The command line and the run machinery end to end: real files and processes, an operator that costs nothing."""

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest
import yaml

from data_jobs.egoworld import run
from data_jobs.runs import store
from tests.e2e.egoworld import ROOT, call, command, kill_after, letters, published, start, stub_config, tree_hash
from tests.faults.videos import write_video

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", 60, seed=1)
    write_video(folder / "deeper" / "b.mp4", 45, seed=2)
    (folder / "twin.mp4").write_bytes((folder / "a.mp4").read_bytes())
    (folder / "broken.mp4").write_text("this is no video")
    return folder


@pytest.fixture(scope="module")
def reference(videos, tmp_path_factory) -> tuple[str, Path]:
    """Tree hash and run folder of an undisturbed local run."""
    place = tmp_path_factory.mktemp("reference")
    code, text = call(*command(videos, stub_config(place), place))
    assert code == 0, text
    return tree_hash(text), place / "run_id=r"


def test_a_run_accounts_for_every_clip_and_every_file(reference, videos):
    _, run = reference
    record = json.loads((run / "run_manifest.json").read_text())
    assert record["totals"] == {
        "videos": 2,
        "clips": 11,
        "frames": 105,
        "files_refused": 1,
        "files_with_equal_content": 1,
        "done": 11,
        "dead": 1,
    }
    assert published(run) == 11
    [letter] = letters(run)
    assert letter["video_path"] == str(videos / "broken.mp4")
    assert (letter["clip_id"], letter["stage"], letter["cause"], letter["attempts"]) == (None, "manifest", "input", 1)


def test_verify_status_and_rebuild_agree(reference):
    hash_, run = reference
    code, text = call("verify", "--run", run)
    assert code == 0
    assert tree_hash(text) == hash_
    assert "planned 12 = done 11 + dead 1" in text
    assert call("status", "--run", run)[0] == 0
    code, text = call("rebuild", "--run", run)
    assert (code, text.strip()) == (0, "11 Done")


def test_a_worker_killed_while_it_publishes_leaves_nothing_behind(videos, tmp_path, monkeypatch):
    follow = run.follow

    def follow_beside_a_death(*arguments):
        (tmp_path / store.STAGING / "of-a-killed-worker").mkdir()
        follow(*arguments)

    monkeypatch.setattr(run, "follow", follow_beside_a_death)
    code, text = call(*command(videos, stub_config(tmp_path), tmp_path))
    assert code == 0, text
    assert not list((tmp_path / store.STAGING).iterdir())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda clip: (clip / "hand_pose.parquet").unlink(), "hand_pose.parquet is missing"),
        (lambda clip: (clip / "meta.json").write_text("{"), "meta.json cannot be read"),
        (lambda clip: (clip / "extra.parquet").write_text(""), "extra.parquet is not named in meta.json"),
        (lambda clip: [path.unlink() for path in clip.iterdir()] and clip.rmdir(), "1 lost"),
    ],
)
def test_verify_finds_damage(videos, tmp_path, damage, words):
    call(*command(videos, stub_config(tmp_path), tmp_path))
    damage(next((tmp_path / "run_id=r").glob("video_id=*/clip_id=*")))
    code, text = call("verify", "--run", tmp_path / "run_id=r")
    assert code == 3
    assert words in text


def test_running_again_changes_nothing(videos, tmp_path):
    again = command(videos, stub_config(tmp_path), tmp_path)
    first = call(*again)[1]
    stamps = {path: path.stat().st_mtime_ns for path in store.published_files(tmp_path / "run_id=r")}
    second = call(*again)[1]
    assert tree_hash(first) == tree_hash(second)
    assert stamps == {path: path.stat().st_mtime_ns for path in store.published_files(tmp_path / "run_id=r")}


# With Ray: tests/e2e/test_egoworld_soak.py kills more than the driver in every run of the tests.
@pytest.mark.parametrize("engine", [pytest.param("ray", marks=pytest.mark.slow), "local"])
def test_killing_the_driver_and_resuming_gives_the_same_tree(reference, videos, tmp_path, engine):
    config = stub_config(tmp_path, slow_ms=400.0, share_of={"slow": 1.0})  # same bytes, slow enough to be caught
    again = command(videos, config, tmp_path, engine)
    assert kill_after(start(*again), tmp_path / "run_id=r", clips=2) < 11
    resumed = start(*again)
    text, _ = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, text
    assert "planned 12 = done 11 + dead 1" in text
    parameterless = {path.name for path in store.published_files(tmp_path / "run_id=r")}
    assert parameterless == {path.name for path in store.published_files(reference[1])}
    undisturbed = tmp_path / "undisturbed"
    code, text_undisturbed = call(
        "run", "--input", videos, "--config", config, "--output", undisturbed, "--run-id", "q", "--engine", "local"
    )
    assert code == 0
    assert tree_hash(text) == tree_hash(text_undisturbed)
    assert not list((tmp_path / ".staging").iterdir())


def test_deleting_the_ledger_loses_nothing(videos, tmp_path):
    again = command(videos, stub_config(tmp_path), tmp_path)
    first = call(*again)[1]
    for path in (tmp_path / "run_id=r").glob("ledger.sqlite*"):
        path.unlink()
    code, second = call(*again)
    assert (code, tree_hash(second)) == (0, tree_hash(first))


def test_only_the_stage_whose_parameters_changed_runs_again(videos, tmp_path):
    calls = tmp_path / "calls"
    calls.mkdir()

    def run(run_id, label):
        config = stub_config(tmp_path, calls_folder=str(calls), label=label)
        assert (
            call(
                "run",
                "--input",
                videos,
                "--config",
                config,
                "--output",
                tmp_path,
                "--run-id",
                run_id,
                "--engine",
                "local",
            )[0]
            == 0
        )
        count = sum(len(path.read_text().splitlines()) for path in calls.iterdir())
        for path in calls.iterdir():
            path.unlink()
        return count

    assert run("one", "x") == 11
    assert run("two", "x") == 0  # same parameters: every table is taken over
    assert run("three", "y") == 11


def test_retry_takes_back_only_what_is_asked_for(tmp_path):
    videos = tmp_path / "videos"
    write_video(videos / "a.mp4", 200)
    config = stub_config(tmp_path, share_of={"transient": 0.3, "bug": 0.3}, seed=3)
    call(*command(videos, config, tmp_path))
    run = tmp_path / "run_id=r"
    before = letters(run)
    transient = [letter for letter in before if letter["cause"] == "transient"]
    assert transient
    assert len(transient) < len(before)
    assert {letter["attempts"] for letter in transient} == {3}
    code, text = call("retry", "--run", run, "--cause", "transient", "--engine", "local")
    assert code == 0
    assert f"{len(transient)} dead letters taken back" in text
    assert letters(run) == before  # the stub fails again in the same way, with the same words
    assert call("retry", "--run", run, "--cause", "weather")[0] == 1
    assert call("retry", "--run", run, "--clip", "nobody")[0] == 1


def test_a_mended_file_leaves_the_dead_letters(videos, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_text("still copying")
    write_video(folder / "b.mp4", 10)
    again = command(folder, stub_config(tmp_path), tmp_path)
    assert call(*again)[0] == 0
    assert len(letters(tmp_path / "run_id=r")) == 1
    write_video(folder / "a.mp4", 20, seed=5)
    code, text = call(*again)
    assert code == 0
    assert "planned 3 = done 3 + dead 0" in text


# --- bad input: one sentence, a non-zero exit, nothing half-written ------------------------------------------------


def refused(*args: object) -> str:
    code, text = call(*args)
    assert code == 1, text
    sentences = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1
    return sentences[0]


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    sentence = refused(
        "run",
        "--input",
        tmp_path / "empty",
        "--config",
        stub_config(tmp_path),
        "--output",
        tmp_path / "out",
        "--engine",
        "local",
    )
    assert "no video found" in sentence


def test_a_missing_folder(tmp_path):
    sentence = refused(
        "run",
        "--input",
        tmp_path / "nowhere",
        "--config",
        stub_config(tmp_path),
        "--output",
        tmp_path / "out",
        "--engine",
        "local",
    )
    assert "nowhere does not exist" in sentence


def test_an_output_that_is_a_file(tmp_path, videos):
    (tmp_path / "out").write_text("in the way")
    sentence = refused(
        "run", "--input", videos, "--config", stub_config(tmp_path), "--output", tmp_path / "out", "--engine", "local"
    )
    assert "a file stands where a folder is needed" in sentence


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_without_write_permission(tmp_path, videos):
    (tmp_path / "out").mkdir(mode=0o500)
    sentence = refused(
        "run", "--input", videos, "--config", stub_config(tmp_path), "--output", tmp_path / "out", "--engine", "local"
    )
    assert "permission denied" in sentence


def test_an_output_on_a_read_only_file_system(tmp_path, videos):
    sentence = refused(
        "run", "--input", videos, "--config", stub_config(tmp_path), "--output", "/proc/out", "--engine", "local"
    )
    assert "cannot write to /proc/out" in sentence


def test_a_full_disk_ends_the_run_and_leaves_it_resumable(tmp_path, videos, monkeypatch):
    again = command(videos, stub_config(tmp_path), tmp_path / "out")
    writes = iter(range(10**6))
    really = os.fsync

    def full_after_twenty(fd):
        if next(writes) >= 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        really(fd)

    monkeypatch.setattr(os, "fsync", full_after_twenty)
    assert "no space left on device" in refused(*again)
    monkeypatch.undo()
    assert 0 < published(tmp_path / "out" / "run_id=r") < 11
    assert [letter["cause"] for letter in letters(tmp_path / "out" / "run_id=r")] == ["input"]  # no clip was blamed
    code, text = call(*again)
    assert code == 0
    assert "planned 12 = done 11 + dead 1" in text


def test_a_second_run_on_the_same_output(tmp_path, videos):
    with (tmp_path / ".lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        sentence = refused(
            "run",
            "--input",
            videos,
            "--config",
            stub_config(tmp_path),
            "--output",
            tmp_path,
            "--run-id",
            "r",
            "--engine",
            "local",
        )
    assert "another run is writing to" in sentence
    assert not (tmp_path / "run_id=r").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"operatos": {}}, "unknown key 'operatos'; did you mean 'operators'?"),
        ({"operators": {"sam": {}}}, "unknown key 'operators.sam'; did you mean 'sam2'?"),
        ({"guard": {"timeout": 3}}, "did you mean 'timeout_s'?"),
        ({"operators": {"sam2": {"params": {"promting": {}}}}}, "unknown key 'promting'; did you mean 'prompting'?"),
        ({"operators": {"hamer": {"backend": "magic"}}}, "unknown backend 'magic'; available: hamer:mediapipe"),
        (
            {"operators": {"fast3r": {"enabled": True, "backend": "external"}}},
            "operators.fast3r.params (backend external): command: Field required",
        ),
        ({"retry": {"max_retries": 0}}, "greater than or equal to 1"),
    ],
)
def test_a_mistake_in_the_config(tmp_path, videos, change, words):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(change))
    sentence = refused("run", "--input", videos, "--config", path, "--output", tmp_path / "out", "--engine", "local")
    assert words in sentence
    assert not (tmp_path / "out").exists()


def test_another_config_under_the_same_run_id(tmp_path, videos):
    base = ("run", "--input", videos, "--output", tmp_path / "out", "--run-id", "r", "--engine", "local", "--config")
    assert call(*base, stub_config(tmp_path))[0] == 0
    said = refused(*base, stub_config(tmp_path, label="other"))
    assert "was started differently (stages.hamer:" in said and ".label was " in said and 'is "other"' in said


def test_a_listed_video_that_vanished(tmp_path):
    folder = tmp_path / "videos"
    write_video(folder / "a.mp4", 20)
    gone = write_video(folder / "b.mp4", 20, seed=9)
    again = command(folder, stub_config(tmp_path), tmp_path)
    assert call(*again)[0] == 0
    gone.unlink()
    assert "b.mp4, which has changed or is gone" in refused(*again)


def test_nothing_but_refused_files_is_not_success(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_text("no video")
    code, text = call(*command(tmp_path / "videos", stub_config(tmp_path), tmp_path))
    assert code == 4
    assert "planned 1 = done 0 + dead 1" in text


def test_the_seeds_own_example_config_is_accepted(tmp_path):
    """The operators block of the seed project's README, as published."""
    from data_jobs.egoworld.config import EgoworldConfig
    from data_jobs.egoworld.plan import make_plan
    from data_jobs.runs.strict import load_config

    config = load_config(EgoworldConfig, ROOT / "tests" / "e2e" / "seed_config.json")
    plan, notices = make_plan(config, lambda name: "0" * 64)
    assert [(stage.spec.name, stage.published) for stage in plan.stages] == [
        ("hamer:mediapipe", False),
        ("sam2:mobile_sam", True),
    ]
    assert any("checkpoint" in notice for notice in notices)
    assert plan.stage("sam2").params.prompting.max_boxes_per_frame == 6
