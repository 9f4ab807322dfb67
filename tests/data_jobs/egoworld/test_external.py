"""operators/external.py: whatever a program does ends as a checked table or as a failure with its cause."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_jobs.egoworld.config import EgoworldConfig
from data_jobs.egoworld.operators.clip_folder import write_clip_folder
from data_jobs.egoworld.operators.external import ExternalHands, ExternalMasks, ExternalParams
from data_jobs.egoworld.operators.geometry import encode_rle
from data_jobs.egoworld.operators.returned import Malformed, read_returned
from data_jobs.egoworld.plan import make_plan
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.schemas import schema_of
from data_jobs.runs.errors import RunError
from data_jobs.runs.outcome import Failure
from data_jobs.runs.strict import parse
from tests.data_jobs.egoworld.film import clip_of, number_of, write_film

ROOT = Path(__file__).resolve().parents[3]

GOOD = """
import json, sys, pathlib, pyarrow as pa, pyarrow.parquet as pq, numpy as np
clip, output = pathlib.Path(sys.argv[1]), sys.argv[2]
facts = json.loads((clip / "clip.json").read_text())
frames = pq.read_table(clip / "frames.parquet").to_pylist()
rows = [{"frame_index": f["frame_index"], "pose": [float(f["pts"])] * 63, "hand_id": 0, "handedness": "left",
         "handedness_score": 1.0, "score": 0.5, "landmarks_px": [0.0] * 63, "box": [0.0] * 4} for f in frames]
EDIT
pq.write_table(pa.Table.from_pylist(rows), output)
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Frames 4..11 of a film of variable rate with B-frames."""
    times = np.cumsum([0, *(400 + 300 * (k % 5) for k in range(19))])
    path = write_film(tmp_path_factory.mktemp("film") / "film.mp4", [int(t) for t in times], options={"bf": "2"})
    return clip_of(probe(str(path), "film.mp4"), 4, 12)


def program(tmp_path, text):
    path = tmp_path / "program.py"
    path.write_text(text)
    return (sys.executable, str(path), "{clip}", "{output}")


def run(clip, command, cls=ExternalHands, upstream_tables=None, **params):
    operator = cls(ExternalParams(command=command, licence="MIT", **params))
    operator.load()
    return operator.run(clip, upstream_tables or {}, 3)


def failure(clip, command, **params):
    """What the guard would make of the run."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its kind is what is judged
        run(clip, command, **params)
    return Failure.of(caught.value)


def test_a_program_sees_every_frame_and_its_table_is_completed(tmp_path, clip):
    table = run(clip, program(tmp_path, GOOD.replace("EDIT", "rows.reverse()")))
    assert table.schema == schema_of("hand_pose")
    assert table["frame_index"].to_pylist() == list(range(4, 12))
    assert [pose[0] for pose in table["pose"].to_pylist()] == table["pts"].to_pylist()
    assert table["timestamp_s"].to_pylist() == [pts / 30_000 for pts in table["pts"].to_pylist()]


def test_pictures_upstream_tables_and_work_folder_are_handed_over(tmp_path, clip):
    seen = tmp_path / "seen"
    text = f"import shutil, sys, pathlib; shutil.copytree(sys.argv[1], {str(seen)!r}); print(pathlib.Path.cwd().name)\n"
    hands = schema_of("hand_pose").empty_table()
    params = {
        "upstream": ("hamer",),
        "picture_interval_s": 0.05,
        "cls": ExternalMasks,
        "upstream_tables": {"hamer": hands},
    }
    with pytest.raises(Exception, match=r"did not write .*; it said: work"):
        run(clip, program(tmp_path, text), **params)
    assert {p.name for p in seen.iterdir()} == {
        "clip.json", "frames", "frames.parquet", "hand_pose.parquet", "work", "log.txt",
    }  # fmt: skip
    rows = pq.read_table(seen / "frames.parquet").to_pylist()
    shown = [row for row in rows if row["file"]]
    assert 1 < len(shown) < len(rows) == 8
    for row in shown:
        picture = cv2.cvtColor(cv2.imread(str(seen / row["file"])), cv2.COLOR_BGR2RGB)
        assert number_of(picture) == row["frame_index"]
    assert json.loads((seen / "clip.json").read_text())["table"] == "masks"


