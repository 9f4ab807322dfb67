"""Stage 2: what frames in a row say together, and where the hand will go: causal attention over a sliding window.

In: answers of single frames with their times. Out: Fused. Trained by train_jobs/manipulation/stage2.py. A frame sees
itself and the frames before it within the window, never a later one. Time enters as seconds (rotary positions), so the
rate may change and only differences count. Nothing is drawn to unit length: a rotation vector of no turn is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import WrongInput
from models.manipulation.attention import Mlp, head
from models.manipulation.hand import JOINTS, PER_METRE
from models.manipulation.network import Answer
from models.manipulation.size import Size

WINDOW = 12
LAYERS = 2
STEPS_AHEAD = 10
# Fastest and slowest turn of the rotary positions, in radians per second.
FASTEST, SLOWEST = 30.0, 0.3


@dataclass(frozen=True, slots=True)
class Frames:
    """What is known of T frames before any of them is seen beside another."""

    tokens: Tensor  # (B, T, 3, C): hand, objects, contacts
    joints_m: Tensor  # (B, T, 21, 3) camera frame
    time_s: Tensor  # (B, T), rising


@dataclass(frozen=True, slots=True)
class Fused:
    """What the frames say together."""

    features: Tensor  # (B, T, C)
    joints_m: Tensor  # (B, T, 21, 3)
    ee_target_poses: Tensor  # (B, T, 10, 6): the wrist's way from now, metres, and rotation vector, radians
    grasp_apertures_m: Tensor  # (B, T, 10): between the tips of thumb and index finger
    action_confidence: Tensor  # (B, T, 10) logits: is there a hand then


def frame_tokens(answer: Answer) -> Tensor:
    """(N, 3, C) of N single frames: the hand's, the objects' (the sure ones weigh more) and the contacts' queries."""
    sure = answer.objects.confidence_logits.softmax(-1)[..., None]
    parts = (answer.hand.queries.mean(1), (sure * answer.objects.queries).sum(1), answer.contacts.queries.mean(1))
    return torch.stack(parts, 1)


class TimedAttention(nn.Module):
    """Attention between frames whose queries and keys are turned by their time."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        pairs = width // heads // 2
        rates = torch.logspace(math.log10(FASTEST), math.log10(SLOWEST), pairs)
        self.register_buffer("rates", rates)

    def forward(self, tokens: Tensor, time_s: Tensor, allowed: Tensor) -> Tensor:
        """(B, T, C), (B, T), (T, T) bool → what to add."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.mix(self.norm(tokens)).chunk(3, -1)
        )
        angle = (time_s[..., None] * self.rates)[:, None]  # (B, 1, T, pairs)
        mixed = functional.scaled_dot_product_attention(_turned(q, angle), _turned(k, angle), v, attn_mask=allowed)
        return self.out(mixed.transpose(1, 2).flatten(2))


def _turned(vectors: Tensor, angle: Tensor) -> Tensor:
    """Pairs of numbers turned by an angle (Su et al. 2021, arXiv 2104.09864)."""
    first, second = vectors.chunk(2, -1)
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)


class TemporalFusion(nn.Module):
    """Fuses hand, objects and contacts over time, corrects the joints, and tells the next ten steps."""

    def __init__(self, size: Size, window: int = WINDOW) -> None:
        super().__init__()
        width, self.window = size.width, window
        self.modalities = nn.Parameter(0.02 * torch.randn(3, width))
        self.join = nn.Linear(3 * width, width)
        self.joints = nn.Linear(3 * JOINTS + 3, width)
        self.attentions = nn.ModuleList(TimedAttention(width, size.heads) for _ in range(LAYERS))
        self.mlps = nn.ModuleList(Mlp(width) for _ in range(LAYERS))
        self.correct, self.poses = head(width, 3 * JOINTS), head(width, 6 * STEPS_AHEAD)
        self.aperture, self.confidence = head(width, STEPS_AHEAD), head(width, STEPS_AHEAD)
        for last in (self.correct[-1], self.poses[-1], self.aperture[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def seen(self, count: int, device: torch.device | None = None) -> Tensor:
        """(T, T) bool: row t sees column s. Each layer looks `window` frames back, itself included."""
        age = torch.arange(count, device=device)[:, None] - torch.arange(count, device=device)[None]
        return (age >= 0) & (age < self.window)

    def forward(self, frames: Frames) -> Fused:
        """Frames → Fused. Raises WrongInput for times that do not rise."""
        if not bool((frames.time_s.diff(dim=1) > 0).all()):
            raise WrongInput("times of frames must rise from one to the next")
        joints, root = frames.joints_m, frames.joints_m[:, :, :1]
        place = torch.cat([(joints - root).flatten(2), root[:, :, 0]], -1)
        tokens = self.join((frames.tokens + self.modalities).flatten(2)) + self.joints(PER_METRE * place)
        allowed = self.seen(tokens.shape[1], tokens.device)
        time = frames.time_s - frames.time_s[:, -1:]  # only differences count: small numbers are exact
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            tokens = tokens + attention(tokens, time, allowed)
            tokens = tokens + mlp(tokens)
        corrected = joints + self.correct(tokens).unflatten(-1, (JOINTS, 3)) / PER_METRE
        scale = torch.tensor([1 / PER_METRE] * 3 + [1.0] * 3).to(tokens)
        poses = self.poses(tokens).unflatten(-1, (STEPS_AHEAD, 6)) * scale
        now = (corrected[:, :, 4] - corrected[:, :, 8]).norm(dim=-1)[..., None]
        aperture = functional.relu(now + self.aperture(tokens) / PER_METRE)
        return Fused(tokens, corrected, poses, aperture, self.confidence(tokens))
