"""The shipped weights do what their cards say: a few held-out frames here, thousands by the commands of the cards."""

from actors.so101_segmenter import So101Segmenter
from models import shipped
from robot.contract import load_contract
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