@pytest.mark.parametrize(
    ("text", "cause", "message"),
    [
        ("import sys; print('no CUDA device'); sys.exit(3)", "bug", "exit code 3; it said: no CUDA device"),
        ("import sys; sys.exit(65)", "input", "exit code 65"),
        ("import sys; sys.exit(75)", "transient", "exit code 75"),
        ("import os; os.kill(os.getpid(), 11)", "worker_crash", "died of SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "resource", "out of memory"),
        ("import sys; sys.stderr.write(sys.argv[1] + '/x is bad'); sys.exit(1)", "bug", "it said: CLIP/x is bad"),
        ("import os, sys; os.mkdir(sys.argv[2])", "bug", "a folder there"),
        ("import os, sys; os.symlink('/etc/passwd', sys.argv[2])", "bug", "a link there"),
        ("open('result.parquet', 'w').write('x')", "bug", "it wrote work/result.parquet instead"),
        ("import sys; open(sys.argv[2], 'w').write('x')", "bug", "not a readable Parquet file"),
        ("pass", "bug", "did not write {output}"),
    ],
)
def test_what_goes_wrong_has_its_cause(tmp_path, clip, text, cause, message):
    found = failure(clip, program(tmp_path, text))
    assert found.cause == cause
    assert message in found.message and "hamer:external" in found.message


def hands(frames):
    """What a careful program would return, in double precision and without times."""
    return [
        {"frame_index": f, "pose": [0.5] * 63, "hand_id": 0, "handedness": "left", "handedness_score": 1.0,
         "score": 0.5, "landmarks_px": [0.0] * 63, "box": [0.0] * 4} for f in frames
    ]  # fmt: skip


def returned(tmp_path, clip, rows, table="hand_pose"):
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "output.parquet")
    frames = write_clip_folder(tmp_path / "clip", clip, 3, table, {}, "none")
    return read_returned(tmp_path / "output.parquet", table, clip, frames)


def test_a_careful_table_is_taken_and_sorted(tmp_path, clip):
    table = returned(tmp_path, clip, hands([11, 5]))
    assert table.schema == schema_of("hand_pose")
    assert table["frame_index"].to_pylist() == [5, 11]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.pop("score"), "lacks score"),
        (lambda r: r.update(extra=1), "has unknown extra"),
        (lambda r: r.update(frame_index=2), "speaks of frames 2–2, the clip's are 4–11"),
        (lambda r: r.update(score="high"), "column score .* is string, not float"),
        (lambda r: r.update(score=None), "column score .* holds 1 nulls"),
        (lambda r: r.update(frame_index=5.5), "column frame_index .* is double, not int64"),
        (lambda r: r.update(pose=[0.0] * 60), "must hold 63 numbers"),
        (lambda r: r.update(box=[0.0] * 3), "column box"),
        (lambda r: r.update(pts=1), "row 0 has pts 1 for a frame whose pts is"),
        (lambda r: r.update(timestamp_s=9.0), "row 0 has timestamp_s 9.0"),
    ],
)
def test_malformed_tables_are_refused_with_the_reason(tmp_path, clip, edit, message):
    rows = hands([5])
    edit(rows[0])
    with pytest.raises(Malformed, match=message):
        returned(tmp_path, clip, rows)


