"""TrackSSM checkpoint files ↔ networks, strictly: every tensor of the file is used and every one of the network filled.

In: a path and whether the output sigmoid belongs to the weights. Out: a Loaded network and what the file says of
itself. Used by data_jobs/nuscenes/learned.py and train_jobs/trackssm. Reads the layouts in public use: `ddpm`
(upstream), `model_state_dict` (fine-tuning), `state_dict` and a bare state dict, with or without `module.` in front.
The number of layers is counted from the names; a `config` inside the file is not asked (it is wrong in the wild).

Whether the sigmoid is on cannot be seen in the weights: MOT17 and MIX weights run without it, DanceTrack and SportsMOT
weights with it. Files written here say so under `reafference`; for others the caller must.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import shipped
from models.errors import ModelError, UnexpectedModel
from models.trackssm.network import D2MP, INPUTS
from models.trackssm.size import Size

CONTAINERS = ("ddpm", "model_state_dict", "state_dict")
PREFIX = "module."
OWN_NOTE = shipped.NOTE
EMBEDDING = "encoder.mamba_net.embedding.weight"
SHOWN_NAMES = 3


class UnknownSigmoid(ModelError):
    """A file does not say whether its weights run with the output sigmoid, and the caller did not either."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file's tensors by their plain names, and the rest of what it holds."""

    path: Path
    weights: Mapping[str, Tensor]
    note: Mapping[str, Any]  # what files written here say of themselves; empty for others
    epoch: int | None
    sha256: str


def read_checkpoint(path: Path) -> Checkpoint:
    """Tensors on the CPU without running code of the file. Raises UnexpectedModel saying what it is not, or OSError."""
    if path.suffix == shipped.SUFFIX:
        tensors, own_note, sha256 = shipped.read(path)
        return Checkpoint(path, tensors, own_note, None, sha256)
    data = path.read_bytes()
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else str(error).split("\n")[0][:200]
        raise UnexpectedModel(f"{path} is not a checkpoint that loads without running code: {reason}") from error
    if not isinstance(content, dict):
        raise UnexpectedModel(f"{path} holds {type(content).__name__}, expected a checkpoint or a state dict")
    inner = next((content[name] for name in CONTAINERS if isinstance(content.get(name), Mapping)), content)
    weights = {str(key).removeprefix(PREFIX): value for key, value in inner.items()}
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UnexpectedModel(
            f"{path} has {sorted(map(str, content))[:8]}; expected one of {', '.join(CONTAINERS)}, or tensors alone"
        )
    note, epoch = content.get(OWN_NOTE), content.get("epoch")
    return Checkpoint(
        path,
        weights,
        note if isinstance(note, dict) else {},
        epoch if isinstance(epoch, int) else None,
        hashlib.sha256(data).hexdigest(),
    )


def says_residual(checkpoint: Checkpoint) -> bool:
    """Whether the file holds the residual variant, by its own note or by what its embedding takes."""
    embedding = checkpoint.weights.get(EMBEDDING)
    return checkpoint.note.get("form") == "residual" or (embedding is not None and embedding.shape[0] != INPUTS)


def load_d2mp(path: Path, sigmoid: bool | None = None) -> D2MP:
    """The public form from any of the layouts, in eval mode.

    Raises UnknownSigmoid when neither caller nor file say whether the sigmoid is on, UnexpectedModel naming the
    tensors that are missing, unknown or of another shape, OSError without a file.
    """
    checkpoint = read_checkpoint(path)
    if sigmoid is None:
        sigmoid = checkpoint.note.get("sigmoid")
    size = size_of(checkpoint)
    if says_residual(checkpoint):
        raise UnexpectedModel(f"{path} is the residual variant; load it as such")
    if sigmoid is None:
        raise UnknownSigmoid(
            f"{path} does not say whether its weights run with the output sigmoid: give sigmoid=False for MOT17 or MIX "
            f"weights, sigmoid=True for DanceTrack or SportsMOT weights"
        )
    return fill(D2MP(size, bool(sigmoid)), checkpoint).eval()


def size_of(checkpoint: Checkpoint) -> Size:
    """Width, layers, heads, hidden width and state, from names and shapes. Raises UnexpectedModel."""
    weights, path = checkpoint.weights, checkpoint.path
    try:
        width = int(weights[EMBEDDING].shape[1])
        hidden = int(weights["ssm_decoder.head_series.0.linear1.weight"].shape[0])
        state = int(weights["ssm_decoder.head_series.0.A_log"].shape[1])
    except (KeyError, IndexError) as error:
        raise UnexpectedModel(f"{path} is no TrackSSM network: it has no usable {error}") from error
    layers = _count(weights, r"encoder\.mamba_net\.layers\.(\d+)\.")
    heads = _count(weights, r"ssm_decoder\.head_series\.(\d+)\.")
    return Size(width, layers, heads, hidden, state)


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max((int(found[1]) for name in weights if (found := re.match(pattern, name))), default=-1)


def fill[M: nn.Module](network: M, checkpoint: Checkpoint) -> M:
    """Load every tensor, strictly. Raises UnexpectedModel that names what differs."""
    wanted, found = network.state_dict(), checkpoint.weights
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    shapes = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    told = [
        f"{len(names)} tensors {what} ({_some(names)})"
        for what, names in (("missing", missing), ("unknown", extra), ("of another shape", shapes))
        if names
    ]
    if told:
        raise UnexpectedModel(f"{checkpoint.path} does not fit this network: {'; '.join(told)}")
    network.load_state_dict(dict(found), strict=True)
    return network


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN_NAMES]) + (", …" if len(names) > SHOWN_NAMES else "")
