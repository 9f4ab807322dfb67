"""The image encoder's sums in an order that suits a CPU: encoder.py's numbers within rounding, in half the time.

In: a filled ImageEncoder, then (1, 3, 1024, 1024) squares. Out: (1, 256, 64, 64) embeddings. Called by
network.py. Knows nothing of checkpoints or prompts.

Where the time goes in the plain network is memory as much as arithmetic: its early layers write 64 MB
tensors that no cache holds. So, with channels last throughout:
- batch norm is folded into its convolution, 1×1 convolutions are matrix products;
- layers go in strips of rows whose widest tensor stays in the cache (`strips`);
- attention windows are padded after the projection to q, k, v: padding is zeros, which project to one known
  row;
- below the picture the square is padding. Until the wide windows of the third stage mix all rows, features
  there are those of an empty square, computed once; only the rows that the picture reaches are computed
  again (`reach`).
"""

# B batch of one, H W positions, R rows of a strip, C channels

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from timm.models.tiny_vit import ConvNorm, MBConv, PatchEmbed, PatchMerging, TinyVitBlock
from torch import nn

from models.mobile_sam.encoder import ImageEncoder
from models.mobile_sam.geometry import SIDE_PX

# Floats of a strip's widest tensor: 4 MB. On an EPYC with 1 MB of L2 per core and 32 MB of L3 an early
# block takes 231 ms whole, 85 ms at twice this, 71 ms here and 70 ms at half of it.
STRIP_FLOATS = 1 << 20


class Layer(Protocol):
    """One step of the encoder on (1, H, W, C) features, able to compute only the upper rows of its output."""

    stride: int
    channels: int  # of the output

    def reach(self, rows: int) -> int:
        """How many rows of output can change when only the first `rows` rows of input do (uncapped)."""

    def write(self, x_BHWC: torch.Tensor, out_BHWC: torch.Tensor, rows: int) -> None:
        """Compute output rows [0, rows) from the whole input into `out_BHWC`."""


class LeanEncoder:
    """A frozen copy of an ImageEncoder for one CPU. Equal input and thread count give bit-equal output."""

    @torch.inference_mode()
    def __init__(self, encoder: ImageEncoder) -> None:
        trunk = encoder.trunk
        self._early: list[Layer] = [
            Stem(trunk.patch_embed),
            *(Bottleneck(block) for block in trunk.stages[0].blocks),
            Bottleneck(trunk.stages[1].downsample),
            *(WindowBlock(block) for block in trunk.stages[1].blocks),
            Bottleneck(trunk.stages[2].downsample),
        ]
        self._late: list[Layer] = [
            *(WindowBlock(block) for block in trunk.stages[2].blocks),
            Bottleneck(trunk.stages[3].downsample),
            *(WindowBlock(block) for block in trunk.stages[3].blocks),
        ]
        self._neck = encoder.neck.eval().to(memory_format=torch.channels_last)
        # About 75 MB: each early layer's output for a square that is all padding.
        self._empty = _run(self._early, torch.zeros(1, SIDE_PX, SIDE_PX, 3), SIDE_PX)

    @torch.inference_mode()
    def __call__(self, square_BCHW: torch.Tensor, picture_rows: int) -> torch.Tensor:
        """(1, 3, 1024, 1024) float32 → (1, 256, 64, 64). The square is zero from `picture_rows` on."""
        x_BHWC = square_BCHW.permute(0, 2, 3, 1).contiguous()
        x_BHWC = _run(self._early, x_BHWC, picture_rows, self._empty)[-1]
        x_BHWC = _run(self._late, x_BHWC, x_BHWC.shape[1])[-1]
        return self._neck(x_BHWC.permute(0, 3, 1, 2)).contiguous()


