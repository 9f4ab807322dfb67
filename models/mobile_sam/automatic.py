"""MobileSAM as a decoder of points for automatic masks.

In: the model, one picture's embedding and how the picture lies on the square. Out: what models/proposals.py asks for.
Called by actors/tracker. Knows nothing of thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from models.mobile_sam.geometry import LOGITS_PX, SIDE_PX, Fit
from models.mobile_sam.network import MobileSam


@dataclass(frozen=True, slots=True)
class _Rated:
    image_BCN: torch.Tensor  # after the two-way transformer
    mask_tokens_B3C: torch.Tensor


class MobileSamPoints:
    """See models.proposals.PointDecoder."""

    def __init__(self, model: MobileSam, embedding_BCHW: torch.Tensor, fit: Fit) -> None:
        self.height, self.width = fit.height, fit.width
        self._model, self._fit = model, fit
        self._embedding = embedding_BCHW
        # What the logits show below and right of the picture is padding; masks there would count as unstable.
        self._rows = max(1, round(fit.resized_height * LOGITS_PX / SIDE_PX))
        self._columns = max(1, round(fit.resized_width * LOGITS_PX / SIDE_PX))

    @torch.inference_mode()
    def rate(self, points_01: torch.Tensor) -> tuple[_Rated, torch.Tensor]:
        """See PointDecoder."""
        model, masks, device = self._model, self._model.masks, self._embedding.device
        scale = torch.tensor([self._fit.resized_width, self._fit.resized_height])
        points = (points_01 * scale).to(device)[None, :, None]
        labels = torch.ones(1, len(points_01), 1, dtype=torch.int32, device=device)
        sparse, dense = model.prompts(points, labels, None, None)
        own = torch.cat([masks.iou_token.weight, masks.mask_tokens.weight])
        tokens = torch.cat([own.expand(1, len(points_01), -1, -1), sparse], dim=2)
        image = (self._embedding + dense[:1]).expand(len(points_01), -1, -1, -1)
        answered, image_1BNC = masks.transformer(
            point_embeddings=tokens,
            image_embeddings=image,
            image_positional_embeddings=model.positions,
            attention_similarity=None,
            target_embedding=None,
        )
        iou = masks.iou_prediction_head(answered[0, :, 0])
        rated = _Rated(image_1BNC.reshape(len(points_01), -1, own.shape[1]).transpose(1, 2), answered[0, :, 2:5])
        return rated, iou[:, 1:]

    @torch.inference_mode()
    def draw(self, rated: _Rated, wanted_N3: torch.Tensor) -> torch.Tensor:
        """See PointDecoder. Logits cover the picture only, not the square's padding."""
        masks, drawn = self._model.masks, []
        for prompt in wanted_N3.any(dim=1).nonzero()[:, 0].tolist():
            image = rated.image_BCN[prompt : prompt + 1].reshape(self._embedding.shape)
            middle = masks.activation(masks.upscale_layer_norm(masks.upscale_conv1(image)))
            fine = masks.activation(masks.upscale_conv2(middle))[0, :, : self._rows, : self._columns]
            kinds = wanted_N3[prompt].nonzero()[:, 0].tolist()
            mixes = torch.stack(
                [masks.output_hypernetworks_mlps[kind + 1](rated.mask_tokens_B3C[prompt, kind]) for kind in kinds]
            )
            drawn.append((mixes @ fine.flatten(1)).reshape(len(kinds), *fine.shape[1:]))
        return torch.cat(drawn)

    def to_picture(self, logits_KHW: torch.Tensor) -> torch.Tensor:
        """See PointDecoder. Straight to the picture's size; the square between, as in geometry.py, adds nothing."""
        size = (self.height, self.width)
        return F.interpolate(logits_KHW[None], size, mode="bilinear", align_corners=False)[0]
