"""The LiteRT wrapper: it refuses other models by name, and the same input gives the same bits."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from models.errors import UnexpectedModel
from models.litert import LiteRtModel

INPUT = (1, 224, 224, 3)
OUTPUTS = {"points": (1, 63), "presence": (1, 1), "side": (1, 1), "world": (1, 63)}


@pytest.fixture(scope="module")
def model(weights):
    return LiteRtModel(weights("hand_landmark_lite"), INPUT, OUTPUTS)


def test_outputs_come_by_name_with_their_shapes(model):
    out = model(np.zeros(INPUT, np.float32))
    assert {name: array.shape for name, array in out.items()} == OUTPUTS


def test_outputs_of_one_call_are_not_overwritten_by_the_next(model):
    rng = np.random.default_rng(0)
    first = model(rng.random(INPUT, np.float32))
    before = first["points"].copy()
    model(rng.random(INPUT, np.float32))
    np.testing.assert_array_equal(first["points"], before)


def test_same_input_gives_the_same_bits_from_many_threads(model):
    array = np.random.default_rng(1).random(INPUT, np.float32)
    expected = model(array)["points"]
    results: list[np.ndarray] = []

    def work():
        results.extend(model(array)["points"] for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_another_model_is_refused_with_what_it_holds(weights):
    with pytest.raises(UnexpectedModel, match=r"\(1, 192, 192, 3\).*expected \[\(1, 224, 224, 3\)"):
        LiteRtModel(weights("palm_detection_lite"), INPUT, OUTPUTS)


def test_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "text.tflite"
    path.write_text("not a model, though it has the name of one")
    with pytest.raises(UnexpectedModel, match=r"text\.tflite cannot be read"):
        LiteRtModel(path, INPUT, OUTPUTS)
