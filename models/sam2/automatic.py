"""SAM 2 as a decoder of points for automatic masks, on the frame that the stream's backbone has seen.

In: a network and a Seen frame, so acquisition and track frame 0 share one encoder pass and one set of weights. Out:
what models/proposals.py asks for. Called by actors/tracker. Knows nothing of thresholds.

The package's own generator wraps SAM2ImagePredictor, which knows feature sizes for 1024 px only and adds
`no_mem_embed` to the coarsest map; both are done here for any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from models.sam2.picture import to_picture
from models.sam2.precision import computing
from models.sam2.stream import Seen


@dataclass(frozen=True, slots=True)
class _Rated:
    image_BCHW: torch.Tensor  # after the two-way transformer
    mask_tokens_B3C: torch.Tensor


class Sam2Points:
    """See models.proposals.PointDecoder."""

    def __init__(self, network: Any, seen: Seen) -> None:
        self.height, self.width = seen.height, seen.width
        self._network = network
        maps = [
            each.permute(1, 2, 0).reshape(1, -1, *size) for each, size in zip(seen.features, seen.sizes, strict=True)
        ]
        self._fine, self._middle = maps[0], maps[1]
        no_memory = network.no_mem_embed.reshape(1, -1, 1, 1) if network.directly_add_no_mem_embed else 0
        self._coarse = maps[2] + no_memory

    @torch.inference_mode()
    def rate(self, points_01: torch.Tensor) -> tuple[_Rated, torch.Tensor]:
        """See PointDecoder."""
        network, decoder = self._network, self._network.sam_mask_decoder
        points = points_01.to(network.device)[:, None] * network.image_size
        labels = torch.ones(len(points), 1, dtype=torch.int32, device=network.device)
        with computing(network):
            sparse, dense = network.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
            own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
            if decoder.pred_obj_scores:
                own.insert(0, decoder.obj_score_token.weight)
            own_tokens = torch.cat(own)
            tokens = torch.cat([own_tokens.expand(len(points), -1, -1), sparse], dim=1)
            image = (self._coarse + dense[:1]).expand(len(points), -1, -1, -1)
            where = network.sam_prompt_encoder.get_dense_pe().expand(len(points), -1, -1, -1)
            answered, image_BNC = decoder.transformer(image, where, tokens)
            first_mask = len(own_tokens) - decoder.num_mask_tokens
            iou = decoder.iou_prediction_head(answered[:, first_mask - 1])
        # The first of the four masks is the one for unambiguous prompts.
        rated = _Rated(image_BNC.transpose(1, 2), answered[:, first_mask + 1 : len(own_tokens)])
        return rated, iou[:, 1:].float()

    @torch.inference_mode()
    def draw(self, rated: _Rated, wanted_N3: torch.Tensor) -> torch.Tensor:
        """See PointDecoder. Prompts without a wanted mask are not enlarged at all."""
        decoder = self._network.sam_mask_decoder
        grow_1, norm, act_1, grow_2, act_2 = decoder.output_upscaling
        drawn = []
        with computing(self._network):
            for prompt in wanted_N3.any(dim=1).nonzero()[:, 0].tolist():
                image = rated.image_BCHW[prompt : prompt + 1].reshape(self._coarse.shape)
                middle = act_1(norm(grow_1(image) + self._middle))
                fine = act_2(grow_2(middle) + self._fine)
                kinds = wanted_N3[prompt].nonzero()[:, 0].tolist()
                mixes = torch.stack(
                    [decoder.output_hypernetworks_mlps[kind + 1](rated.mask_tokens_B3C[prompt, kind]) for kind in kinds]
                )
                drawn.append((mixes @ fine[0].flatten(1)).reshape(len(kinds), *fine.shape[2:]).float())
        return torch.cat(drawn)

    def to_picture(self, logits_KHW: torch.Tensor) -> torch.Tensor:
        """See PointDecoder."""
        return to_picture(logits_KHW, self.height, self.width)
