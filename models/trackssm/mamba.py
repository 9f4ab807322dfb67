"""Mamba blocks in plain torch for the short histories of a tracker: history → one flow feature.

In: (B, L, F) tokens, oldest first. Out: (B, E), the last token after all blocks. Used by network.py and residual.py.
Parameter names and arithmetic are those of mamba-ssm 1.2 (Gu and Dao 2023, algorithm 2), so that the public weights
load; no CUDA kernel is needed, because at a handful of tokens the recurrence costs less than the projections.
"""

# B tracks, L tokens, F inputs, E model width, D inner width, N state, R rank of Δ

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RMS_EPS = 1e-5
CONV_TAPS = 4
# Δ of a fresh network: log-uniform between these (mamba-ssm's own start).
DT_MIN, DT_MAX = 1e-3, 1e-1
# Numbers of state that a scan works on at once: as many as stay in a core's cache with what is made of them.
MOST_STATE = 2**17


class RMSNorm(nn.Module):
    """x / √(mean x² + ε) · weight, over the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) → (..., E)."""
        return F.rms_norm(x, (x.shape[-1],), self.weight, RMS_EPS)


def selective_scan(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """y_t = C_t·h_t with h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t, h before the first token zero.

    u, delta (B, L, D); a (D, N) negative; b, c (B, L, N) → (B, L, D). The D·u term is the caller's.
    """
    at_once = max(1, MOST_STATE // a.numel())
    if len(u) > at_once:
        parts = zip(*(x.split(at_once) for x in (u, delta, b, c)), strict=True)
        return torch.cat([selective_scan(u_, delta_, a, b_, c_) for u_, delta_, b_, c_ in parts])
    driven = delta * u
    # The state lies as (B, N, D): every product then runs along D, which is long, and not along N, which is 8 or 16.
    rates = a.t().contiguous()
    h = driven[:, 0, None] * b[:, 0, :, None]
    outputs = [_read(h, c[:, 0])]
    for t in range(1, u.shape[1]):
        h = torch.addcmul(driven[:, t, None] * b[:, t, :, None], torch.exp(delta[:, t, None] * rates), h)
        outputs.append(_read(h, c[:, t]))
    return torch.stack(outputs, dim=1)


def _read(state_BND: Tensor, c_BN: Tensor) -> Tensor:
    return torch.bmm(c_BN[:, None], state_BND)[:, 0]


class Mixer(nn.Module):
    """Mamba's mixer: gated causal convolution and selective scan."""

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.inner, self.rank, self.state = 2 * width, math.ceil(width / 16), state
        self.in_proj = nn.Linear(width, 2 * self.inner, bias=False)
        self.conv1d = nn.Conv1d(self.inner, self.inner, CONV_TAPS, groups=self.inner, padding=CONV_TAPS - 1)
        self.x_proj = nn.Linear(self.inner, self.rank + 2 * state, bias=False)
        self.dt_proj = delta_projection(self.rank, self.inner)
        self.A_log = nn.Parameter(initial_a_log(self.inner, state))
        self.D = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, width, bias=False)

    def forward(self, x: Tensor, only_last: bool = False) -> Tensor:
        """(B, L, E) → (B, L, E), or (B, 1, E) for the last token alone."""
        u, gate = self._gated(x, only_last)
        u = F.silu(self._convolved(u))
        delta, b, c = self.x_proj(u).split([self.rank, self.state, self.state], dim=-1)
        y = selective_scan(u, F.softplus(self.dt_proj(delta)), -torch.exp(self.A_log), b, c)
        if only_last:
            y, u = y[:, -1:], u[:, -1:]
        return self.out_proj(torch.addcmul(y, u, self.D) * F.silu(gate))

    def _gated(self, x: Tensor, only_last: bool) -> tuple[Tensor, Tensor]:
        if not only_last:
            return self.in_proj(x).chunk(2, dim=-1)
        value, gate = self.in_proj.weight.chunk(2)
        return F.linear(x, value), F.linear(x[:, -1:], gate)

    def _convolved(self, u: Tensor) -> Tensor:
        """Causal depthwise convolution as a sum of shifted tokens: quicker than conv1d at a handful of them."""
        length = u.shape[1]
        padded = F.pad(u, (0, 0, CONV_TAPS - 1, 0))
        taps = self.conv1d.weight[:, 0]
        out = torch.addcmul(self.conv1d.bias, padded[:, :length], taps[:, 0])
        for k in range(1, CONV_TAPS):
            out = torch.addcmul(out, padded[:, k : k + length], taps[:, k])
        return out


class Block(nn.Module):
    """Norm, then mixer; the residual sum is the caller's."""

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.mixer = Mixer(width, state)
        self.norm = RMSNorm(width)

    def forward(self, x: Tensor, only_last: bool = False) -> Tensor:
        """(B, L, E) → mixer output (B, L or 1, E)."""
        return self.mixer(self.norm(x), only_last)


class MambaNet(nn.Module):
    """Blocks between a bias-free embedding and a final norm. `embedding.weight` is a matrix, not a table."""

    def __init__(self, inputs: int, width: int, layers: int, state: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(inputs, width)
        self.layers = nn.ModuleList(Block(width, state) for _ in range(layers))
        self.norm_f = RMSNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        for block in self.layers:
            nn.init.kaiming_uniform_(block.mixer.out_proj.weight, a=math.sqrt(5))
            with torch.no_grad():
                block.mixer.out_proj.weight /= math.sqrt(layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, F) → (B, E): the last token after all blocks. Earlier tokens of the last block are not computed."""
        x = x @ self.embedding.weight
        for block in self.layers[:-1]:
            x = x + block(x)
        return self.norm_f(x[:, -1:] + self.layers[-1](x, only_last=True))[:, 0]


class Encoder(nn.Module):
    """History → flow feature. The extra level exists for the public files' names."""

    def __init__(self, inputs: int, width: int, layers: int, state: int) -> None:
        super().__init__()
        self.mamba_net = MambaNet(inputs, width, layers, state)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, F) → (B, E)."""
        return self.mamba_net(x)


def initial_a_log(rows: int, state: int) -> Tensor:
    """log(1..N) in each of `rows` rows: S4D-real."""
    return torch.log(torch.arange(1, state + 1, dtype=torch.float32)).repeat(rows, 1)


def delta_projection(rank: int, width: int) -> nn.Linear:
    """R → D with a bias whose softplus is log-uniform in [DT_MIN, DT_MAX]."""
    projection = nn.Linear(rank, width)
    nn.init.uniform_(projection.weight, -(rank**-0.5), rank**-0.5)
    dt = torch.exp(torch.rand(width) * (math.log(DT_MAX) - math.log(DT_MIN)) + math.log(DT_MIN))
    with torch.no_grad():
        projection.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
    return projection
