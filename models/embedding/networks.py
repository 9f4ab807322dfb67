"""The networks behind the embedder: normalised squares in; one vector per square and a grid of vectors out.

Called by embedder.py. Knows nothing of masks. Attention is torch's own (SDPA), no xformers.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from models.errors import MissingWeight, UnexpectedModel
from models.layout import require_same_layout


class Network(Protocol):
    """(N, 3, S, S) → one (N, D) vector each unless `pools`, and (N, G, G, P) patches."""

    module: nn.Module
    pools: bool  # whether the vector is the mean of `deep` over the object, and not a token of its own

    def __call__(self, squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`deep` is (N, D) or, if `pools`, (N, g, g, D); `patches` is (N, G, G, P)."""


class MobileNet:
    """torchvision's MobileNetV2: the mean of its last features is the vector, its 14×14 features are the patches.

    Chosen on LM-O with the true masks (119 objects, 42 rendered views each): the 14×14 features of block 13 tell 94 %
    of the objects apart, the last features 89 %, the ones before block 10 less than 75 %.
    """

    pools = True
    PATCH_BLOCK = 13

    def __init__(self, path: Path) -> None:
        from torchvision.models import mobilenet_v2

        network = mobilenet_v2(weights=None)
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise UnexpectedModel(f"{path} is not a torch file of plain tensors: {error}") from error
        require_same_layout(path, network.state_dict(), tensors)
        network.load_state_dict(tensors)
        self.module: nn.Module = network.features.eval().requires_grad_(False)

    def __call__(self, squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See Network."""
        features, patches = squares, squares
        for number, block in enumerate(self.module.children()):
            features = block(features)
            if number == self.PATCH_BLOCK:
                patches = features
        return features.permute(0, 2, 3, 1), patches.permute(0, 2, 3, 1)


class DinoV2:
    """Meta's DINOv2 through transformers: the CLS token is the vector, the patch tokens are the patches."""

    pools = False

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval().requires_grad_(False)

    def __call__(self, squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See Network."""
        tokens = self.module(pixel_values=squares).last_hidden_state
        registers = getattr(self.module.config, "num_register_tokens", 0)
        patches = tokens[:, 1 + registers :]
        side = round(patches.shape[1] ** 0.5)
        return tokens[:, 0], patches.reshape(len(tokens), side, side, -1)


def load_dinov2(name: str) -> tuple[DinoV2, str]:
    """A folder saved by transformers, or a name on the model hub such as `facebook/dinov2-small`; and its sha256.

    Raises MissingWeight when it is neither here nor reachable.
    """
    from transformers import AutoModel

    try:
        module: Any = AutoModel.from_pretrained(name, attn_implementation="sdpa")
    except (OSError, ValueError) as error:
        raise MissingWeight(
            f"DINOv2 {name!r} is neither a usable folder of transformers' nor reachable on the model hub "
            f"({' '.join(str(error).split())[:200]}); use the embedded embedder `mobilenet_v2` instead"
        ) from error
    return DinoV2(module), digest(module)


def digest(module: nn.Module) -> str:
    """sha256 over all weights, in the order of their names: the same however the files were cut."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
