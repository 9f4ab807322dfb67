"""EfficientDet-Lite0 from its own file: geometry on made-up pictures, objects in shared ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.efficientdet import PADDING_GREY, SIDE_PX, UNUSED_LABEL, EfficientDet, fit, read_labels
from models.errors import UnexpectedModel


@pytest.fixture(scope="module")
def model(weights) -> EfficientDet:
    return EfficientDet(weights("efficientdet_lite0"))


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(1, 700))
def test_the_picture_keeps_its_shape_at_the_top_left(height, width):
    square, scale = fit(np.full((height, width, 3), 200, np.uint8))
    assert square.shape == (SIDE_PX, SIDE_PX, 3) and scale == SIDE_PX / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    assert (square[:rows, :columns] == 200).all()
    assert (square[rows:] == PADDING_GREY).all() and (square[:, columns:] == PADDING_GREY).all()


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8 RGB"):
        fit(np.zeros(shape, np.uint8))


def test_labels_are_cocos_ninety_with_ten_unused(model):
    assert len(model.labels) == 90 and model.labels.count(UNUSED_LABEL) == 10
    # COCO category ids are 1-based: person 1, traffic light 10, stop sign 13, cup 47, toothbrush 90.
    assert [model.labels[i - 1] for i in (1, 10, 13, 47, 90)] == [
        "person",
        "traffic light",
        "stop sign",
        "cup",
        "toothbrush",
    ]


def test_another_model_is_refused(weights):
    with pytest.raises(UnexpectedModel, match="has tensors"):
        EfficientDet(weights("palm_detection_full"))


def test_a_file_without_labels_is_refused(tmp_path):
    path = tmp_path / "bare.tflite"
    path.write_bytes(b"no zip behind it")
    with pytest.raises(UnexpectedModel, match=r"bare\.tflite carries no labelmap\.txt"):
        read_labels(path)


@pytest.mark.parametrize("turn", [0, 1])
def test_a_person_is_found_where_the_person_is(model, shared_dir, turn):
    """vtest: a walker near (x 500, y 180) of 640; also with a border added, so that boxes must scale back."""
    image = cv2.imread(str(shared_dir / "data/hands/frames/vtest_head_0050.jpg"))[:, :, ::-1]
    people = [found for found in model(image) if found.label == "person" and found.score > 0.5]
    assert len(people) >= 3
    if turn:
        wider = np.zeros((image.shape[0], image.shape[1] + 200, 3), np.uint8)
        wider[:, : image.shape[1]] = image
        shifted = [found for found in model(wider) if found.label == "person"]
        best = people[0].box_px
        assert min(np.abs(found.box_px - best).max() for found in shifted) < 12
    for found in people:
        x0, y0, x1, y1 = found.box_px
        assert 0 <= x0 < x1 <= image.shape[1] and 0 <= y0 < y1 <= image.shape[0]
        assert y1 - y0 > x1 - x0  # walkers are upright


def test_results_are_sorted_and_equal_bit_by_bit(model):
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    first, second = model(image), model(image)
    assert [f.score for f in first] == sorted((f.score for f in first), reverse=True)
    assert [(f.label, f.score, f.box_px.tobytes()) for f in first] == [
        (f.label, f.score, f.box_px.tobytes()) for f in second
    ]
