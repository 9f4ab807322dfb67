"""Weights of a trained transformer in one safetensors file, with its size in the note. Read strictly.

In: a network or a path. Out: a path or a network. Called by train_jobs/manipulation and by whoever runs it. The file
holds everything, the backbone too: no other file is needed to run it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.errors import UnexpectedModel
from models.manipulation.network import ManipulationTransformer, empty
from models.manipulation.size import SIZES, Size
from models.manipulation.temporal import TemporalFusion
from models.shipped import FOLDER, read, write

NOTE = "reafference_manipulation"
# What is shipped: `tiny`, and its fusion over time.
MANIPULATION = FOLDER / "manipulation_tiny.safetensors"
TEMPORAL = FOLDER / "manipulation_tiny_temporal.safetensors"


def save(network: ManipulationTransformer, path: Path, note: dict[str, Any], *, halved: bool = False) -> None:
    """Write whole or not at all; `note` is what a reader should know of the training. `halved`: matrices in float16."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if halved:
        tensors = {name: value.half() if value.ndim >= 2 else value for name, value in tensors.items()}
    sigma = any(".parametrizations." in name for name in tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    told = {**note, "size": network.size.name, "sigma_reparam": sigma}
    save_file(tensors, str(beside), {NOTE: json.dumps(told, sort_keys=True)})
    beside.replace(path)


def load(path: Path, size: str | None = None) -> tuple[ManipulationTransformer, dict[str, Any]]:
    """The network and its note; `size` is the one that is expected. Raises UnexpectedModel."""
    try:
        with safe_open(str(path), "pt") as file:
            note = json.loads((file.metadata() or {}).get(NOTE, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise UnexpectedModel(f"{path} cannot be read as safetensors: {error}") from error
    if note.get("size") not in SIZES:
        raise UnexpectedModel(f"{path} is no manipulation transformer: its note {NOTE!r} names no size")
    if size not in (None, note["size"]):
        raise UnexpectedModel(f"{path} holds size {note['size']}, not {size}")
    network = empty(SIZES[note["size"]], bool(note.get("sigma_reparam")))
    want = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    have = {name: tuple(value.shape) for name, value in tensors.items()}
    if want != have:
        first = sorted(name for name in want.keys() | have.keys() if want.get(name) != have.get(name))[0]
        raise UnexpectedModel(f"{path}: {first} is {have.get(first)}, size {note['size']} needs {want.get(first)}")
    network.to_empty(device="cpu")
    network.load_state_dict(tensors)
    return network.eval(), note


def save_temporal(fusion: TemporalFusion, path: Path, note: dict[str, Any]) -> None:
    """Weights of stage 2, large matrices in half precision."""
    write(path, {name: value.detach().cpu() for name, value in fusion.state_dict().items()}, note)


def load_temporal(path: Path, size: Size) -> TemporalFusion:
    """The fusion that was trained on answers of this size. Raises UnexpectedModel."""
    try:
        tensors, _, _ = read(path)
    except OSError as error:
        raise UnexpectedModel(f"{path} cannot be read: {error.strerror}") from error
    fusion = TemporalFusion(size)
    try:
        fusion.load_state_dict(tensors)
    except RuntimeError as error:
        raise UnexpectedModel(f"{path} does not fit size {size.name}: {str(error).splitlines()[-1].strip()}") from error
    return fusion.eval()
