"""A picture → 16 × 16 patch tokens: a vision transformer from scratch, or DINOv2 with its published weights.

In: pictures (B, 3, S, S), 0 to 1. Out: Features. Called by network.py. Pretrained weights are loaded strictly from a
folder in the layout of the transformers library and never initialised again; a folder that does not fit is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import Dinov2Config, Dinov2Model

from models.errors import UnexpectedModel
from models.manipulation.attention import EncoderLayer
from models.manipulation.size import GRID, Size

# Mean and spread of ImageNet's pictures, which DINOv2 was trained with.
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALES = 4
# Widths of the maps of `tiny`: half, a quarter, an eighth of the picture's side.
STEM = (16, 32, 64)
# DINOv2's own pictures were this large; its position embeddings are interpolated to ours by the library.
DINO_PX, DINO_PATCH = 518, 14


@dataclass(frozen=True, slots=True)
class Features:
    """What a picture looks like."""

    cls_token: Tensor  # (B, C)
    patch_tokens: Tensor  # (B, 256, C), row by row
    multi_scale: Tensor  # (B, 256, C): a quarter each from four depths
    fine: Tensor  # (B, F, H, H) a map at least as fine as the patches

    @property
    def patch_grid(self) -> Tensor:
        """(B, 16, 16, C)."""
        return self.patch_tokens.unflatten(1, (GRID, GRID))


class Backbone(nn.Module):
    """What both backbones share: normalisation, and features from four depths."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.checkpointing = False
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("spread", torch.tensor(SPREAD).view(3, 1, 1))
        self.width = size.backbone_width

    def scales_of(self, widths: list[int]) -> nn.ModuleList:
        """What brings features of four depths to a quarter of the width each."""
        return nn.ModuleList(nn.Linear(width, self.width // SCALES) for width in widths)

    def save_memory(self, on: bool) -> None:
        """In training keep each layer's input only, and compute the rest again on the way back."""
        self.checkpointing = on


class TinyBackbone(Backbone):
    """Residual convolutions, then a vision transformer on 8 × 8 tokens, whose answers are laid over 16 × 16 patches.

    Convolutions first: a transformer on raw patches needs far more pictures (Xiao et al. 2021, arXiv 2106.14881). What
    the few tokens know of the whole is added to what the patches see (Lin et al. 2017, arXiv 1612.03144).
    """

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        width, (first, second, third) = size.backbone_width, STEM
        self.stem = nn.Sequential(_convolved(3, first, 2), _convolved(first, second, 2), Residual(second))
        self.middle = nn.Sequential(_convolved(second, third, 2), Residual(third))
        self.last = nn.Sequential(_convolved(third, width, 2), Residual(width))
        self.rows = nn.Parameter(0.2 * torch.randn(GRID // 2, 1, width))
        self.columns = nn.Parameter(0.2 * torch.randn(1, GRID // 2, width))
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.layers = nn.ModuleList(EncoderLayer(width, size.backbone_heads) for _ in range(size.backbone_layers))
        self.lateral, self.over = nn.Linear(third, width), nn.Linear(width, width)
        self.norm, self.patch_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.scales = self.scales_of([second, third, width, width])
        self.fine_width = second

    def forward(self, pictures: Tensor) -> Features:
        """(B, 3, 128, 128) → Features."""
        fine, middle, small, hidden = self._hidden(pictures)
        told = self.norm(hidden[-1])
        near = middle.flatten(2).mT
        tokens = self.patch_norm(self.lateral(near) + _doubled(self.over(told[:, 1:])))
        halved = functional.avg_pool2d(fine, 2).flatten(2).mT
        depths = (halved, near, small.flatten(2).mT, told[:, 1:])
        scales = [scale(part) for scale, part in zip(self.scales, depths, strict=True)]
        scales = [part if part.shape[1] == GRID * GRID else _doubled(part) for part in scales]
        return Features(told[:, 0], tokens, torch.cat(scales, -1), fine)

    def last_attention(self, pictures: Tensor) -> Tensor:
        """(B, heads, 65, 65) weights of the last layer: to be watched."""
        before = self._hidden(pictures)[-1][-2]
        return self.layers[-1].attention.weights(before, before)

    def _hidden(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Maps of 32 × 32, 16 × 16 and 8 × 8, and tokens after each layer."""
        # Channels last: a tenth faster on a CPU, and what tensor cores want.
        plain = ((pictures - self.mean) / self.spread).contiguous(memory_format=torch.channels_last)
        fine = self.stem(plain)
        middle = self.middle(fine)
        small = self.last(middle)
        tokens = small.flatten(2).mT + (self.rows + self.columns).flatten(0, 1)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        hidden = [tokens]
        for layer in self.layers:
            again = self.checkpointing and self.training
            hidden.append(checkpoint(layer, hidden[-1], use_reentrant=False) if again else layer(hidden[-1]))
        return fine, middle, small, hidden


class Residual(nn.Module):
    """Two convolutions whose sum with their input goes on (He et al. 2016, arXiv 1512.03385)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolved(width, width, 1)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, H) → (B, C, H, H)."""
        return functional.relu(maps + self.second(self.first(maps)))


def _convolved(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _doubled(tokens: Tensor) -> Tensor:
    """(B, 64, C) → (B, 256, C): each token four times."""
    grid = tokens.unflatten(1, (GRID // 2, GRID // 2))
    return grid.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)


class DinoBackbone(Backbone):
    """DINOv2 through the transformers library, its first layers frozen."""

    def __init__(self, size: Size, dino: Dinov2Model) -> None:
        super().__init__(size)
        self.dino, self.fine_width = dino, size.backbone_width
        self.depths = [round(size.backbone_layers * (k + 1) / SCALES) for k in range(SCALES)]
        self.scales = self.scales_of([size.backbone_width] * SCALES)
        self.frozen = [dino.embeddings, *dino.encoder.layer[: size.frozen_layers]]
        for part in self.frozen:
            part.requires_grad_(False)

    def save_memory(self, on: bool) -> None:
        """The library's own way."""
        if on:
            self.dino.activation_checkpointing_enable()
        else:
            self.dino.activation_checkpointing_disable()

    def forward(self, pictures: Tensor) -> Features:
        """(B, 3, 224, 224) → Features."""
        states = self.dino((pictures - self.mean) / self.spread, output_hidden_states=True)
        patches = states.last_hidden_state[:, 1:]
        fine = patches.mT.unflatten(2, (GRID, GRID))
        depths = [states.hidden_states[depth][:, 1:] for depth in self.depths]
        scales = [scale(depth) for scale, depth in zip(self.scales, depths, strict=True)]
        return Features(states.last_hidden_state[:, 0], patches, torch.cat(scales, -1), fine)


def dino_config(size: Size) -> Dinov2Config:
    """The published DINOv2 of this size."""
    return Dinov2Config(
        hidden_size=size.backbone_width, num_hidden_layers=size.backbone_layers,
        num_attention_heads=size.backbone_heads, image_size=DINO_PX, patch_size=DINO_PATCH,
    )  # fmt: skip


def load_dino(size: Size, folder: Path) -> Dinov2Model:
    """DINOv2 from a folder with config.json and weights. Raises UnexpectedModel if any tensor does not fit."""
    if not (folder / "config.json").is_file():
        raise UnexpectedModel(
            f"there is no DINOv2 in {folder}: expected config.json and model.safetensors, as "
            f"`huggingface-cli download facebook/dinov2-{size.name} --local-dir {folder}` writes them"
        )
    try:
        model, found = Dinov2Model.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UnexpectedModel(f"{folder} cannot be read as DINOv2: {' '.join(str(error).split())[:300]}") from error
    wrong = {kind: list(found.get(kind, ())) for kind in ("missing_keys", "mismatched_keys", "unexpected_keys")}
    if any(wrong.values()):
        kind, names = next((kind, names) for kind, names in wrong.items() if names)
        raise UnexpectedModel(f"{folder}: {kind.replace('_', ' ')} {', '.join(map(str, names[:3]))}; not DINOv2 as is")
    have, want = model.config, dino_config(size)
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size"):
        if getattr(have, name) != getattr(want, name):
            raise UnexpectedModel(
                f"{folder} holds a DINOv2 with {name} {getattr(have, name)}; size {size.name} needs "
                f"{getattr(want, name)}: facebook/dinov2-{size.name}"
            )
    return model
