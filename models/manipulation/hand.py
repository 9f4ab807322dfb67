"""The hand's head: 21 joint queries point into the picture → coarse joints → a second look at their very pixels.

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
from models.manipulation.pointing import Pointing
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
    pointing: Tensor  # (B, 21, 256) logits: in which patch
    shape: Tensor  # (B, 10) free numbers, for whom has shape labels
    queries: Tensor  # (B, 21, C) for the other heads
    root_m: Tensor  # (B, 3)


class HandHead(nn.Module):
    """Coarse by pointing, then refined twice, the second time half as far.

    Where a joint is in the picture is the mean place of a softmax over the patches (Sun et al. 2018, arXiv 1711.08229),
    and its depth is told as metres behind the wrist (Iqbal et al. 2018, arXiv 1804.09534): a place that is pointed at
    is learned from far fewer pictures than one that has to be said in metres.
    """

    def __init__(self, size: Size, fine_width: int) -> None:
        super().__init__()
        width, self.size_px = size.width, size.image_px
        self.queries = nn.Parameter(0.5 * torch.randn(1, JOINTS + 1, width))
        self.layers = nn.ModuleList(DecoderLayer(width, size.heads) for _ in range(size.hand_layers))
        self.point_at = Pointing(width)
        # Where beside the place that is pointed at, and how far behind the wrist.
        self.offset, self.confidence, self.log_width = head(width, 3), head(width, 1), head(width, 1)
        self.register_buffer("mean_depths_m", torch.zeros(JOINTS))
        self.register_buffer("not_wrist", (torch.arange(JOINTS) > 0).float())
        self.views = nn.Sequential(nn.Linear(3 * (JOINTS + 1) + 1, 64), nn.GELU(), nn.Linear(64, width))
        self.pooling, self.shape = nn.Linear(width, 1), head(width, SHAPE_NUMBERS)
        self.from_fine, self.from_grid = nn.Linear(fine_width, width), nn.Linear(width, width)
        self.point = nn.Sequential(nn.Linear(3, 64), nn.GELU(), nn.Linear(64, width))
        self.correct = nn.Sequential(
            nn.LayerNorm(3 * width), nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, 3)
        )
        for last in (self.offset[-1], self.correct[-1], self.log_width[-1]):
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    def forward(self, memory: Tensor, fine: Tensor, grid: Tensor, intrinsics: Tensor) -> HandOutput:
        """Memory (B, M, C), fine map (B, F, H, H), grid (B, C, 16, 16), intrinsics (B, 3, 3)."""
        queries = self.queries.expand(len(memory), -1, -1)
        for layer in self.layers:
            queries = layer(queries, memory)
        queries, whole = queries[:, :JOINTS], queries[:, JOINTS:]
        pointing = self.point_at(queries, grid)
        coarse = self._coarse(pointing, queries, whole, intrinsics)
        root = coarse[:, :1]
        offsets = coarse - root
        queries, pooled = self._seen_from_joints(offsets, queries)
        refined = self._refined(coarse, root, queries, (fine, grid), intrinsics)
        confidence = self.confidence(queries + whole)[..., 0]
        return HandOutput(coarse, refined, confidence, pointing, self.shape(pooled), queries, refined[:, 0])

    def _coarse(self, pointing: Tensor, queries: Tensor, whole: Tensor, intrinsics: Tensor) -> Tensor:
        """(B, 21, 3) on the rays of the places that the queries point at."""
        beside = self.offset(queries).float()
        place = self.point_at.place(pointing) + beside[..., :2]
        behind = self.not_wrist * (self.mean_depths_m + beside[..., 2] / PER_METRE)
        return back_project(place, self.log_width(whole)[..., 0], intrinsics, self.size_px, USUAL_WIDTH_M, behind)

    def _seen_from_joints(self, offsets_m: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Queries that know the predicted hand from every joint's frame, and their pool (B, C)."""
        index = torch.linspace(0, 1, JOINTS, device=queries.device, dtype=queries.dtype)
        seen = PER_METRE * in_every_frame(offsets_m)
        seen = self.views(torch.cat([seen, index[None, :, None].expand(len(seen), -1, 1)], -1))
        pooled = (self.pooling(seen).softmax(1) * seen).sum(1)
        return queries + seen + pooled[:, None], pooled

    def _refined(
        self, joints: Tensor, root: Tensor, queries: Tensor, maps: tuple[Tensor, Tensor], intrinsics: Tensor
    ) -> Tensor:
        """Moved by what is seen at the very pixel, and by what the patch around it is about."""
        for step in range(STEPS):
            pixels = project(joints, intrinsics)
            fine, grid = (sample(one.float(), pixels, self.size_px) for one in maps)
            seen = nn.functional.gelu(self.from_fine(fine) + self.from_grid(grid))
            told = self.correct(torch.cat([self.point(PER_METRE * (joints - root)), seen, queries], -1))
            joints = joints + 0.5**step * told / PER_METRE
        return joints
