"""Rendered frames: labels by name, the same by number, resumed where they stopped; pictures spoilt, never flipped."""

import json

import mujoco
import numpy as np
import pytest

from robot import scene
from robot.contract import SEGMENTER_CLASSES
from robot.rendering import WristCamera
from train_jobs.errors import CannotStart
from train_jobs.so101.light_meshes import thin
from train_jobs.so101.look import furnish
from train_jobs.so101.patterns import KINDS, table_pattern
from train_jobs.so101.ranges import HELD_OUT_LOOK, HELD_OUT_SPOIL, SEG_LOOK, TRAIN_LOOK, TRAIN_SPOIL
from train_jobs.so101.spoil import spoil
from train_jobs.so101_seg.evaluate import policy_size
from train_jobs.so101_seg.frames import Plan, read, render
from train_jobs.so101_seg.score import Confusion
from train_jobs.so101_seg.studio import Studio


def test_labels_follow_the_name_of_the_body_not_its_number():
    """A thing put before everything else moves all geom ids; the labels stay."""

    def in_front(spec):
        for index in range(5):
            spec.worldbody.add_geom(
                name=f"dust_{index}", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.001,) * 3, pos=(0, 0, -1)
            )

    pictures = []
    for add in (None, in_front, furnish):
        model, body_class = scene.build(add)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        camera = WristCamera(model, scene.CAMERA, 64, 48, body_class)
        camera.look(data)
        pictures.append(camera.depth_and_classes()[1])
        camera.close()
        for body, name in scene.CLASS_OF_BODY.items():
            assert SEGMENTER_CLASSES[body_class[model.body(body).id]] == name
    assert np.array_equal(pictures[0], pictures[1])
    assert (pictures[0] == pictures[2]).mean() > 0.98, "thinned meshes cover the same pixels"
    assert SEGMENTER_CLASSES[body_class[model.body("clutter_0").id]] == "background"


def test_a_frame_is_the_same_in_whatever_order_it_is_rendered(frames):
    studio = Studio(SEG_LOOK, 3, 64, 48)
    for number in (7, 2):
        rgb, ids = studio.frame(number)
        assert np.array_equal(rgb, frames.rgb[number]) and np.array_equal(ids, frames.ids[number])
    studio.close()
    assert len({frame.tobytes() for frame in frames.rgb}) == len(frames)
    assert {SEGMENTER_CLASSES[i] for i in np.unique(frames.ids)} >= {"table", "cube", "static_finger"}


def test_a_killed_rendering_goes_on(frames, tmp_path, monkeypatch):
    plan, real, calls = frames.plan, Studio.frame, []

    def dies(self, number):
        calls.append(number)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return real(self, number)

    monkeypatch.setattr(Studio, "frame", dies)
    monkeypatch.setattr("train_jobs.so101_seg.frames.NOTE_EVERY", 5)
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path, plan)
    assert len(read(tmp_path)) == 5
    render(tmp_path, plan)
    assert calls[8:] == list(range(5, 12)), "what was whole is not rendered again"
    assert np.array_equal(read(tmp_path).rgb, frames.rgb) and np.array_equal(read(tmp_path).ids, frames.ids)


def test_frames_of_another_plan_are_not_mixed(frames, tmp_path):
    (tmp_path / "frames.json").write_text(json.dumps({"plan": {"count": 1}, "done": 1}))
    with pytest.raises(CannotStart, match="another plan"):
        render(tmp_path, Plan(12, 3, 64, 48))
    with pytest.raises(CannotStart, match="no rendered frames"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("look", [TRAIN_LOOK, SEG_LOOK])
def test_held_out_looks_are_others_than_those_of_training(look):
    assert not set(HELD_OUT_LOOK.patterns) & set(look.patterns)
    for name in ("brightness", "ambient", "lamp_height_m", "lamp_xy_m", "table_value"):
        (low, high), (lowest, highest) = getattr(look, name), getattr(HELD_OUT_LOOK, name)
        assert lowest < low and high < highest
    assert look.clutter[1] < HELD_OUT_LOOK.clutter[1] and look.table_contrast[1] < HELD_OUT_LOOK.table_contrast[1]
    assert HELD_OUT_SPOIL.jpeg[0] < TRAIN_SPOIL.jpeg[0] and TRAIN_SPOIL.noise[1] < HELD_OUT_SPOIL.noise[1]


@pytest.mark.parametrize("kind", KINDS)
def test_table_patterns_follow_their_generator(kind):
    first, again, other = (table_pattern(kind, 64, 64, SEG_LOOK, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert (len(np.unique(first.reshape(-1, 3), axis=0)) == 1) == (kind == "plain")


def test_a_pattern_that_is_not_known_is_told():
    with pytest.raises(ValueError, match="known: plain"):
        table_pattern("marble", 8, 8, TRAIN_LOOK, np.random.default_rng(0))


def test_spoiling_keeps_place_and_follows_its_generator(frames):
    picture = frames.rgb[0]
    first, again, other = (spoil(picture, TRAIN_SPOIL, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.shape == picture.shape and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    grey = lambda p: (p.mean(2) - p.mean()).ravel()  # noqa: E731
    upright = np.corrcoef(grey(first), grey(picture))[0, 1]
    for flipped in (picture[::-1], picture[:, ::-1]):
        assert upright > np.corrcoef(grey(first), grey(flipped))[0, 1]


def test_thinned_meshes_stay_within_a_cell_and_keep_their_size():
    rng = np.random.default_rng(0)
    angle, height = np.meshgrid(np.linspace(0, 2 * np.pi, 60), np.linspace(0, 0.05, 40))
    vertices = np.stack([0.02 * np.cos(angle), 0.02 * np.sin(angle), height], -1).reshape(-1, 3)
    faces = rng.integers(0, len(vertices), (500, 3))
    few, kept = thin(vertices, faces, 0.005)
    assert len(few) < len(vertices) / 4 and kept.max() < len(few)
    assert all((kept[:, a] != kept[:, b]).all() for a, b in ((0, 1), (1, 2), (0, 2)))
    assert np.abs(few.min(0) - vertices.min(0)).max() < 0.005 and np.abs(few.max(0) - vertices.max(0)).max() < 0.005


def test_iou_by_hand():
    confusion = Confusion(3)
    confusion.add(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    assert np.allclose(confusion.iou()[:2], [2 / 3, 1 / 2]) and np.isnan(confusion.iou()[2])
    assert confusion.mean_iou() == pytest.approx((2 / 3 + 1 / 2) / 2)
    confusion.add(np.array([0]), np.array([2]))
    assert confusion.iou()[2] == 0.0, "a class that is only predicted is no help"


def test_the_policys_size_is_the_middle_square():
    ids = np.zeros((480, 640), np.uint8)
    ids[:, :80] = ids[:, 560:] = 5
    assert policy_size(ids).shape == (84, 84) and not policy_size(ids).any()
