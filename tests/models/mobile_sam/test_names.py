"""Filling MobileSAM from its checkpoint: a bijection, and errors that name the tensors."""

from __future__ import annotations

import pytest
import torch

from models.errors import UnexpectedModel
from models.mobile_sam.names import UNUSED, fill, our_name
from models.mobile_sam.network import MobileSam


@pytest.fixture(scope="module")
def checkpoint(weights) -> dict[str, torch.Tensor]:
    return torch.load(weights("mobile_sam"), weights_only=True)


@pytest.fixture(scope="module")
def random_model() -> MobileSam:
    """A model with random weights."""
    torch.manual_seed(0)
    return MobileSam()


def test_every_tensor_has_one_place_and_every_place_one_tensor(checkpoint, random_model):
    names = [name for key in checkpoint if (name := our_name(key)) is not None]
    assert len(names) == len(set(names))
    assert set(names) == set(random_model.state_dict())
    unused = [key for key in checkpoint if our_name(key) is None]
    assert sorted(unused) == [
        "image_encoder.head.bias",
        "image_encoder.head.weight",
        "image_encoder.norm_head.bias",
        "image_encoder.norm_head.weight",
    ]
    assert all(any(key.startswith(prefix) for key in unused) for prefix in UNUSED)


def test_filling_leaves_no_random_number(checkpoint, random_model):
    fill(random_model, checkpoint)
    filled = random_model.state_dict()
    for key, tensor in checkpoint.items():
        name = our_name(key)
        assert name is None or torch.equal(filled[name], tensor), key


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("mask_decoder.iou_token.weight"), r"missing: masks\.iou_token\.weight$"),
        (lambda c: c.update(surprise=torch.zeros(1)), r"not expected: surprise$"),
        (
            lambda c: c.update({"mask_decoder.iou_token.weight": torch.zeros(2, 256)}),
            r"of another shape: masks\.iou_token\.weight \(2, 256\) instead of \(1, 256\)$",
        ),
        # Two tensors for one place: the old name beside the new one.
        (lambda c: c.update({"masks.iou_token.weight": torch.zeros(1, 256)}), r"given twice: masks\.iou_token"),
    ],
)
def test_a_wrong_checkpoint_is_refused_by_tensor_name(checkpoint, random_model, change, message):
    wrong = dict(checkpoint)
    change(wrong)
    with pytest.raises(UnexpectedModel, match=message):
        fill(random_model, wrong)
