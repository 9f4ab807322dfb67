"""What a picture's truth is, for many pictures at once: tensors that stay where they are put, pictures as bytes.

In: tensors. Out: Samples. Made by synthetic.py and dexycb.py, changed by augment.py, consumed by the trainer. On a GPU
everything lives there (a picture is bytes: a hundred thousand of 128 px take 5 GB) and nothing is copied per step.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

# Objects in a picture at most; the first is the one that is held.
MOST_OBJECTS = 4


@dataclass(frozen=True, slots=True)
class Samples:
    """N pictures of right hands (left ones mirrored) in their camera's frame."""

    pictures: Tensor  # (N, 3, S, S) uint8
    intrinsics: Tensor  # (N, 3, 3) of these pictures, in pixels
    joints_m: Tensor  # (N, 21, 3); 0 where not labelled
    joints_labelled: Tensor  # (N, 21) bool
    has_hand: Tensor  # (N,) bool
    object_poses: Tensor  # (N, 4, 4, 4) camera from object
    object_kinds: Tensor  # (N, 4) of solids.py; −1: another shape, −2: no object
    object_halves_m: Tensor  # (N, 4, 3)
    object_classes: Tensor  # (N, 4); −1: not labelled
    contact_points_m: Tensor  # (N, 10, 3)
    touching: Tensor  # (N, 10) bool
    contacts_labelled: Tensor  # (N, 10) bool

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, rows: Tensor | slice) -> Samples:
        """These samples."""
        return Samples(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: torch.device | str) -> Samples:
        """On another device."""
        return Samples(*(getattr(self, field.name).to(device) for field in fields(self)))

    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def present(self) -> Tensor:
        """(N, 4) bool: is there this object."""
        return self.object_kinds > -2


def together(parts: list[Samples]) -> Samples:
    """One after the other."""
    return Samples(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Samples)))
