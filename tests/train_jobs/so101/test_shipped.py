"""The shipped weights do what their cards say: a few held-out frames here, thousands by the commands of the cards."""

from dataclasses import replace

import pytest
from PIL import Image

from actors.so101_segmenter import So101Segmenter
from models import shipped
from robot.contract import load_contract
from train_jobs.so101_policy.evaluate import Trial, judge, sweeps
from train_jobs.so101_policy.film import PANEL_PX, film
from train_jobs.so101_seg.evaluate import evaluate

MIOU_FLOOR = 0.80  # of 24 frames; the card tells what thousands give


def test_the_shipped_segmenter_sees_held_out_frames():
    told = evaluate(shipped.SO101_SEGMENTER, 24, workers=0)
    for size in ("640x480", "84x84"):
        assert told[size]["mIoU"] > MIOU_FLOOR, told[size]
        assert told[size]["cube"] > MIOU_FLOOR, told[size]
    baseline = told["84x84 most frequent class per pixel"]
    assert baseline["cube"] < 0.1 and baseline["mIoU"] < told["84x84"]["mIoU"] - 0.2


def test_the_contract_asks_for_the_shipped_segmenter():
    segmenter = So101Segmenter(shipped.SO101_SEGMENTER)
    segmenter.load()
    assert segmenter.describe()["run"] == load_contract("so101_lift").image.classes.run


EPISODES = 12


@pytest.fixture(scope="module")
def shipped_trial():
    return Trial("policy", "so101_lift", shipped.SO101_POLICY, shipped.SO101_SEGMENTER)


def test_the_shipped_policy_lifts_on_what_the_shipped_segmenter_sees(shipped_trial):
    results = judge(shipped_trial, EPISODES, workers=0)
    assert sum(result.success for result in results) >= 0.6 * EPISODES


def test_a_wrong_class_map_makes_it_collapse(shipped_trial):
    trials = sweeps(shipped_trial)
    wrong = trials["wrong class map: table and cube, and the fingers, exchanged"]
    hurried = replace(wrong, conditions=replace(wrong.conditions, seconds=3.0))
    assert sum(result.success for result in judge(hurried, 8, workers=0)) <= 1


def test_the_film_shows_what_was_judged(shipped_trial, tmp_path):
    hurried = replace(shipped_trial, conditions=replace(shipped_trial.conditions, seconds=0.4))
    assert film(hurried, [0, 1], tmp_path / "film.gif") == [False, False]
    with Image.open(tmp_path / "film.gif") as read:
        assert read.n_frames == 10 and read.size == (3 * PANEL_PX[0], PANEL_PX[1])
