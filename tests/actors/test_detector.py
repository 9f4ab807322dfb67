"""The detector's life and its threshold, with the real weights."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from actors.detector import ObjectDetector
from models.errors import MissingWeight


def test_the_threshold_keeps_what_scores_at_least_that(weights, shared_dir):
    weights("efficientdet_lite0")
    image = cv2.imread(str(shared_dir / "data/hands/frames/cups_0060.jpg"))[:, :, ::-1]
    everything, likely = ObjectDetector(score_threshold=0.0), ObjectDetector(score_threshold=0.5)
    everything.warm_up()
    likely.warm_up()
    found = likely.detect(image)
    assert [d.label for d in found] == ["person"] and found[0].box_px[0] < 100 < 540 < found[0].box_px[2]
    scores = [d.score for d in everything.detect(image)]
    assert len(scores) > len(found) and sum(score >= 0.5 for score in scores) == len(found)


def test_life_has_an_order(weights):
    weights("efficientdet_lite0")
    detector = ObjectDetector()
    detector.close()
    with pytest.raises(RuntimeError, match=r"call load\(\) first"):
        detector.detect(np.zeros((10, 10, 3), np.uint8))
    detector.warm_up()
    assert detector.detect(np.zeros((10, 10, 3), np.uint8)) == []
    detector.close()
    detector.close()
    with pytest.raises(RuntimeError, match=r"call load\(\) first"):
        detector.detect(np.zeros((10, 10, 3), np.uint8))


def test_a_missing_weight_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("REAFFERENCE_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingWeight, match="fetch efficientdet_lite0"):
        ObjectDetector().load()


@pytest.mark.parametrize("arguments", [{"score_threshold": 1.1}, {"score_threshold": -0.1}, {"threads": 0}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must be within"):
        ObjectDetector(**arguments)
