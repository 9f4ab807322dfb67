"""track.py, detections.py, evaluate.py, __main__.py: detections in, tracks and scores out, bad files
refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_jobs.nuscenes.__main__ import app
from data_jobs.nuscenes.association import TUNED_THRESHOLDS
from data_jobs.nuscenes.detections import read_detections
from data_jobs.nuscenes.evaluate import check_comparable, evaluate, find_sequences
from data_jobs.nuscenes.mot_files import BoxFileError, mot_bytes, read_mot
from data_jobs.nuscenes.track import run_track
from data_jobs.runs.errors import RunError


@pytest.fixture(scope="module")
def tracked(database, converted, tmp_path_factory):
    root = tmp_path_factory.mktemp("tracks")
    for motion in ("kalman", "kalman_ego"):
        run_track(converted, database / "detections.parquet", motion, root / motion, TUNED_THRESHOLDS, True)
    return root


def test_tracks_score_far_above_nothing_and_the_ego_turn_helps(converted, tracked):
    scores = {m: evaluate(converted, tracked / m).numbers() for m in ("kalman", "kalman_ego")}
    hota = {m: s["cameras"]["class_averaged"]["HOTA"] for m, s in scores.items()}
    assert hota["kalman_ego"] > 0.4 and hota["kalman_ego"] > hota["kalman"] - 0.02
    joint = scores["kalman_ego"]["joint"]["class_averaged"]
    assert 0.3 < joint["HOTA"] <= 1 and joint["CLR_TP"] == scores["kalman_ego"]["cameras"]["class_averaged"]["CLR_TP"]


def write_truth_as_tracks(converted, folder, shift_ids=False):
    for number, sequence in enumerate(find_sequences(converted)):
        rows = read_mot(sequence.folder / "gt/gt.txt")
        path = folder / sequence.split / f"{sequence.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = rows.id + (1000 * number if shift_ids else 0)
        path.write_bytes(mot_bytes(rows.frame, ids, rows.xywh_px, rows.score, rows.class_id))


def test_labels_scored_as_tracks_are_perfect_per_camera_and_joint(converted, tmp_path):
    write_truth_as_tracks(converted, tmp_path / "perfect")
    (tmp_path / "perfect" / "tracks.json").write_text(json.dumps({"ids": "rig"}))
    numbers = evaluate(converted, tmp_path / "perfect").numbers()
    for block in (numbers["cameras"], numbers["joint"], *numbers["per_camera"].values()):
        assert block["class_averaged"]["HOTA"] == pytest.approx(1) and block["detection_averaged"]["IDSW"] == 0


def test_joint_scores_notice_ids_that_change_from_camera_to_camera(converted, tmp_path):
    write_truth_as_tracks(converted, tmp_path / "apart", shift_ids=True)
    numbers = evaluate(converted, tmp_path / "apart").numbers()
    assert numbers["cameras"]["class_averaged"]["HOTA"] == pytest.approx(1)
    joint = numbers["joint"]["class_averaged"]
    assert joint["DetA"] == pytest.approx(1) and joint["AssA"] < 0.95 and joint["IDSW"] > 0


def test_void_boxes_cost_nothing(converted, tmp_path):
    write_truth_as_tracks(converted, tmp_path / "void")
    for sequence in find_sequences(converted):
        extra = read_mot(sequence.folder / "gt/void.txt")
        path = tmp_path / "void" / sequence.split / f"{sequence.name}.txt"
        lines = mot_bytes(extra.frame, extra.id + 5000, extra.xywh_px, extra.score, extra.class_id)
        path.write_bytes(path.read_bytes() + lines)
    assert evaluate(converted, tmp_path / "void").numbers()["cameras"]["detection_averaged"]["CLR_FP"] == 0


def test_folder_and_parquet_detections_are_the_same_detections(database, converted, tmp_path):
    sequences = find_sequences(converted)
    first = read_detections(database / "detections.parquet", sequences)
    for sequence in sequences:
        rows = first.rows[sequence.name]
        lines = [
            ",".join(map(repr, [int(f), -1, *map(float, box), float(s), int(c)]))
            for f, box, s, c in zip(rows.frame, rows.xywh_px, rows.score, rows.class_id, strict=True)
        ]
        (tmp_path / f"{sequence.name}.txt").write_text("\n".join(lines))
    again = read_detections(tmp_path, sequences)
    assert again.sha256 == first.sha256 and sum(len(r.frame) for r in again.rows.values()) > 1000


def with_column(table, name, row, value):
    values = table[name].to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("score", float("nan"), "not a finite number"),
        ("score", 1.7, "not in 0–1"),
        ("class_id", 9, "class 9 is unknown; classes are 0 car"),
        ("w_px", 0.0, "has no area"),
    ],
)
def test_bad_detections_are_refused(database, converted, tmp_path, column, value, message):
    table = with_column(pq.read_table(database / "detections.parquet"), column, 7, value)
    pq.write_table(table, tmp_path / "bad.parquet")
    with pytest.raises(BoxFileError, match=message):
        read_detections(tmp_path / "bad.parquet", find_sequences(converted))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1,4,0,0,5,5,0.9,0\n1,4,9,9,5,5,0.9,0\n", "detection id 4 stands twice in frame 1"),
        ("1,-1,0,0,5,5,nan,0\n", "line 1"),
        ("1,-1,0,0,five,5,0.9,0\n", "not a table of numbers"),
        ("1,-1,0,0\n", "expected at least 7"),
    ],
)
def test_bad_detection_lines_are_refused(converted, tmp_path, lines, message):
    for sequence in find_sequences(converted):
        (tmp_path / f"{sequence.name}.txt").write_text(lines)
    with pytest.raises(BoxFileError, match=message):
        read_detections(tmp_path, find_sequences(converted))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,3,0,0,5,5,1,0,-1,-1\n1,3,9,0,5,5,1,0,-1,-1\n", "id 3 stands twice in frame 1"),
        ("9999,3,0,0,5,5,1,0,-1,-1\n", "has frame 9999"),
        ("1,3,0,0,5,5,1,-1,-1,-1\n", "class -1 is unknown"),
    ],
)
def test_bad_tracks_are_refused(converted, tmp_path, line, message):
    write_truth_as_tracks(converted, tmp_path)
    sequence = find_sequences(converted)[0]
    (tmp_path / sequence.split / f"{sequence.name}.txt").write_text(line)
    with pytest.raises(RunError, match=message):
        evaluate(converted, tmp_path)


def test_a_missing_track_file_is_named(converted, tmp_path):
    write_truth_as_tracks(converted, tmp_path)
    (tmp_path / "val" / "scene-0003_CAM_BACK.txt").unlink()
    with pytest.raises(RunError, match="scene-0003_CAM_BACK"):
        evaluate(converted, tmp_path)


def test_one_split_alone_can_be_tracked_and_scored(database, converted, tmp_path):
    given = database / "detections.parquet"
    counts = run_track(converted, given, "kalman", tmp_path, TUNED_THRESHOLDS, False, split="val")
    assert counts["sequences"] == 6 and [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["val"]
    assert evaluate(converted, tmp_path, "val").numbers()["cameras"]["class_averaged"]["HOTA"] > 0.2
    with pytest.raises(RunError, match="of split 'held_out'"):
        find_sequences(converted, "held_out")


def test_trackers_with_other_detections_do_not_share_a_table(tracked, tmp_path):
    check_comparable([tracked / "kalman", tracked / "kalman_ego"])
    (tmp_path / "tracks.json").write_text(json.dumps({"detections_sha256": "other"}))
    with pytest.raises(RunError, match="made from different detections"):
        check_comparable([tracked / "kalman", tmp_path])
    with pytest.raises(RunError, match="does not say which detections"):
        check_comparable([tracked / "kalman", tmp_path / "unknown"])


def test_tracks_are_the_same_every_time(database, converted, tracked, tmp_path):
    run_track(converted, database / "detections.parquet", "kalman_ego", tmp_path, TUNED_THRESHOLDS, True)
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.txt"))
    assert len(files) == 12
    assert all((tmp_path / f).read_bytes() == (tracked / "kalman_ego" / f).read_bytes() for f in files)


def test_the_command_line_runs_from_tables_to_scores(tmp_path):
    run = CliRunner()

    def call(*words):
        result = run.invoke(app, [str(w) for w in words])
        assert result.exit_code == 0, result.output
        return result.output

    data, out = tmp_path / "data", tmp_path / "out"
    call("synthesize", "--output", data, "--scenes", 1, "--samples", 8, "--objects", 25)
    call("convert", "--dataroot", data, "--version", "v1.0-synthetic", "--output", out, "--engine", "local",
         "--cache", tmp_path / "cache")  # fmt: skip
    assert "blank canvas" in call("check", "--gt", out, "--scenes", 1)
    assert "<img" in (out / "check.html").read_text()
    for motion in ("kalman", "kalman_ego"):
        call("track", "--gt", out, "--detections", data / "detections.parquet", "--motion", motion)
    tracks = [w for m in ("kalman", "kalman_ego") for w in ("--tracks", out / "tracks" / m)]
    assert "joint" in call("evaluate", "--gt", out, *tracks, "--output", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert [s["tracker"] for s in scores] == ["kalman", "kalman_ego"]
    refused = run.invoke(app, ["track", "--gt", str(out), "--detections", "x", "--motion", "magic"])
    assert refused.exit_code == 1 and "kalman_ego" in refused.output


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "--dataroot", "nowhere", "--version", "v1.0-mini", "--output", "out", "--engine", "local"],
        ["check", "--gt", "nowhere"],
        ["evaluate", "--gt", "nowhere", "--tracks", "nowhere"],
        ["track", "--gt", "nowhere", "--detections", "nowhere"],
    ],
)
def test_wrong_folders_end_with_one_sentence(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and result.output.count("error:") == 1 and "Traceback" not in result.output


def test_the_real_log_runs_from_tables_to_scores(shared_dir, tmp_path):
    """convert, check, track and evaluate on the real log; its own labels, blurred, stand in for a
    detector."""
    run, out = CliRunner(), tmp_path / "out"
    folder = shared_dir / "data/av2_as_nuscenes"
    words = ["--dataroot", str(folder), "--version", "v1.0-av2mini", "--output", str(out), "--engine", "local"]
    assert run.invoke(app, ["convert", *words, "--cache", str(tmp_path / "cache")]).exit_code == 0
    rng = np.random.default_rng(0)
    for sequence in find_sequences(out):
        rows = read_mot(sequence.folder / "gt/gt.txt")
        rows = rows.chosen(rng.random(len(rows.frame)) > 0.1)
        box = rows.xywh_px + rng.normal(0, 0.03, rows.xywh_px.shape) * rows.xywh_px[:, [2, 3, 2, 3]]
        box[:, 2:] = np.maximum(box[:, 2:], 1)
        lines = mot_bytes(rows.frame, np.full(len(rows.frame), -1), box, rng.uniform(0.5, 1, len(box)), rows.class_id)
        path = tmp_path / "det" / f"{sequence.name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(lines)
    words = ["track", "--gt", str(out), "--detections", str(tmp_path / "det"), "--motion", "kalman_ego"]
    assert run.invoke(app, words).exit_code == 0
    assert run.invoke(app, ["check", "--gt", str(out)]).exit_code == 0
    result = run.invoke(app, ["evaluate", "--gt", str(out), "--tracks", str(out / "tracks/kalman_ego"),
                              "--output", str(tmp_path / "s.json")])  # fmt: skip
    assert result.exit_code == 0, result.output
    (scores,) = json.loads((tmp_path / "s.json").read_text())
    assert scores["cameras"]["class_averaged"]["HOTA"] > 0.6
