"""The whole transformer: backbone, hand, objects, contacts, and the names that its answers go by.

In: pictures of right hands and the intrinsics of these very pictures. Out: Answer, or a dictionary of named tensors.
Called by train_jobs/manipulation and by whoever runs it. Weights come from checkpoint.py or from training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Dinov2Model

from models.errors import WrongInput
from models.manipulation.attention import reparametrise
from models.manipulation.backbone import Backbone, DinoBackbone, Features, TinyBackbone, dino_config, load_dino
from models.manipulation.hand import HandHead, HandOutput
from models.manipulation.size import GRID, Size
from models.manipulation.things import ContactHead, ContactOutput, ObjectHead, ObjectOutput


@dataclass(frozen=True, slots=True)
class Answer:
    """What the network says of B pictures."""

    hand: HandOutput
    objects: ObjectOutput
    contacts: ContactOutput
    features: Features


class ManipulationTransformer(nn.Module):
    """One picture with a hand → its joints, object poses, contacts."""

    def __init__(self, size: Size, backbone: Backbone, sigma_reparam: bool = False) -> None:
        super().__init__()
        self.size, self.backbone = size, backbone
        self.memory = nn.Linear(2 * size.backbone_width, size.width)
        self.whole = nn.Linear(size.backbone_width, size.width)
        self.hand = HandHead(size, backbone.fine_width)
        self.objects, self.contacts = ObjectHead(size), ContactHead(size)
        if sigma_reparam:
            for part in (self.hand, self.objects, self.contacts):
                reparametrise(part)

    def forward(self, pictures: Tensor, intrinsics: Tensor) -> Answer:
        """Pictures (B, 3, S, S), bytes or floats from 0 to 1; intrinsics (B, 3, 3) of them. Raises WrongInput."""
        self._check(pictures, intrinsics)
        pictures = pictures / 255 if pictures.dtype == torch.uint8 else pictures
        features = self.backbone(pictures)
        patches = self.memory(torch.cat([features.patch_tokens, features.multi_scale], -1))
        grid = patches.mT.unflatten(2, (GRID, GRID))
        read = functional.avg_pool2d(grid, GRID // self.size.memory_grid).flatten(2).mT
        memory = torch.cat([self.whole(features.cls_token)[:, None], read], 1)
        hand = self.hand(memory, features.fine, grid, intrinsics)
        things = self.objects(memory, grid, intrinsics)
        return Answer(hand, things, self.contacts(hand, things), features)

    def _check(self, pictures: Tensor, intrinsics: Tensor | None) -> None:
        want = (3, self.size.image_px, self.size.image_px)
        if pictures.ndim != 4 or tuple(pictures.shape[1:]) != want:
            raise WrongInput(f"pictures are {tuple(pictures.shape)}; size {self.size.name} takes (B, {want[0]}, "
                             f"{want[1]}, {want[2]}): crop and resize them, and their intrinsics too")  # fmt: skip
        if intrinsics is None or tuple(intrinsics.shape) != (len(pictures), 3, 3):
            have = None if intrinsics is None else tuple(intrinsics.shape)
            raise WrongInput(f"intrinsics are {have}, expected ({len(pictures)}, 3, 3): those of the crops, in pixels")


def named(answer: Answer, with_features: bool = False) -> dict[str, object]:
    """The answer under the published recipe's names; confidences as probabilities, metres, newtons."""
    hand, things, contacts = answer.hand, answer.objects, answer.contacts
    objects = {"object_positions": things.positions_m, "object_rotations": things.axes,
               "object_poses": torch.cat([things.positions_m, things.axes], -1)}  # fmt: skip
    joints = {"hand_joints_coarse": hand.coarse_m, "hand_joints": hand.joints_m,
              "hand_confidence": hand.confidence_logits.sigmoid(), "hand_shape": hand.shape}  # fmt: skip
    touches = {"contact_points": contacts.points_m, "contact_probs": contacts.confidence_logits.sigmoid(),
               "contact_forces": contacts.forces_n}  # fmt: skip
    found = things.confidence_logits.sigmoid()
    nested = {"hand": joints, "objects": {**objects, "confidence": found, "class_logits": things.class_logits},
              "contacts": {**touches, "type_logits": contacts.type_logits}}  # fmt: skip
    seen = answer.features
    features = {"features": {"cls_token": seen.cls_token, "patch_tokens": seen.patch_tokens,
                             "patch_grid": seen.patch_grid, "multi_scale": seen.multi_scale}}  # fmt: skip
    return {**joints, **objects, **touches, **nested, **(features if with_features else {})}


def build(size: Size, backbone_folder: Path | None = None, sigma_reparam: bool = False) -> ManipulationTransformer:
    """A network to be trained: heads at random; the backbone of `small` and `large` from a folder, never at random."""
    if not size.pretrained:
        return ManipulationTransformer(size, TinyBackbone(size), sigma_reparam)
    if backbone_folder is None:
        raise WrongInput(f"size {size.name} stands on DINOv2: name the folder with facebook/dinov2-{size.name}")
    return ManipulationTransformer(size, DinoBackbone(size, load_dino(size, backbone_folder)), sigma_reparam)


def empty(size: Size, sigma_reparam: bool = False) -> ManipulationTransformer:
    """The network without any values (torch's meta device): to count, or to be filled by a whole checkpoint."""
    with torch.device("meta"):
        backbone = DinoBackbone(size, Dinov2Model(dino_config(size))) if size.pretrained else TinyBackbone(size)
        return ManipulationTransformer(size, backbone, sigma_reparam)


def counts(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Parameters, and those of them that are trained, by part and in all."""
    sizes = {
        name: (
            sum(p.numel() for p in part.parameters()),
            sum(p.numel() for p in part.parameters() if p.requires_grad),
        )
        for name, part in network.named_children()
    }
    return {**sizes, "all": (sum(a for a, _ in sizes.values()), sum(b for _, b in sizes.values()))}