def _run(
    layers: Sequence[Layer], x_BHWC: torch.Tensor, rows: int, empty: Sequence[torch.Tensor] | None = None
) -> list[torch.Tensor]:
    """Every layer's output; rows that the first `rows` rows of `x_BHWC` do not reach are `empty`'s."""
    outputs = []
    for index, layer in enumerate(layers):
        _, height, width, _ = x_BHWC.shape
        out_BHWC = x_BHWC.new_empty(1, height // layer.stride, width // layer.stride, layer.channels)
        rows = min(layer.reach(rows), out_BHWC.shape[1])
        layer.write(x_BHWC, out_BHWC, rows)
        if rows < out_BHWC.shape[1]:
            assert empty is not None, "without an empty square's features every row must be computed"
            out_BHWC[:, rows:] = empty[index][:, rows:]
        outputs.append(out_BHWC)
        x_BHWC = out_BHWC
    return outputs


def strips(rows: int, floats_per_row: int) -> Iterator[tuple[int, int]]:
    """Row ranges [first, last) that cover [0, rows), each about STRIP_FLOATS wide."""
    step = max(1, STRIP_FLOATS // floats_per_row)
    return ((first, min(first + step, rows)) for first in range(0, rows, step))


class Conv3x3:
    """A 3×3 convolution with its batch norm folded in, on strips of rows."""

    def __init__(self, source: ConvNorm) -> None:
        weight, self.bias = folded(source)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.stride: int = source.conv.stride[0]
        self.groups: int = source.conv.groups

    def span(self, first: int, last: int, height: int) -> tuple[slice, tuple[int, int]]:
        """Input rows under output rows [first, last), and how many rows of zeros lie above and below them."""
        start, stop = self.stride * first - 1, self.stride * (last - 1) + 2
        return slice(max(start, 0), min(stop, height)), (max(-start, 0), max(stop - height, 0))

    def __call__(self, x_BRWC: torch.Tensor, zeros: tuple[int, int]) -> torch.Tensor:
        """(1, R, W, C) with the rows and zeros of `span` → (1, R', W', C'), columns padded by one."""
        x_BCRW = x_BRWC.permute(0, 3, 1, 2)
        if any(zeros):
            x_BCRW = F.pad(x_BCRW, (0, 0, *zeros))
        y_BCRW = F.conv2d(x_BCRW, self.weight, self.bias, self.stride, padding=(0, 1), groups=self.groups)
        return y_BCRW.permute(0, 2, 3, 1)


def folded(source: ConvNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the one convolution that equals `source`: convolution, then batch norm in eval mode."""
    norm = source.bn
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return source.conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


def folded_linear(source: ConvNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for a 1×1 convolution, as a matrix (out, in)."""
    weight, bias = folded(source)
    return weight.flatten(1).contiguous(), bias


class Stem:
    """Two 3×3 convolutions of stride 2 with a GELU between (timm's PatchEmbed)."""

    stride = 4

    def __init__(self, source: PatchEmbed) -> None:
        self._first, self._second = Conv3x3(source.conv1), Conv3x3(source.conv2)
        self.channels: int = source.conv2.conv.out_channels
        self._hidden: int = source.conv1.conv.out_channels

    def reach(self, rows: int) -> int:
        """Each convolution: output row i sees input rows 2i − 1 to 2i + 1."""
        return ((rows + 2) // 2 + 2) // 2

    def write(self, x_BHWC: torch.Tensor, out_BHWC: torch.Tensor, rows: int) -> None:
        """See Layer."""
        height, width = x_BHWC.shape[1:3]
        for first, last in strips(rows, 2 * (width // 2) * self._hidden):
            between, zeros_between = self._second.span(first, last, height // 2)
            under, zeros_under = self._first.span(between.start, between.stop, height)
            hidden_BRWC = F.gelu(self._first(x_BHWC[:, under], zeros_under))
            out_BHWC[:, first:last] = self._second(hidden_BRWC, zeros_between)


class Bottleneck:
    """Expand, 3×3 per channel, project: timm's PatchMerging, and its MBConv, which adds a sum and a GELU."""

    def __init__(self, source: MBConv | PatchMerging) -> None:
        self._expand, self._expand_bias = folded_linear(source.conv1)
        self._spread = Conv3x3(source.conv2)
        self._project, self._project_bias = folded_linear(source.conv3)
        self._residual = isinstance(source, MBConv)
        self.stride = self._spread.stride
        self.channels: int = source.conv3.conv.out_channels

    def reach(self, rows: int) -> int:
        """Output row i sees input rows up to stride·i + 1."""
        return (rows + self.stride) // self.stride

    def write(self, x_BHWC: torch.Tensor, out_BHWC: torch.Tensor, rows: int) -> None:
        """See Layer."""
        height, width = x_BHWC.shape[1:3]
        for first, last in strips(rows, self.stride * width * len(self._expand)):
            under, zeros = self._spread.span(first, last, height)
            hidden_BRWC = F.gelu(F.linear(x_BHWC[:, under], self._expand, self._expand_bias))
            hidden_BRWC = F.gelu(self._spread(hidden_BRWC, zeros))
            y_BRWC = F.linear(hidden_BRWC, self._project, self._project_bias)
            out_BHWC[:, first:last] = F.gelu(y_BRWC.add_(x_BHWC[:, first:last])) if self._residual else y_BRWC


class WindowBlock:
    """Attention inside square windows, a 3×3 convolution per channel, an MLP (timm's TinyVitBlock)."""

    stride = 1

    def __init__(self, source: TinyVitBlock) -> None:
        attention = source.attn
        self.channels: int = source.dim
        self._window: int = source.window_size
        self._heads: int = attention.num_heads
        self._norm, self._qkv, self._proj = attention.norm, attention.qkv, attention.proj
        # A padded position holds zeros, so its norm is the norm's bias.
        self._qkv_of_padding = self._qkv(self._norm.bias)
        # Four axes, else torch leaves its fast CPU kernel for the plain one.
        self._bias_1hNN = attention.attention_biases[:, attention.attention_bias_idxs][None].contiguous()
        self._conv = Conv3x3(source.local_conv)
        self._mlp: nn.Module = source.mlp.eval()
        self._mlp_channels: int = source.mlp.fc1.out_features

    def reach(self, rows: int) -> int:
        """To the end of the last window touched, and one row on through the convolution."""
        return -(-rows // self._window) * self._window + 1

    def write(self, x_BHWC: torch.Tensor, out_BHWC: torch.Tensor, rows: int) -> None:
        """See Layer."""
        height, width = x_BHWC.shape[1:3]
        attended_BHWC = torch.empty_like(x_BHWC)
        for first in range(0, min(rows + 1, height), self._window):  # the convolution sees one row further
            band = slice(first, min(first + self._window, height))
            torch.add(x_BHWC[:, band], self._attend(x_BHWC[:, band]), out=attended_BHWC[:, band])
        for first, last in strips(rows, width * self._mlp_channels):
            under, zeros = self._conv.span(first, last, height)
            y_BRWC = self._conv(attended_BHWC[:, under], zeros)
            torch.add(y_BRWC, self._mlp(y_BRWC), out=out_BHWC[:, first:last])

    def _attend(self, x_BRWC: torch.Tensor) -> torch.Tensor:
        """Attention of one band of windows, (1, R ≤ window, W, C) → the same shape."""
        side, heads = self._window, self._heads
        _, rows, width, channels = x_BRWC.shape
        count = -(-width // side)
        qkv = self._qkv_of_padding.expand(side, count * side, -1).contiguous()
        qkv[:rows, :width] = self._qkv(self._norm(x_BRWC[0]))
        windows = qkv.view(side, count, side, heads, -1).transpose(0, 1).reshape(count, side * side, heads, -1)
        q, k, v = windows.transpose(1, 2).chunk(3, dim=-1)  # each (windows, heads, N, channels of a head)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias_1hNN)
        mixed = mixed.transpose(1, 2).reshape(count, side, side, channels).transpose(0, 1)
        return self._proj(mixed.reshape(side, count * side, channels)[:rows, :width])[None]
