"""The hand's head: 21 joint queries → coarse joints → a second look at the very pixels they project to.

In: memory tokens, a fine map, intrinsics of the crop. Out: HandOutput. Called by network.py. Hands are right hands:
left ones are mirrored before, with their picture. Joints are those of MediaPipe and DexYCB: the wrist, then four each
from thumb to little finger.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.manipulation.attention import DecoderLayer, head
from models.manipulation.geometry import back_project, in_every_frame, project, sample
from models.manipulation.size import SHAPE_NUMBERS, Size

JOINTS = 21
STEPS = 2
# Joints are decimetres apart: brought near 1 for the network.
PER_METRE = 10.0
USUAL_WIDTH_M = 0.25


@dataclass(frozen=True, slots=True)
class HandOutput:
    """One hand per picture, in the camera's frame."""

    coarse_m: Tensor  # (B, 21, 3)
    joints_m: Tensor  # (B, 21, 3)
    confidence_logits: Tensor  # (B, 21): is there this joint of a hand
    shape: Tensor  # (B, 10) free numbers, for whom has shape labels
    queries: Tensor  # (B, 21, C) for the other heads
    root_m: Tensor  # (B, 3)


class HandHead(nn.Module):
    """Coarse by attention, then refined twice, the second time half as far."""

    def __init__(self, size: Size, fine_width: int) -> None:
        super().__init__()
        width, self.size_px = size.width, size.image_px
        self.queries = nn.Parameter(0.02 * torch.randn(1, JOINTS + 1, width))
        self.layers = nn.ModuleList(DecoderLayer(width, size.heads) for _ in range(size.hand_layers))
        self.offset, self.confidence, self.root = head(width, 3), head(width, 1), head(width, 3)
        self.register_buffer("mean_joints_m", torch.zeros(JOINTS, 3))
        self.register_buffer("not_wrist", (torch.arange(JOINTS) > 0).float()[:, None])
        self.views = nn.Sequential(nn.Linear(3 * (JOINTS + 1) + 1, 64), nn.GELU(), nn.Linear(64, width))
        self.pooling, self.shape = nn.Linear(width, 1), head(width, SHAPE_NUMBERS)
        self.fine = nn.Sequential(nn.Conv2d(fine_width + width, width, 1), nn.GELU(), nn.Conv2d(width, width, 3, 1, 1))
        self.point = nn.Sequential(nn.Linear(3, 64), nn.GELU(), nn.Linear(64, width))
        self.correct = nn.Sequential(
            nn.LayerNorm(3 * width), nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, 3)
        )
        for last in (self.offset[-1], self.correct[-1], self.root[-1]):
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    def forward(self, memory: Tensor, fine: Tensor, grid: Tensor, intrinsics: Tensor) -> HandOutput:
        """Memory (B, M, C), fine map (B, F, H, H), grid (B, C, 16, 16), intrinsics (B, 3, 3)."""
        queries = self.queries.expand(len(memory), -1, -1)
        for layer in self.layers:
            queries = layer(queries, memory)
        queries, whole = queries[:, :JOINTS], queries[:, JOINTS:]
        where = self.root(whole)
        root = back_project(where[..., :2], where[..., 2], intrinsics, self.size_px, USUAL_WIDTH_M)
        offsets = (self.mean_joints_m + self.offset(queries) / PER_METRE) * self.not_wrist
        coarse = root + offsets
        queries, pooled = self._seen_from_joints(offsets, queries)
        refined = self._refined(coarse, root, queries, self._pyramid(fine, grid), intrinsics)
        confidence = self.confidence(queries + whole)[..., 0]
        return HandOutput(coarse, refined, confidence, self.shape(pooled), queries, root[:, 0])

    def _seen_from_joints(self, offsets_m: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Queries that know the predicted hand from every joint's frame, and their pool (B, C)."""
        index = torch.linspace(0, 1, JOINTS, device=queries.device, dtype=queries.dtype)
        seen = PER_METRE * in_every_frame(offsets_m)
        seen = self.views(torch.cat([seen, index[None, :, None].expand(len(seen), -1, 1)], -1))
        pooled = (self.pooling(seen).softmax(1) * seen).sum(1)
        return queries + seen + pooled[:, None], pooled

    def _pyramid(self, fine: Tensor, grid: Tensor) -> Tensor:
        size = max(fine.shape[-1], 32)
        maps = [nn.functional.interpolate(part, size=(size, size), mode="bilinear") for part in (fine, grid)]
        return self.fine(torch.cat(maps, 1))

    def _refined(self, joints: Tensor, root: Tensor, queries: Tensor, maps: Tensor, intrinsics: Tensor) -> Tensor:
        for step in range(STEPS):
            seen = sample(maps, project(joints, intrinsics), self.size_px)
            told = self.correct(torch.cat([self.point(PER_METRE * (joints - root)), seen, queries], -1))
            joints = joints + 0.5**step * self.not_wrist * told / PER_METRE
        return joints
