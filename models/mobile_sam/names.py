"""Which tensor of the published checkpoint fills which parameter of ours, with none left over on either side.

In: a state dict in the names of `mobile_sam.pt`. Out: the same tensors in the names of network.py. Called
by network.py. Knows nothing of files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import torch
from torch import nn

from models.errors import UnexpectedModel

# Checkpoint tensors that no module of ours has, and why.
UNUSED = {
    "image_encoder.norm_head.": "norm before the classifier; the embedding branches off before it",
    "image_encoder.head.": "the ImageNet classifier of the pre-training",
}

# Rules are tried in order, and each that matches rewrites the name for the next: prefixes first, then parts.
_RULES: tuple[tuple[str, str], ...] = (
    (r"^image_encoder\.patch_embed\.seq\.0\.", "encoder.trunk.patch_embed.conv1."),
    (r"^image_encoder\.patch_embed\.seq\.2\.", "encoder.trunk.patch_embed.conv2."),
    # Theirs ends a stage with the downsampling, timm begins the next stage with it.
    (r"^image_encoder\.layers\.0\.downsample\.", "encoder.trunk.stages.1.downsample."),
    (r"^image_encoder\.layers\.1\.downsample\.", "encoder.trunk.stages.2.downsample."),
    (r"^image_encoder\.layers\.2\.downsample\.", "encoder.trunk.stages.3.downsample."),
    (r"^image_encoder\.layers\.", "encoder.trunk.stages."),
    (r"^image_encoder\.neck\.", "encoder.neck."),
    (r"^(encoder\.trunk\..*)\.c\.weight$", r"\1.conv.weight"),
    (
        r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
        "prompts.shared_embedding.positional_embedding",
    ),
    (r"^prompt_encoder\.point_embeddings\.", "prompts.point_embed."),
    (r"^prompt_encoder\.mask_downscaling\.0\.", "prompts.mask_embed.conv1."),
    (r"^prompt_encoder\.mask_downscaling\.1\.", "prompts.mask_embed.layer_norm1."),
    (r"^prompt_encoder\.mask_downscaling\.3\.", "prompts.mask_embed.conv2."),
    (r"^prompt_encoder\.mask_downscaling\.4\.", "prompts.mask_embed.layer_norm2."),
    (r"^prompt_encoder\.mask_downscaling\.6\.", "prompts.mask_embed.conv3."),
    (r"^prompt_encoder\.", "prompts."),
    (r"^mask_decoder\.output_upscaling\.0\.", "masks.upscale_conv1."),
    (r"^mask_decoder\.output_upscaling\.1\.", "masks.upscale_layer_norm."),
    (r"^mask_decoder\.output_upscaling\.3\.", "masks.upscale_conv2."),
    (r"^mask_decoder\.transformer\.norm_final_attn\.", "masks.transformer.layer_norm_final_attn."),
    (r"^mask_decoder\.", "masks."),
    (r"^(masks\.transformer\.layers\.\d)\.norm(\d)\.", r"\1.layer_norm\2."),
    # Small MLPs of three layers: first, the ones between, last.
    (r"^(masks\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.layers\.0\.", r"\1.proj_in."),
    (r"^(masks\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.layers\.1\.", r"\1.layers.0."),
    (r"^(masks\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.layers\.2\.", r"\1.proj_out."),
)


def our_name(theirs: str) -> str | None:
    """The name that a checkpoint tensor has in network.py; None if it is deliberately unused."""
    if theirs.startswith(tuple(UNUSED)):
        return None
    name = theirs
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def fill(module: nn.Module, checkpoint: Mapping[str, torch.Tensor]) -> None:
    """Copy every checkpoint tensor to its place in `module` (encoder, prompts, masks), in place.

    Raises UnexpectedModel, naming them, when tensors are missing, left over, given twice or of another
    shape.
    """
    places = [(name, tensor) for key, tensor in checkpoint.items() if (name := our_name(key)) is not None]
    renamed = dict(places)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    counts = Counter(name for name, _ in places)
    faults = {
        "given twice": sorted(name for name, count in counts.items() if count > 1),
        "missing": sorted(wanted.keys() - renamed.keys()),
        "not expected": sorted(renamed.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {tuple(renamed[name].shape)} instead of {shape}"
            for name, shape in wanted.items()
            if name in renamed and tuple(renamed[name].shape) != shape
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in faults.items() if names)
        raise UnexpectedModel(f"the tensors are not those of MobileSAM's mobile_sam.pt; {listed}")
    module.load_state_dict(renamed, strict=True)
