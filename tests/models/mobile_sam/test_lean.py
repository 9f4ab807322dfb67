"""The CPU encoder against the plain one, with random weights: equal within rounding, for every height of picture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.tiny_vit import MBConv, PatchEmbed, PatchMerging, TinyVitBlock
from torch import nn

from models.mobile_sam.encoder import ImageEncoder
from models.mobile_sam.lean import Bottleneck, LeanEncoder, Stem, WindowBlock, strips


def randomised(module: nn.Module) -> nn.Module:
    """Random weights everywhere: the initial ones hide terms (zero biases, unit norms, zero last norms)."""
    generator = torch.Generator().manual_seed(7)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.data.uniform_(0.5, 1.5, generator=generator)
        else:
            fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 4
            tensor.data.normal_(0, fan_in**-0.5, generator=generator)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return randomised(ImageEncoder())


@pytest.fixture(scope="module")
def lean(encoder) -> LeanEncoder:
    return LeanEncoder(encoder)


def noise(rows: int) -> torch.Tensor:
    square = torch.zeros(1, 3, 1024, 1024)
    square[:, :, :rows] = torch.randn(1, 3, rows, 1024, generator=torch.Generator().manual_seed(rows))
    return square


@pytest.mark.parametrize("rows", [1, 576, 1024])
def test_equals_the_plain_encoder(encoder, lean, rows):
    square = noise(rows)
    with torch.inference_mode():
        plain = encoder(square)
    torch.testing.assert_close(lean(square, rows), plain, atol=1e-4, rtol=0)


def test_gives_the_same_bits_again_after_other_work(lean):
    square = noise(576)
    first = lean(square, 576)
    lean(noise(800), 800)
    assert torch.equal(lean(square, 576), first)


LAYERS = {
    "stem": lambda: (PatchEmbed(3, 8, nn.GELU), Stem, 3),
    "bottleneck": lambda: (MBConv(8, 8, 2.0, nn.GELU, 0.0), Bottleneck, 8),
    "downsampling": lambda: (PatchMerging(8, 12, nn.GELU), Bottleneck, 8),
    "windows": lambda: (TinyVitBlock(8, 2, window_size=7), WindowBlock, 8),
}


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(LAYERS)), st.integers(1, 40), st.sampled_from([40, 48, 56]))
def test_reach_names_every_row_that_can_change(kind, rows, height):
    """Change the first rows of the input: output below `reach` stays, and computing only `reach` rows is enough."""
    source, lean_class, channels = LAYERS[kind]()
    layer = lean_class(randomised(source))
    x = torch.randn(1, height, 16, channels, generator=torch.Generator().manual_seed(rows))
    changed = x.clone()
    changed[:, :rows] += 1.0
    out = [torch.empty(1, height // layer.stride, 16 // layer.stride, layer.channels) for _ in range(3)]
    with torch.inference_mode():
        layer.write(x, out[0], out[0].shape[1])
        layer.write(changed, out[1], out[1].shape[1])
        reach = min(layer.reach(rows), out[0].shape[1])
        layer.write(changed, out[2], reach)
    torch.testing.assert_close(out[0][:, reach:], out[1][:, reach:], atol=1e-5, rtol=0)
    torch.testing.assert_close(out[1][:, :reach], out[2][:, :reach], atol=1e-5, rtol=0)


@given(st.integers(0, 300), st.integers(1, 1 << 23))
def test_strips_cover_every_row_once(rows, floats_per_row):
    covered = [row for first, last in strips(rows, floats_per_row) for row in range(first, last)]
    assert covered == list(range(rows))
