"""Attention blocks: pre-norm, scaled dot products, and σReparam for those who want it.

In and out: tokens (B, N, C). Called by the backbone of size `tiny`, the decoders and the temporal fusion.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

MLP_RATIO = 3


class Attention(nn.Module):
    """Multi-head attention from queries to memory, each normalised before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.memory_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, memory: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, Q, C) and (B, M, C) → what to add to the queries. `allowed` (Q, M) or (B, 1, Q, M) bool, True = seen."""
        q, k, v = self._split(queries, memory)
        if q.dtype == torch.bfloat16 and q.device.type == "cpu":
            # The CPU's fused kernel takes 1.4 times as long in bf16 as in float32.
            q, k, v = q.float(), k.float(), v.float()
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def weights(self, queries: Tensor, memory: Tensor) -> Tensor:
        """(B, heads, Q, M) of the same attention: for monitors, not used in forward."""
        q, k, _ = self._split(queries, memory)
        return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)

    def _split(self, queries: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = self.query(self.query_norm(queries))
        k, v = self.key_value(self.memory_norm(memory)).chunk(2, -1)
        parts = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        return tuple(parts)


class Mlp(nn.Sequential):
    """Norm, widen, GELU, narrow."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.LayerNorm(width), nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )


class EncoderLayer(nn.Module):
    """Tokens look at each other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(width, heads), Mlp(width)

    def forward(self, tokens: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, N, C) → (B, N, C)."""
        tokens = tokens + self.attention(tokens, tokens, allowed)
        return tokens + self.mlp(tokens)


class DecoderLayer(nn.Module):
    """Queries look at each other, then at the memory."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.among, self.across, self.mlp = Attention(width, heads), Attention(width, heads), Mlp(width)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """(B, Q, C), (B, M, C) → (B, Q, C)."""
        queries = queries + self.among(queries, queries)
        queries = queries + self.across(queries, memory)
        return queries + self.mlp(queries)


def head(width: int, outputs: int) -> nn.Sequential:
    """Two layers that write numbers from a query."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, outputs))


class SigmaReparam(nn.Module):
    """W → γ W / σ(W) with the spectral norm σ and a learned γ (Zhai et al. 2023, arXiv 2303.06296).

    γ starts at σ(W), so that putting it on changes nothing. σ is followed by one power iteration per training step.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        left, size, right = torch.linalg.svd(weight.detach().float(), full_matrices=False)
        self.scale = nn.Parameter(size[0].to(weight.dtype))
        self.register_buffer("left", left[:, 0].to(weight.dtype))
        self.register_buffer("right", right[0].to(weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        """The matrix that the layer uses."""
        if self.training:
            with torch.no_grad():
                self.right.copy_(functional.normalize(weight.mT @ self.left, dim=0))
                self.left.copy_(functional.normalize(weight @ self.right, dim=0))
        return self.scale * weight / (self.left.clone() @ weight @ self.right.clone())


def reparametrise(module: nn.Module) -> int:
    """Put σReparam on every linear layer of every Attention below `module`; how many."""
    layers = [layer for part in module.modules() if isinstance(part, Attention)
              for layer in (part.query, part.key_value, part.out)]  # fmt: skip
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", SigmaReparam(layer.weight))
    return len(layers)
