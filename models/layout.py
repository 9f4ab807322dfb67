"""Do a checkpoint's tensors fit a network? Names what differs before torch's own loader would.

In: two state dicts. Out: nothing, or an UnexpectedModel. Used by the checkpoint readers of this folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from models.errors import UnexpectedModel


def require_same_layout(path: Path, wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    """Raise UnexpectedModel with counts and the first example of every kind of difference."""
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    shapes = [
        f"{key} is {tuple(found[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    if missing or extra or shapes:
        raise UnexpectedModel(
            f"{path} is of another layout: {len(missing)} tensors missing (first: {missing[:1]}), "
            f"{len(extra)} unknown (first: {extra[:1]}), {len(shapes)} of another shape (first: {shapes[:1]})"
        )
