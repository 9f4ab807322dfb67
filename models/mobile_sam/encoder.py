"""MobileSAM's image encoder as an architecture: timm's TinyViT-5M plus SAM's neck.

In: (1, 3, 1024, 1024) normalised pictures. Out: (1, 256, 64, 64) image embedding. Filled by names.py,
run as it is on an accelerator and through lean.py on a CPU. Knows nothing of checkpoints.

Three things differ from timm's classifier (MobileSAM, Zhang et al. 2023, `tiny_vit_sam.py`): no head, no
last norm, and the last downsampling does not downsample, so that 1024 px end as 64×64 rather than 32×32.
"""

# B batch, C channels, H W positions

from __future__ import annotations

import torch
from timm.models.tiny_vit import TinyVit
from torch import nn

EMBEDDING_CHANNELS = 256
EMBEDDING_SIDE = 64
_TRUNK_CHANNELS = 320


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W); ε = 1e-6 as in SAM's neck, not torch's 1e-5."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Same shape out."""
        return super().forward(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ImageEncoder(nn.Module):
    """TinyViT trunk and neck. Weights are torch's initial ones until names.py fills them."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = TinyVit(
            embed_dims=(64, 128, 160, _TRUNK_CHANNELS),
            depths=(2, 2, 6, 2),
            num_heads=(2, 4, 5, 10),
            window_sizes=(7, 7, 14, 7),
            drop_path_rate=0.0,
        )
        self.trunk.head = nn.Identity()
        self.trunk.stages[3].downsample.conv2.conv.stride = (1, 1)
        self.neck = nn.Sequential(
            nn.Conv2d(_TRUNK_CHANNELS, EMBEDDING_CHANNELS, 1, bias=False),
            ChannelNorm(EMBEDDING_CHANNELS),
            nn.Conv2d(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS, 3, padding=1, bias=False),
            ChannelNorm(EMBEDDING_CHANNELS),
        )

    def forward(self, square_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 3, 1024, 1024) → (B, 256, 64, 64)."""
        trunk_BCHW = self.trunk.stages(self.trunk.patch_embed(square_BCHW))
        return self.neck(trunk_BCHW)
