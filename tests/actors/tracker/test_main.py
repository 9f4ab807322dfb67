"""The command line: files that open whatever ends a run, and one sentence for what is wrong."""

from __future__ import annotations

import json
from itertools import islice

import av
import cv2
import numpy as np
import pytest
import trimesh
from typer.testing import CliRunner

from actors.tracker import __main__ as command
from actors.tracker.banks import read_bank, write_bank
from actors.tracker.film import Film
from actors.tracker.folders import write_folder
from actors.tracker.machine import mermaid
from actors.tracker.mesh import View
from actors.tracker.records import Phase, Reason, TrackState
from actors.tracker.sources import Camera, open_source
from tests.actors.tracker.conftest import toy

TIMES_NS = [0, 40_000_000, 100_000_000, 400_000_000]  # a camera that stutters


def call(*arguments):
    return CliRunner().invoke(command.app, [str(each) for each in arguments])


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number:03d}.png"), toy(60 + 2 * number, 60)[0][:, :, ::-1])
    return folder


@pytest.fixture
def bank_file(tmp_path, toy_bank):
    write_bank(toy_bank, tmp_path / "toy.npz")
    return tmp_path / "toy.npz"


def test_templates_from_a_mesh_and_from_a_folder(tmp_path, weights):
    weights("mobilenet_v2")
    mesh = tmp_path / "box.ply"
    trimesh.creation.box((40, 60, 100)).export(mesh)
    done = call("templates", "--mesh", mesh, "--output", tmp_path / "a.npz", "--keep", tmp_path / "views")
    assert done.exit_code == 0, done.output
    assert "123 mm across" in done.output
    bank = read_bank(tmp_path / "a.npz")
    assert (bank.name, len(bank.vectors)) == ("box", 42)
    assert np.isfinite(bank.camera_from_object).all()
    done = call("templates", "--folder", tmp_path / "views", "--output", tmp_path / "b.npz", "--name", "box")
    assert done.exit_code == 0, done.output
    again = read_bank(tmp_path / "b.npz")
    np.testing.assert_allclose(again.vectors, bank.vectors, atol=1e-5)
    np.testing.assert_array_equal(again.camera_from_object, bank.camera_from_object)


def test_one_template_is_told(tmp_path, weights):
    weights("mobilenet_v2")
    write_folder([View(*toy(60, 60), None)], tmp_path / "one")
    done = call("templates", "--folder", tmp_path / "one", "--output", tmp_path / "one.npz")
    assert done.exit_code == 0
    assert "one view only" in done.output


def test_a_run_writes_a_film_and_its_states(tmp_path, pictures, bank_file, weights, monkeypatch):
    from dataclasses import replace

    from models.proposals import PROFILES

    weights("mobile_sam")
    monkeypatch.setitem(PROFILES, "edge", replace(PROFILES["edge"], points_per_side=4))
    output = tmp_path / "out" / "tracking_output.mp4"
    options = ["--source", pictures, "--output", output, "--rate", 20, "--threads", 1]
    done = call("run", "--templates", bank_file, *options)
    assert done.exit_code == 0, done.output
    assert "3 frames; the folder is over" in done.output
    lines = [json.loads(line) for line in output.with_suffix(".jsonl").read_text().splitlines()]
    assert [line["time_ns"] for line in lines] == [0, 50_000_000, 100_000_000]
    with av.open(str(output)) as container:
        assert [round(frame.time, 3) for frame in container.decode(video=0)] == [0, 0.05, 0.1]


def state(time_ns: int) -> TrackState:
    ball = toy(60, 60)[1]
    box = np.array([36, 36, 84, 84])
    return TrackState("toy", 0, time_ns, Phase.TRACK, Reason.CONFIRMED, 1, ball, box, 0.8, 0.7, 1.0)


def test_the_film_has_the_real_times_and_any_frame_size(tmp_path):
    with Film(tmp_path / "film.mp4") as film:
        for number, time_ns in enumerate(TIMES_NS):
            image = toy(60, 60)[0] if number != 2 else np.full((60, 91, 3), 9, np.uint8)
            film.add(image, [state(time_ns)] if number != 2 else [], time_ns)
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert [round(frame.time * 1e9) for frame in container.decode(video=0)] == TIMES_NS


class Interrupted:
    """A source at which somebody presses Ctrl-C."""

    live, why_ended = False, ""

    def __iter__(self):
        yield np.full((64, 64, 3), 90, np.uint8), 0
        yield np.full((64, 64, 3), 0, np.uint8), 33_000_000
        raise KeyboardInterrupt


def test_ctrl_c_leaves_a_film_that_opens(tmp_path, monkeypatch):
    class Nothing:
        def step(self, image, time_ns):
            return ()

        def close(self):
            self.closed = True

    tracker = Nothing()
    command._follow(tracker, Interrupted(), tmp_path / "film.mp4", None)
    assert tracker.closed
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert len(list(container.decode(video=0))) == 2


class Unplugged:
    """What OpenCV gives of a camera that is pulled out after two frames."""

    def __init__(self, _) -> None:
        self.left = 2

    def isOpened(self):
        return True

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((8, 8, 3), 7, np.uint8)

    def release(self):
        pass


def test_an_unplugged_camera_ends_cleanly_with_a_reason(monkeypatch):
    monkeypatch.setattr("actors.tracker.sources.cv2.VideoCapture", Unplugged)
    camera = Camera("0")
    assert 0 <= len(list(camera)) <= 2
    assert "unplugged" in camera.why_ended


def test_bad_input_is_one_sentence(tmp_path, pictures, bank_file, weights):
    weights("mobilenet_v2")
    text = tmp_path / "notes.mp4"
    text.write_text("no film")
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [
        (["templates", "--output", tmp_path / "x.npz"], "exactly one of"),
        (["templates", "--folder", empty, "--output", tmp_path / "x.npz"], "holds no templates"),
        (["templates", "--mesh", text, "--output", tmp_path / "x.npz"], "cannot be read as a mesh"),
        (["templates", "--picture", text, "--output", tmp_path / "x.npz"], "missing or no picture"),
        (["run", "--templates", text, "--source", pictures], "not a template bank"),
        (["run", "--templates", bank_file, "--source", text], "cannot be opened as a film"),
        (["run", "--templates", bank_file, "--source", empty], "holds no pictures"),
        (["run", "--templates", bank_file, "--source", tmp_path / "nowhere"], "no camera"),
        (["run", "--templates", bank_file, "--source", pictures, "--sam2", text], "not a readable SAM 2 checkpoint"),
        (["calibrate", "--bank", text, "--negatives", pictures], "not a template bank"),
    ]
    for arguments, says in cases:
        done = call(*arguments)
        said = " ".join((done.output + (done.stderr or "")).split())
        assert done.exit_code == 2, arguments
        assert says in said
        assert "Traceback" not in said
    assert not (tmp_path / "x.npz").exists()


def test_a_film_keeps_its_own_times(tmp_path):
    with Film(tmp_path / "film.mp4") as film:
        for time_ns in TIMES_NS:
            film.add(toy(60, 60)[0], [], time_ns)
    source = open_source(str(tmp_path / "film.mp4"), 10)
    assert [time_ns for _, time_ns in source] == TIMES_NS
    assert source.why_ended == "the film is over"
    assert len(list(islice(source, 2))) == 2
    assert source.why_ended == "", "whoever stops earlier has a reason of his own"


def test_the_chart_is_printed_and_documented():
    from pathlib import Path

    assert mermaid() in call("chart").output
    page = Path(__file__).parents[3] / "docs" / "tracker.md"
    assert mermaid() in page.read_text()
