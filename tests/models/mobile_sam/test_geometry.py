"""Where pictures, prompts and masks lie on SAM's square."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.mobile_sam.geometry import Fit, prepare, stability, to_picture

sizes = st.integers(1, 5000)


@given(sizes, sizes)
def test_the_longest_side_fills_the_square_and_the_shape_is_kept(height, width):
    fit = Fit.of(height, width)
    assert max(fit.resized_height, fit.resized_width) == 1024
    assert abs(fit.resized_height - 1024 * height / max(height, width)) <= 0.5 or fit.resized_height == 1
    assert abs(fit.resized_width - 1024 * width / max(height, width)) <= 0.5 or fit.resized_width == 1


@given(sizes, sizes)
def test_the_corners_of_a_picture_are_the_corners_of_its_place(height, width):
    fit = Fit.of(height, width)
    corners = fit.to_square(np.array([[0, 0], [width, height]]))
    np.testing.assert_allclose(corners, [[0, 0], [fit.resized_width, fit.resized_height]], rtol=1e-6)
    assert corners.dtype == np.float32


def test_preparing_normalises_the_picture_and_pads_with_zeros():
    square, fit = prepare(np.full((100, 200, 3), (124, 116, 104), np.uint8))
    assert (fit.resized_height, fit.resized_width) == (512, 1024)
    expected = (np.array([124, 116, 104]) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(square[0, :, 0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(square[0, :, 511, 1023], expected, rtol=1e-5)
    assert not square[0, :, 512:].any()


def test_a_portrait_is_padded_on_the_right():
    square, _ = prepare(np.full((200, 100, 3), 255, np.uint8))
    assert (square[0, :, :, :512] > 0).all() and not square[0, :, :, 512:].any()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8 RGB"):
        prepare(image)


def test_an_empty_picture_is_refused():
    with pytest.raises(ValueError, match="0×5"):
        prepare(np.zeros((0, 5, 3), np.uint8))


@pytest.mark.parametrize("height, width", [(720, 1280), (1280, 720), (3, 900), (1024, 1024)])
def test_a_mask_comes_back_where_the_object_is(height, width):
    """Logits that say "left half of the picture" on the square say it in the picture, whatever its padding."""
    fit = Fit.of(height, width)
    centres = (torch.arange(256) + 0.5) * 4  # pixels of the square
    logits = (fit.resized_width / 2 - centres).expand(256, 256)
    mask = to_picture(logits, fit).numpy()
    assert mask.shape == (height, width)
    np.testing.assert_array_equal(mask, np.broadcast_to(np.arange(width) + 0.5 < width / 2, mask.shape))


def test_stability_is_the_ratio_of_areas_inside_the_picture():
    fit = Fit.of(512, 1024)  # shown on the upper 128 rows of logits
    logits = torch.full((256, 256), -9.0)
    logits[:10, :10] = 5.0
    logits[:10, 10:20] = 0.5  # between the two cuts
    logits[128:, :] = 0.5  # padding: says nothing
    assert stability(logits, fit) == 0.5


def test_nothing_segmented_is_not_stable():
    assert stability(torch.full((256, 256), -9.0), Fit.of(10, 10)) == 0.0
