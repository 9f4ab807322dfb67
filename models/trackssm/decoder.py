"""The flow decoder: a chain of heads that move a box step by step along the flow that the encoder saw.

In: a start box (B, 4) and the flow feature (B, E). Out: the boxes after each head (H, B, 4) and the last recurrent
state. Used by network.py; residual.py shares the flow step. Names are those of the public files
(`ssm_decoder.head_series.N.*`).

Δ, B and C come from the flow feature and the driven input from the box: the box is carried along the flow. The state
passes from head to head. Box and state are detached between heads, so each head learns its own step. The first head has
no state before it, so the decay of the state, its `A_log`, is in the files but has no part in any box: it is not
trained.
"""

# B tracks, H heads, E width, N state, R rank of Δ

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.trackssm.mamba import delta_projection, initial_a_log
from models.trackssm.size import Size

SINE_PERIOD = 10000.0


class FlowStep(nn.Module):
    """One state-space step from a code of the box to a feature of the moved box."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width, hidden, state = size.width, size.hidden, size.state
        self.rank, self.state = math.ceil(width / 16), state
        self.in_proj = nn.Linear(width, 2 * width, bias=False)
        self.x_proj = nn.Linear(width, self.rank + 2 * state, bias=False)
        self.dt_proj = delta_projection(self.rank, width)
        self.A_log = nn.Parameter(initial_a_log(width, state))
        self.D = nn.Parameter(torch.ones(width))
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width)

    def step(self, code: Tensor, flow: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, E) code of the box, (B, E) flow, state (B, E, N) or None → feature (B, E), new state."""
        u, gate = self.in_proj(code).chunk(2, dim=-1)
        u = F.silu(u)
        delta, b, c = self.x_proj(flow).split([self.rank, self.state, self.state], dim=-1)
        delta = F.softplus(self.dt_proj(delta))
        driven = (delta * u)[..., None] * b[:, None]
        if h is not None:
            driven = torch.addcmul(driven, torch.exp(delta[..., None] * -torch.exp(self.A_log)), h)
        y = torch.bmm(driven, c[..., None])[..., 0]
        y = torch.addcmul(y, u, self.D) * F.silu(gate)
        return self.norm2(y + self.linear2(F.relu(self.linear1(y)))), driven


def in_a_row[H: FlowStep](heads: Iterable[H]) -> nn.ModuleList:
    """Heads after each other. What the first has no use for asks for no gradient, which distributed training awaits."""
    series = list(heads)
    series[0].A_log.requires_grad_(False)
    return nn.ModuleList(series)


class FlowHead(FlowStep):
    """A flow step whose code is the sine code of the box and whose output is the next box."""

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self.normal_bboxes = nn.Linear(size.width, 4)

    def forward(self, box: Tensor, flow: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """Box (B, 4) normalised cx cy w h → next box before any sigmoid, new state."""
        feature, h = self.step(sine_code(box, flow.shape[-1]), flow, h)
        return self.normal_bboxes(feature), h


def sine_code(box: Tensor, width: int) -> Tensor:
    """(B, 4) → (B, width): for each coordinate width/4 numbers, sine and cosine of 2π·x over rising periods."""
    per_axis = width // 4
    place = torch.arange(per_axis, dtype=box.dtype, device=box.device)
    period = SINE_PERIOD ** (2 * torch.div(place, 2, rounding_mode="floor") / per_axis)
    angle = (box * 2 * math.pi)[..., None] / period
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1).flatten(-3)


class FlowDecoder(nn.Module):
    """Heads in a row. `sigmoid` bounds every box to the unit square, as some published weights need."""

    def __init__(self, size: Size, sigmoid: bool) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.head_series = in_a_row(FlowHead(size) for _ in range(size.heads))

    def forward(self, box: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Start box (B, 4), flow (B, E) → boxes after each head (H, B, 4), last state (B, E, N)."""
        boxes, h = [], None
        for head in self.head_series:
            box, h = head(box, flow, h)
            box = torch.sigmoid(box) if self.sigmoid else box
            boxes.append(box)
            box, h = box.detach(), h.detach()
        return torch.stack(boxes), h
