"""Small weights that we trained and ship: safetensors with a note, large matrices in half precision.

In: tensors and a note, or a path. Out: a file, or float32 tensors, the note and the file's sha256. Used by drqv2.py,
so101_seg.py and the trainings that export. The paths of the SO-101's two networks are here, too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from models.errors import UnexpectedModel

SUFFIX = ".safetensors"
FOLDER = Path(__file__).resolve().parent / "pretrained"
SO101_SEGMENTER = FOLDER / "so101_seg.safetensors"
SO101_POLICY = FOLDER / "so101_lift.safetensors"
NOTE = "reafference"
# Matrices of at least this many numbers are halved: nine tenths of a policy are one of them.
HALVED_FROM = 100_000


def write(path: Path, tensors: dict[str, torch.Tensor], note: dict[str, Any]) -> None:
    """Write float tensors and a note that JSON can hold."""
    packed = {
        name: (tensor.half() if tensor.is_floating_point() and tensor.numel() >= HALVED_FROM else tensor).contiguous()
        for name, tensor in tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(packed, str(path), {NOTE: json.dumps(note, sort_keys=True)})


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], str]:
    """float32 tensors, note, sha256. Raises UnexpectedModel for a file of another kind, OSError without one."""
    data = path.read_bytes()
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        note = json.loads(header["__metadata__"][NOTE])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise UnexpectedModel(f"{path} is not a weights file of this project: {error}") from error
    whole = {name: t.float() if t.dtype is torch.float16 else t for name, t in tensors.items()}
    return whole, note, hashlib.sha256(data).hexdigest()
