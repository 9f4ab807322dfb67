"""The comparison scores every row on the same recordings, and its table and page say what was measured."""

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from data_jobs.nuscenes import compare as job
from data_jobs.nuscenes import suite
from data_jobs.nuscenes.__main__ import app
from data_jobs.nuscenes.compare_page import page
from data_jobs.nuscenes.mot_folder import read_truth
from models.trackssm.pretrained import PRETRAINED


@pytest.fixture(scope="module")
def results(database, converted):
    parts = suite.read_suite(converted, database / "detections.parquet", "val")
    wanted = ("last box", job.REFERENCE, "TrackSSM, trackssm_small, own gate", job.BOUND)
    chosen = [row for row in job.entries([PRETRAINED]) if row.name in wanted]
    return job.compare([parts[:3], parts[3:]], chosen, [job.CONDITIONS[1]], lambda line: None)


def test_rows_are_baselines_and_the_network_with_and_without_its_gate():
    names = [row.name for row in job.entries([PRETRAINED])]
    assert names[-3:] == ["TrackSSM, trackssm_small", "TrackSSM, trackssm_small, own gate", job.BOUND]
    assert job.REFERENCE in names and len(names) == 8


def test_a_score_per_suite_and_a_difference_taken_suite_by_suite(results):
    last, reference, _, bound = results
    assert len(last.scores) == 2 and 0 < last.values("HOTA").mean() < reference.values("HOTA").mean() < 100
    assert bound.values("HOTA").mean() > reference.values("HOTA").mean()
    assert bound.values("IDSW").sum() < reference.values("IDSW").sum()
    difference = (last.values("HOTA") - reference.values("HOTA")).mean()
    line = next(line for line in job.table(results).splitlines() if "last box" in line)
    assert f"{difference:.2f} ±" in line


def test_the_interval_is_students():
    values = np.array([1.0, 2.0, 3.0])
    assert job.half_width(values) == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    assert job.spread(values[:1]) == "1.0"


def test_json_and_page_hold_every_row(results):
    data = json.loads(job.as_json(results, {"suites": "two"}))
    assert [row["motion"] for row in data["results"]] == [r.entry for r in results]
    html = page(results, "two halves of a scene.")
    assert all(r.entry.replace("'", "&#39;") in html for r in results) and html.count("<rect") == len(results)


def walkers(folder, name, truth):
    """A MOT sequence of two walkers with perfect detections; `truth` ends each line of its truth."""
    for part in ("det", "gt"):
        (folder / name / part).mkdir(parents=True)
    info = f"[Sequence]\nname={name}\nframeRate=25\nseqLength=30\nimWidth=640\nimHeight=480\n"
    (folder / name / "seqinfo.ini").write_text(info)
    boxes = [(k, j, f"{100 + 3 * k + 300 * j},{100 + k},40,90") for k in range(1, 31) for j in (0, 1)]
    (folder / name / "det/det.txt").write_text("".join(f"{k},-1,{box},0.9,-1,-1,-1\n" for k, _, box in boxes))
    (folder / name / "gt/gt.txt").write_text("".join(f"{k},{j + 1},{box},{truth[j]}\n" for k, j, box in boxes))


def test_a_mot_folder_is_compared_on_its_own_detections(tmp_path):
    for name in ("one", "two"):
        walkers(tmp_path / "mot", name, ["1,-1,-1,-1", "1,7.5,2.5,0"])
    done = CliRunner().invoke(app, ["compare", "--gt", str(tmp_path / "mot"), "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "out/compare.json").read_text())["results"]
    assert {row["condition"] for row in rows} == {c.name for c in job.AS_RECORDED}
    easy = [row["scores"][0] for row in rows if row["condition"] == "as recorded"]
    assert len(easy) == 8 and all(score["HOTA"] > 0.95 and score["IDSW"] == 0 for score in easy)
    assert "every 6th frame" in (tmp_path / "out/compare.html").read_text()
    assert "| as recorded | last box |" in (tmp_path / "out/compare.md").read_text()


def test_perfect_motion_crosses_what_no_filter_follows(tmp_path):
    """Two walkers that turn back at every tenth frame, seen at every fourth only: told the truth, nobody is lost."""
    place = [100 + 40 * abs((k + 10) % 20 - 10) for k in range(41)]
    for part in ("det", "gt"):
        (tmp_path / "turn" / part).mkdir(parents=True)
    info = "[Sequence]\nname=turn\nframeRate=10\nseqLength=41\nimWidth=900\nimHeight=480\n"
    (tmp_path / "turn/seqinfo.ini").write_text(info)
    boxes = [(k + 1, j, f"{x + (j * (600 - 2 * x))},{100 + 60 * j},40,90") for k, x in enumerate(place) for j in (0, 1)]
    lines = [f"{k},-1,{box},0.9,-1,-1,-1\n" for k, _, box in boxes if k % 4 == 1]
    (tmp_path / "turn/det/det.txt").write_text("".join(lines))
    (tmp_path / "turn/gt/gt.txt").write_text("".join(f"{k},{j + 1},{box},1,-1,-1,-1\n" for k, j, box in boxes))
    parts = suite.mot_suite(tmp_path)
    wanted = (job.BOUND, job.REFERENCE)
    rows = {row.name: suite.score(parts, row.track) for row in job.entries([]) if row.name in wanted}
    assert rows[job.BOUND]["IDSW"] == 0 < rows[job.REFERENCE]["IDSW"]
    assert rows[job.BOUND]["AssRe"] > rows[job.REFERENCE]["AssRe"]


def test_truth_with_classes_counts_pedestrians_and_voids_what_looks_like_them(tmp_path):
    walkers(tmp_path, "new", ["1,1,0.9", "0,7,0.9"])  # MOT16 on: a pedestrian, a person who stands
    rows, void = read_truth(tmp_path / "new")
    assert len(rows.frame) == 60 and set(rows.id[void]) == {2} and set(rows.id[~void]) == {1}
    walkers(tmp_path, "old", ["1,7,2,0", "0,1,1,0"])  # MOT15: places in the world, and one not counted
    rows, void = read_truth(tmp_path / "old")
    assert set(rows.id) == {1} and not void.any()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--trackers"], "pip install --no-deps trackers=="), (["--detections", "x"], "give their folder with --gt"),
     (["--gt", "conversion"], "which detections?")],
)  # fmt: skip
def test_what_cannot_be_compared_says_why(words, said, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    done = CliRunner().invoke(app, ["compare", "--output", str(tmp_path / "out"), *words])
    assert done.exit_code == 1 and said in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()
