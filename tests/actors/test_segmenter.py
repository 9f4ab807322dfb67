"""The segmenter on pictures drawn here and on shared frames, with the real weights."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
import torch

from actors.messages import Prompt
from actors.segmenter import PromptSegmenter

BOX = Prompt(box_px=np.array([180, 80, 320, 220]))
POINT = Prompt(points_px=np.array([[480, 150]]))
BOTH = Prompt(
    box_px=np.array([400, 60, 560, 240]),
    points_px=np.array([[480, 150], [410, 70]]),
    point_labels=np.array([1, 0]),
)


def drawn(height: int = 300, width: int = 640) -> tuple[np.ndarray, np.ndarray]:
    """A grey picture with a red disc and a green bar, and where the disc is."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 120, np.uint8)
    disc = (x - 250) ** 2 + (y - 150) ** 2 < 60**2
    image[disc] = (200, 40, 30)
    image[70:230, 420:540] = (30, 160, 60)
    return image, disc


@pytest.fixture(scope="module")
def segmenter(weights) -> PromptSegmenter:
    weights("mobile_sam")
    segmenter = PromptSegmenter()
    segmenter.load()
    return segmenter


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def test_a_box_finds_the_disc_and_scores_say_so(segmenter):
    image, disc = drawn()
    (mask,) = segmenter.segment(segmenter.embed(image), [BOX])
    assert mask.mask.shape == image.shape[:2]
    assert iou(mask.mask, disc) > 0.95
    assert 0.9 < mask.predicted_iou <= 1 and 0.9 < mask.stability <= 1


def test_a_portrait_finds_the_same_object(segmenter):
    image, disc = drawn()
    turned, box = np.rot90(image), np.array([80, 640 - 320, 220, 640 - 180])
    (mask,) = segmenter.segment(segmenter.embed(turned), [Prompt(box_px=box)])
    assert iou(mask.mask, np.rot90(disc)) > 0.95


def test_a_mask_does_not_depend_on_the_other_prompts_or_pictures(segmenter):
    embedding = segmenter.embed(drawn()[0])
    together = segmenter.segment(embedding, [BOX, POINT, BOTH])
    segmenter.embed(np.zeros((50, 40, 3), np.uint8))
    again = segmenter.embed(drawn()[0])
    np.testing.assert_array_equal(again.features, embedding.features)
    for i, prompt in enumerate([BOX, POINT, BOTH]):
        (alone,) = segmenter.segment(again, [prompt])
        np.testing.assert_array_equal(alone.low_res_logits, together[i].low_res_logits)
        assert (alone.predicted_iou, alone.stability) == (together[i].predicted_iou, together[i].stability)


def test_an_embedding_survives_the_way_to_another_process(segmenter):
    embedding = segmenter.embed(drawn()[0])
    assert not embedding.features.flags.writeable
    (here,) = segmenter.segment(embedding, [BOX])
    (there,) = segmenter.segment(pickle.loads(pickle.dumps(embedding)), [BOX])
    np.testing.assert_array_equal(here.low_res_logits, there.low_res_logits)


def test_no_prompts_no_masks(segmenter):
    assert segmenter.segment(segmenter.embed(drawn()[0]), []) == []


def test_torchs_thread_count_is_left_as_it_was(segmenter):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        segmenter.segment(segmenter.embed(drawn()[0]), [BOX])
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_life_has_an_order(weights):
    weights("mobile_sam")
    segmenter = PromptSegmenter()
    segmenter.close()
    with pytest.raises(RuntimeError, match=r"call load\(\) first"):
        segmenter.embed(drawn()[0])
    segmenter.warm_up()
    segmenter.close()
    segmenter.close()
    with pytest.raises(RuntimeError, match=r"call load\(\) first"):
        segmenter.embed(drawn()[0])


def test_a_missing_weight_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("REAFFERENCE_WEIGHTS", str(tmp_path))
    from models.errors import MissingWeight

    with pytest.raises(MissingWeight, match="fetch mobile_sam"):
        PromptSegmenter().load()


def test_a_bad_thread_count_is_refused():
    with pytest.raises(ValueError, match="not 0"):
        PromptSegmenter(threads=0)


def test_a_real_cup_under_a_hand_is_cut_out(segmenter, shared_dir):
    """cups.mp4, frame 60: the right cup, by its box. Its colour is red; the hand beside it is not."""
    image = cv2.imread(str(shared_dir / "data/hands/frames/cups_0060.jpg"))[:, :, ::-1]
    (mask,) = segmenter.segment(segmenter.embed(image), [Prompt(box_px=np.array([479, 134, 563, 256]))])
    red = (image[:, :, 0] > 120) & (image[:, :, 1] < 70) & (image[:, :, 2] < 90)
    region = np.zeros_like(red)
    region[134:256, 479:563] = True
    assert mask.stability > 0.9
    assert np.count_nonzero(red & region & mask.mask) / np.count_nonzero(red & region) > 0.95
    assert np.count_nonzero(mask.mask & ~region) / np.count_nonzero(mask.mask) < 0.02
