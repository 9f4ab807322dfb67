"""SAM 2's networks and their weights, ready to use.

In: an architecture's name, a checkpoint, a side length. Out: the network of the `sam2` package. Called by
actors/tracker and by tests (which fill it with seeded random numbers and say so). Knows nothing of frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from models.errors import UnexpectedModel

# Name → configuration inside the `sam2` package. Tiny only for edge devices; all share the same code here.
ARCHITECTURES = {
    "sam2_hiera_tiny": "configs/sam2/sam2_hiera_t.yaml",
    "sam2_hiera_small": "configs/sam2/sam2_hiera_s.yaml",
    "sam2_hiera_base_plus": "configs/sam2/sam2_hiera_b+.yaml",
    "sam2_hiera_large": "configs/sam2/sam2_hiera_l.yaml",
    "sam2.1_hiera_tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "sam2.1_hiera_small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "sam2.1_hiera_base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "sam2.1_hiera_large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}

# The side must hold whole 32-pixel cells of the coarsest map and the window pattern of the trunk's embedding.
SIDE_MULTIPLE_PX = 32

# What still pictures and automatic masks need; the rest is the video's memory.
IMAGE_PARTS = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")
# Whether the object is in the picture is the video's question, so an image-mode checkpoint may lack its head.
NOT_FOR_IMAGES = ("sam_mask_decoder.pred_obj_score_head.",)

Parts = Literal["image", "video"]


def build(architecture: str, side_px: int = 1024) -> Any:
    """The network with torch's initial weights, in eval mode, on the CPU. Fill it before use: see `load`.

    It is the package's SAM2VideoPredictor, as `build_sam2_video_predictor` makes it, for any square input of
    `side_px` (a multiple of 32). Raises ValueError for an unknown name or a side that does not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"no SAM 2 architecture is called {architecture!r}; there are {', '.join(ARCHITECTURES)}")
    if side_px < SIDE_MULTIPLE_PX or side_px % SIDE_MULTIPLE_PX:
        raise ValueError(f"SAM 2's input side must be a multiple of {SIDE_MULTIPLE_PX} px, not {side_px}")
    from sam2.build_sam import build_sam2_video_predictor

    overrides = [f"++model.image_size={side_px}"]
    network = build_sam2_video_predictor(
        ARCHITECTURES[architecture], ckpt_path=None, device="cpu", hydra_overrides_extra=overrides
    )
    # Holes are filled by a CUDA extension only, so results would depend on whether it was built: never.
    network.fill_hole_area = 0
    return network.requires_grad_(False)


def load(
    path: Path,
    architecture: str,
    *,
    side_px: int = 1024,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    parts: Parts = "video",
) -> Any:
    """The network filled from `path`: the official `.pt`, or a `.safetensors` in the same names.

    `parts="image"` accepts a checkpoint without the video's memory; the network then serves automatic masks only.
    With `dtype` bfloat16 weights and activations are bfloat16 (see `precision`). Raises UnexpectedModel, which counts
    what is missing, left over or of another shape.
    """
    network = build(architecture, side_px)
    fill(network, read_checkpoint(path), path, parts)
    return network.to(device=device, dtype=dtype)


def compile_encoder(network: Any) -> None:
    """Let torch compile the image encoder, most of a frame's work; the first frame then takes minutes.

    The rest sees memories of a length that grows with the first frames and would be compiled for each. No CUDA graphs:
    they write every answer to the same place, while a search in another thread may still read the last one.
    """
    mode = "max-autotune-no-cudagraphs" if network.device.type == "cuda" else None
    network.image_encoder.compile(mode=mode, fullgraph=True, dynamic=False)


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Names → tensors. Raises UnexpectedModel unless it is one of the two formats."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UnexpectedModel(f"{path} is not a readable SAM 2 checkpoint (.pt or .safetensors): {error}") from error
    tensors = held.get("model") if isinstance(held, dict) else None
    if not isinstance(tensors, dict):
        raise UnexpectedModel(f"{path} has no 'model' entry, as official SAM 2 checkpoints do")
    return tensors


def fill(network: Any, tensors: Mapping[str, torch.Tensor], path: Path, parts: Parts) -> None:
    """Copy tensors into `network`; every parameter that `parts` needs must be there."""
    wanted = network.state_dict()
    needed = {name for name in wanted if parts == "video" or is_image_part(name)}
    missing, extra = sorted(needed - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    shapes = [name for name in tensors.keys() & wanted.keys() if tensors[name].shape != wanted[name].shape]
    if missing or extra or shapes:
        hint = "; it holds image mode only, which cannot follow objects" if missing and parts == "video" else ""
        raise UnexpectedModel(
            f"{path} does not fit the architecture: {len(missing)} tensors missing (first: {missing[:1]}), "
            f"{len(extra)} unknown (first: {extra[:1]}), {len(shapes)} of another shape (first: {shapes[:1]}){hint}"
        )
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)


def is_image_part(name: str) -> bool:
    """Whether a parameter takes part in still pictures."""
    return name.startswith(IMAGE_PARTS) and not name.startswith(NOT_FOR_IMAGES)
