"""HandFinder: life cycle, sides, streams that depend on nothing but their images, bit-identical repeats."""

from __future__ import annotations

import pickle
import threading

import cv2
import numpy as np
import pytest

from actors.hand_finder import HandFinder
from models.errors import MissingWeight
from models.weights import CACHE_VARIABLE, catalogue


@pytest.fixture(scope="module")
def finder(weights):
    finder = HandFinder("lite")
    for name in finder.weight_names:
        weights(name)
    finder.warm_up()
    yield finder
    finder.close()


@pytest.fixture(scope="module")
def pictures(shared_dir):
    files = sorted((shared_dir / "data" / "hands" / "frames").glob("*.jpg"))
    return {file.stem: cv2.imread(str(file))[:, :, ::-1].copy() for file in files}


def bits(hands) -> list[bytes]:
    """Everything a list of hands holds, as bytes."""
    arrays = [(hand.landmarks_px, hand.world_landmarks_m, hand.box_px) for hand in hands]
    scores = [(hand.side, hand.side_score, hand.presence_score) for hand in hands]
    return [
        b"".join(a.tobytes() for a in group) + repr(rest).encode() for group, rest in zip(arrays, scores, strict=True)
    ]


def test_two_hands_are_found_as_records_with_their_sides(finder, pictures):
    left_and_right = [hands for image in pictures.values() if len(hands := finder.find(image)) == 2]
    assert left_and_right
    for hand in left_and_right[0]:
        assert hand.presence_score > 0.5 and hand.side_score >= 0.5
        assert not hand.landmarks_px.flags.writeable
        np.testing.assert_array_equal(hand.box_px[:2], hand.landmarks_px[:, :2].min(axis=0))
        np.testing.assert_array_equal(hand.box_px[2:], hand.landmarks_px[:, :2].max(axis=0))
        # A hand is between 5 and 30 cm across.
        assert 0.05 < np.ptp(hand.world_landmarks_m, axis=0).max() < 0.3


def test_mirroring_the_picture_swaps_the_side_and_moves_the_hand(finder, pictures):
    swapped = total = 0
    for image in pictures.values():
        for hand in finder.find(image):
            others = finder.find(image[:, ::-1])  # a view with a negative stride must do
            width = image.shape[1]
            near = [o for o in others if abs(width - 1 - o.box_px[[0, 2]].mean() - hand.box_px[[0, 2]].mean()) < 20]
            total += bool(near)
            swapped += bool(near) and near[0].side != hand.side
    assert total >= 15
    assert swapped / total > 0.9


def test_right_hand_of_a_person_is_called_right(finder, pictures):
    # In this picture MediaPipe's raw label is "Left": it takes the picture for a mirrored one.
    (hand,) = finder.find(pictures["blocks_0060"])
    assert hand.side == "right"


def test_pictures_without_a_human_hand_give_none(finder, pictures):
    without = [name for name in pictures if name.startswith(("robotarm", "vtest", "cooking"))]
    assert len(without) >= 4
    assert {name: len(finder.find(pictures[name])) for name in without} == dict.fromkeys(without, 0)


def test_stream_depends_on_its_own_images_only(finder, pictures):
    images = [image for name, image in pictures.items() if name.startswith("cups")]
    alone = finder.open_stream()
    expected = [bits(alone.next(image)) for image in images]
    assert sum(map(len, expected)) >= 5
    first, second = finder.open_stream(), finder.open_stream()
    for image, other, wanted in zip(images, reversed(images), expected, strict=True):
        second.next(other)
        finder.find(other)
        assert bits(first.next(image)) == wanted


def test_same_picture_gives_the_same_bits_under_load(finder, pictures):
    image = pictures["blocks_0060"]
    expected = bits(finder.find(image))
    stop = threading.Event()

    def burn():
        matrix = np.ones((300, 300))
        while not stop.is_set():
            matrix @ matrix

    burners = [threading.Thread(target=burn) for _ in range(3)]
    for burner in burners:
        burner.start()
    try:
        assert all(bits(finder.find(image)) == expected for _ in range(5))
    finally:
        stop.set()
        for burner in burners:
            burner.join()


def test_stream_refuses_a_change_of_size(finder):
    stream = finder.open_stream()
    stream.next(np.zeros((100, 200, 3), np.uint8))
    with pytest.raises(ValueError, match=r"open a new stream"):
        stream.next(np.zeros((200, 100, 3), np.uint8))


@pytest.mark.parametrize(
    "shape, dtype", [((10, 10), "uint8"), ((10, 10, 4), "uint8"), ((10, 10, 3), "float32"), ((0, 5, 3), "uint8")]
)
def test_what_is_no_image_is_refused_with_its_shape(finder, shape, dtype):
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8 RGB, not"):
        finder.find(np.zeros(shape, dtype))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (2000, 3), (7, 5)])
def test_odd_sizes_are_only_images_without_hands(finder, size):
    assert finder.find(np.zeros((*size, 3), np.uint8)) == []


def test_life_is_load_work_close_and_again(finder):
    image = np.zeros((50, 50, 3), np.uint8)
    other = HandFinder("lite")
    other.close()
    with pytest.raises(RuntimeError, match=r"call load\(\) first"):
        other.find(image)
    other.load()
    other.load()
    assert other.find(image) == []
    stream = other.open_stream()
    other.close()
    other.close()
    with pytest.raises(RuntimeError, match="not loaded"):
        stream.next(image)
    other.load()
    assert stream.next(image) == []


def test_missing_weights_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(MissingWeight, match=r"models\.weights fetch palm_detection_full"):
        HandFinder("full").load()


def test_unloaded_finder_travels_between_processes():
    copy = pickle.loads(pickle.dumps(HandFinder("lite", max_hands=1)))
    assert (copy.variant, copy.max_hands) == ("lite", 1)
    assert all(name in catalogue().entries for name in copy.weight_names)


@pytest.mark.parametrize("wrong", [{"variant": "heavy"}, {"max_hands": 0}, {"threads": 0}])
def test_impossible_settings_are_refused_at_once(wrong):
    with pytest.raises(ValueError, match=r"choose 'full' or 'lite'|at least 1"):
        HandFinder(**wrong)
