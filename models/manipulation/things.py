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
from models.manipulation.size import CLASSES, CONTACT_TYPES, QUERIES, Size

# The joint at the outer end of each region of the hand: five finger ends, then the five bones before them.
REGION_JOINTS = (4, 8, 12, 16, 20, 3, 7, 11, 15, 19)


@dataclass(frozen=True, slots=True)
class ObjectOutput:
    """Ten guesses at objects, in the camera's frame."""

    positions_m: Tensor  # (B, 10, 3)
    axes: Tensor  # (B, 10, 6): the first two columns of the rotation, not yet orthogonal
    confidence_logits: Tensor  # (B, 10)
    class_logits: Tensor  # (B, 10, 21)
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
    """Queries that look for objects in the picture."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size_px = size.image_px
        self.queries = nn.Parameter(0.1 * torch.randn(1, QUERIES, size.width))
        self.layers = nn.ModuleList(DecoderLayer(size.width, size.heads) for _ in range(size.object_layers))
        self.where, self.axes = head(size.width, 3), head(size.width, 6)
        self.confidence, self.kind = head(size.width, 1), head(size.width, CLASSES)

    def forward(self, memory: Tensor, intrinsics: Tensor) -> ObjectOutput:
        """Memory (B, M, C), intrinsics (B, 3, 3)."""
        queries = self.queries.expand(len(memory), -1, -1)
        for layer in self.layers:
            queries = layer(queries, memory)
        where = self.where(queries)
        place = back_project(where[..., :2], where[..., 2], intrinsics, self.size_px, USUAL_WIDTH_M)
        upright = torch.tensor([1.0, 0, 0, 0, 1, 0]).to(where)
        confidence = self.confidence(queries)[..., 0]
        return ObjectOutput(place, upright + self.axes(queries), confidence, self.kind(queries), queries)


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
