"""The three sizes of the manipulation transformer: numbers only.

Called by network.py and whoever names a size. `tiny` is trained from scratch and small enough for a CPU; `small` and
`large` stand on DINOv2 ViT-S/14 and ViT-L/14 (Oquab et al. 2023, arXiv 2304.07193), whose weights come from a folder.
All see 16 × 16 patches: 8 pixels of 128 or 14 of 224. `tiny` is made to learn as much as two CPU cores can teach in an
hour: its tokens look at each other on a grid of 8 × 8, and its decoders read that grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from models.errors import WrongInput

SizeName = Literal["tiny", "small", "large"]
GRID = 16
QUERIES = 10  # objects at most, and contact regions
CLASSES = 21  # of DexYCB's objects
CONTACT_TYPES = 4  # none, light, firm, manipulation
SHAPE_NUMBERS = 10


@dataclass(frozen=True, slots=True)
class Size:
    """One size."""

    name: SizeName
    image_px: int
    backbone_width: int
    backbone_layers: int
    backbone_heads: int
    frozen_layers: int  # of a pretrained backbone, counted from the picture
    width: int  # of the decoders
    heads: int
    hand_layers: int
    object_layers: int
    contact_layers: int
    memory_grid: int  # the decoders read so many tokens squared
    pretrained: bool


SIZES: dict[str, Size] = {
    "tiny": Size("tiny", 128, 128, 2, 4, 0, 128, 4, 2, 1, 1, 8, False),
    "small": Size("small", 224, 384, 12, 6, 6, 256, 8, 3, 3, 2, 16, True),
    "large": Size("large", 224, 1024, 24, 16, 12, 512, 8, 4, 4, 3, 16, True),
}


def size_named(name: str) -> Size:
    """The size; WrongInput lists which exist."""
    if name not in SIZES:
        raise WrongInput(f"unknown size {name!r}; there are {', '.join(get_args(SizeName))}")
    return SIZES[name]