@pytest.mark.parametrize("rle", ["[]", '{"size": [2, 2], "counts": "04"}', '{"size": [96, 128], "counts": [9]}', "x"])
def test_masks_must_be_compressed_run_lengths_of_the_clips_size(tmp_path, clip, rle):
    good = {
        "frame_index": 5, "mask_rle": encode_rle(np.ones((96, 128), bool)), "object_id": 0, "class": "cup",
        "score": 1.0, "box": [0.0] * 4, "predicted_iou": 1.0, "stability": 1.0, "prompt": "",
    }  # fmt: skip
    (tmp_path / "good").mkdir()
    assert returned(tmp_path / "good", clip, [good], "masks")["class"].to_pylist() == ["cup"]
    with pytest.raises(Malformed, match="mask_rle of row 0"):
        returned(tmp_path, clip, [good | {"mask_rle": rle}], "masks")


def test_time_ends_the_program_and_its_children(tmp_path, clip):
    text = (
        "import subprocess, time\nchild = subprocess.Popen(['sleep', '99'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\ntime.sleep(99)\n"
    )
    found = failure(clip, program(tmp_path, text), timeout_s=2.0)
    assert (found.cause, found.message) == ("timeout", "hamer:external: no end within 2 s")
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_killed_caller_takes_the_program_along(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    pid_file = tmp_path / "pid"
    words = ["sh", "-c", f"sleep 99 & echo $! > {pid_file}; wait"]
    call = f"run_leashed({words!r}, Path({str(folder)!r}), {{}}, Path({str(tmp_path / 'log')!r}), 99)"
    code = f"from pathlib import Path\nfrom data_jobs.runs.leash import run_leashed\n{call}"
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    caller.kill()
    caller.wait()
    assert gone(int(pid_file.read_text()))


def gone(pid, patience_s=10.0):
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_what_is_missing_is_said_before_the_first_clip(tmp_path):
    weight = tmp_path / "w.pt"
    weight.write_bytes(b"abc")
    right = hashlib.sha256(b"abc").hexdigest()

    def load(**params):
        ExternalHands(ExternalParams(**{"command": ("true", "{clip}"), "licence": "MIT"} | params)).load()

    load(weights={str(weight): right})
    with pytest.raises(RunError, match=f"has sha256 {right}, the config says 00"):
        load(weights={str(weight): "00"})
    with pytest.raises(RunError, match="cannot be read"):
        load(weights={str(tmp_path / "absent.pt"): right})
    with pytest.raises(RunError, match="no program 'hamer-of-nowhere'"):
        load(command=("hamer-of-nowhere", "{clip}"))


def config(**hands):
    params = {"command": ["true", "{clip}"], "licence": "MIT"} | hands
    allow = params.pop("allow", [])
    operators = {"hamer": {"backend": "external", "params": params}, "sam2": {"enabled": False}}
    return parse(EgoworldConfig, {"operators": operators, "allow_licence": allow}, "config")


def test_restricted_licences_need_to_be_allowed_word_for_word():
    plan, _ = make_plan(config(), str)
    assert plan.stages[0].spec.licence == "MIT"
    make_plan(config(licence="MIT AND Apache-2.0"), str)
    with pytest.raises(RunError, match=r"hamer:external comes under .*allow_licence: \['MANO'\]"):
        make_plan(config(licence="MIT AND MANO"), str)
    plan, _ = make_plan(config(licence="MIT AND MANO", allow=["MANO"]), str)
    assert plan.stages[0].spec.licence == "MIT AND MANO"


def test_upstream_is_planned_and_must_come_before():
    operators = {
        "sam2": {
            "backend": "external",
            "params": {"command": ["true", "{clip}"], "licence": "MIT", "upstream": ["hamer"]},
        },
        "hamer": {"enabled": False},
    }
    plan, _ = make_plan(parse(EgoworldConfig, {"operators": operators}, "config"), str)
    assert [(stage.spec.name, stage.published) for stage in plan.stages] == [
        ("hamer:mediapipe", False),
        ("sam2:external", True),
    ]
    with pytest.raises(RunError, match="sam2 comes after hamer"):
        make_plan(config(upstream=["sam2"]), str)
    with pytest.raises(RunError, match="command must hold"):
        make_plan(config(command=["true"]), str)
