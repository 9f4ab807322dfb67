"""MobileSAM whole: picture → embedding; embedding and one prompt → mask logits and their estimated IoU.

In: normalised squares and prompts in pixels of the square. Out: tensors. Called by actors/segmenter.py.
Knows nothing of pictures' own sizes (geometry.py) or of the checkpoint's names (names.py).

Prompt encoder and mask decoder are the classes of transformers' SAM; its defaults differ from the published
model in one number, set below.
"""

# B batch, K points, M masks, C channels, H W positions

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import SamConfig, SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

from models.errors import UnexpectedModel
from models.mobile_sam.encoder import EMBEDDING_SIDE, ImageEncoder
from models.mobile_sam.geometry import SIDE_PX
from models.mobile_sam.lean import LeanEncoder
from models.mobile_sam.names import fill


class MobileSam(nn.Module):
    """The three networks under the names that names.py fills. Unfilled until then: use `load_mobile_sam`."""

    def __init__(self) -> None:
        super().__init__()
        # torch's default ε, which SAM's transformer has (segment_anything/modeling/transformer.py); the
        # library's configuration says 1e-6.
        decoder = SamMaskDecoderConfig(layer_norm_eps=1e-5, attn_implementation="sdpa")
        self.encoder = ImageEncoder()
        self.prompts = SamPromptEncoder(SamConfig())
        self.masks = SamMaskDecoder(decoder)
        self.masks.transformer.register_forward_pre_hook(self._channels_last, with_kwargs=True)
        self.positions: torch.Tensor
        self.register_buffer("positions", torch.empty(0), persistent=False)
        self.lean: LeanEncoder | None = None

    @torch.inference_mode()
    def encode(self, square_BCHW: torch.Tensor, picture_rows: int = SIDE_PX) -> torch.Tensor:
        """(1, 3, 1024, 1024) → (1, 256, 64, 64). From `picture_rows` on the square must hold zeros."""
        if self.lean is not None:
            return self.lean(square_BCHW, picture_rows)
        return self.encoder(square_BCHW)

    @torch.inference_mode()
    def decode(
        self,
        embedding_BCHW: torch.Tensor,
        *,
        box: torch.Tensor | None = None,
        points_K2: torch.Tensor | None = None,
        labels_K: torch.Tensor | None = None,
        several: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One prompt on one (1, 256, 64, 64) embedding → (M, 256, 256) logits and (M,) predicted IoU.

        `box` is (4,) xyxy, `points_K2` x, y, both in pixels of the square; `labels_K` 1 on the object, 0
        off it. M is 3 if `several` (whole, part, subpart: for a prompt that may mean any of them), else 1.
        """
        sparse, dense = self.prompts(
            None if points_K2 is None else points_K2[None, None],
            None if labels_K is None else labels_K[None, None],
            None if box is None else box[None, None],
            None,
        )
        logits, iou = self.masks(embedding_BCHW, self.positions, sparse, dense, several)
        return logits[0, 0], iou[0, 0]

    @torch.inference_mode()
    def fix_positions(self) -> None:
        """Compute once what depends on weights alone: the encoding of the embedding's cell centres."""
        matrix = self.prompts.shared_embedding.positional_embedding
        centres = (torch.arange(EMBEDDING_SIDE, device=matrix.device, dtype=matrix.dtype) + 0.5) / EMBEDDING_SIDE
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        encoded_BCHW = self.prompts.shared_embedding(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]
        self.positions = encoded_BCHW.contiguous(memory_format=torch.channels_last)

    def _channels_last(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Give the transformer its keys with channels last: contiguous as tokens, 15 % off a prompt."""
        image_BCHW = kwargs["image_embeddings"].contiguous(memory_format=torch.channels_last)
        return args, kwargs | {"image_embeddings": image_BCHW, "image_positional_embeddings": self.positions}


def load_mobile_sam(path: Path, device: str = "cpu") -> MobileSam:
    """The published model from its own `mobile_sam.pt`, ready to use on `device`.

    Raises UnexpectedModel when the file is not a plain state dict or its tensors are not the published ones.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UnexpectedModel(f"{path} is not a torch file of plain tensors: {error}") from error
    if not isinstance(checkpoint, dict):
        raise UnexpectedModel(f"{path} holds a {type(checkpoint).__name__}, expected names → tensors")
    model = MobileSam()
    fill(model, checkpoint)
    model.fix_positions()
    model.eval().requires_grad_(False).to(device)
    if torch.device(device).type == "cpu":
        model.lean = LeanEncoder(model.encoder)
    return model
