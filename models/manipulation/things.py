"""The heads of objects and contacts: ten queries each.

In: memory tokens, the hand's output, intrinsics. Out: ObjectOutput, ContactOutput. Called by network.py. Object queries
are matched to objects in training (Hungarian); contact queries are regions of the hand, always the same ones. Types and
forces of contacts have heads, but neither DexYCB nor the synthetic hands label them: untrained, they mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.kinematics.rigid import rotation_from_axes
from models.manipulation.attention import DecoderLayer, head
from models.manipulation.geometry import back_project
from models.manipulation.hand import PER_METRE, USUAL_WIDTH_M, HandOutput
from models.manipulation.pointing import Pointing, centres
from models.manipulation.size import CLASSES, CONTACT_TYPES, QUERIES, Size

# The joint at the outer end of each region of the hand: five finger ends, then the five bones before them.
REGION_JOINTS = (4, 8, 12, 16, 20, 3, 7, 11, 15, 19)
# How far an object query's own part of the picture reaches; −1 to 1 is the picture.
PART = 0.5


@dataclass(frozen=True, slots=True)
class ObjectOutput:
    """Ten guesses at objects, in the camera's frame."""

    positions_m: Tensor  # (B, 10, 3)
    axes: Tensor  # (B, 10, 6): the first two columns of the rotation, not yet orthogonal
    confidence_logits: Tensor  # (B, 10)
    class_logits: Tensor  # (B, 10, 21)
    pointing: Tensor  # (B, 10, 256) logits: in which patch
    queries: Tensor  # (B, 10, C)

    def rotations(self) -> Tensor:
        """(B, 10, 3, 3) camera from object."""
        return rotation_from_axes(self.axes.float().unflatten(-1, (2, 3)).mT)


@dataclass(frozen=True, slots=True)
class ContactOutput:
    """Ten regions of the hand."""

    points_m: Tensor  # (B, 10, 3)
    confidence_logits: Tensor  # (B, 10)
    type_logits: Tensor  # (B, 10, 4), untrained without labels
    forces_n: Tensor  # (B, 10, 3), untrained without labels
    queries: Tensor  # (B, 10, C)


class ObjectHead(nn.Module):
    """Queries that look for objects in the picture, each first of all in its own part of it.

    Without parts of their own all ten start at the same place, and which of them an object is matched to is chance
    (Meng et al. 2021, arXiv 2108.06152, and others).
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size_px = size.image_px
        self.queries = nn.Parameter(0.1 * torch.randn(1, QUERIES, size.width))
        self.layers = nn.ModuleList(DecoderLayer(size.width, size.heads) for _ in range(size.object_layers))
        self.point_at = Pointing(size.width)
        self.register_buffer("own_part", own_parts())
        self.where, self.axes = head(size.width, 3), head(size.width, 6)
        self.confidence, self.kind = head(size.width, 1), head(size.width, CLASSES)

    def forward(self, memory: Tensor, grid: Tensor, intrinsics: Tensor) -> ObjectOutput:
        """Memory (B, M, C), the patches (B, C, 16, 16), intrinsics (B, 3, 3)."""
        queries = self.queries.expand(len(memory), -1, -1)
        for layer in self.layers:
            queries = layer(queries, memory)
        where, pointing = self.where(queries).float(), self.point_at(queries, grid) + self.own_part
        beside = self.point_at.place(pointing) + where[..., :2]
        place = back_project(beside, where[..., 2], intrinsics, self.size_px, USUAL_WIDTH_M)
        upright = torch.tensor([1.0, 0, 0, 0, 1, 0]).to(where)
        confidence = self.confidence(queries)[..., 0]
        axes = upright + self.axes(queries)
        return ObjectOutput(place, axes, confidence, self.kind(queries), pointing, queries)


def own_parts() -> Tensor:
    """(10, 256) what each query's pointing starts with: rows of three, four and three queries over the picture."""
    line = [
        (x, y) for y, xs in ((-0.5, (-0.5, 0, 0.5)), (0, (-0.6, -0.2, 0.2, 0.6)), (0.5, (-0.5, 0, 0.5))) for x in xs
    ]
    apart = centres() - torch.tensor(line)[:, None]
    return -(apart**2).sum(-1) / (2 * PART**2)


class ContactHead(nn.Module):
    """Regions of the hand that look at its joints and at the objects."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(1, QUERIES, size.width))
        self.layers = nn.ModuleList(DecoderLayer(size.width, size.heads) for _ in range(size.contact_layers))
        self.offset, self.confidence = head(size.width, 3), head(size.width, 1)
        self.kind, self.force = head(size.width, CONTACT_TYPES), head(size.width, 3)

    def forward(self, hand: HandOutput, things: ObjectOutput) -> ContactOutput:
        """Contacts between one hand and the objects."""
        memory = torch.cat([hand.queries, things.queries], 1)
        queries = self.queries + hand.queries[:, list(REGION_JOINTS)]
        for layer in self.layers:
            queries = layer(queries, memory)
        points = hand.joints_m[:, list(REGION_JOINTS)] + self.offset(queries) / PER_METRE
        return ContactOutput(points, self.confidence(queries)[..., 0], self.kind(queries), self.force(queries), queries)
