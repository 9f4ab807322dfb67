"""Pictures of a split on the disk: made once, in chunks, by as many processes as there are cores.

In: a split, a number, a folder. Out: Samples. Called by stage1.py. A chunk depends on its numbers alone, so who makes
it, and what a kill left of the others, changes no byte.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from train_jobs.manipulation.processes import spread
from train_jobs.manipulation.samples import Samples, together
from train_jobs.manipulation.synthetic import VERSION, Split, generate

CHUNK = 250


def synthetic(split: Split, count: int, size_px: int, cache: Path, say: Callable[[str], None]) -> Samples:
    """The first `count` pictures of a split."""
    wanted = [(first, min(CHUNK, count - first)) for first in range(0, count, CHUNK)]
    paths = [cache / f"{split}_v{VERSION}_{size_px}px_{first}_{number}.safetensors" for first, number in wanted]
    missing = [(split, *chunk, size_px, path) for chunk, path in zip(wanted, paths, strict=True) if not path.is_file()]
    spread(_make, missing, lambda made: say(f"{split}: {made} of {len(missing)} chunks of pictures made"))
    return together([Samples(**load_file(str(path))) for path in paths])


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, str(beside))
    beside.replace(path)


def _make(split: Split, first: int, number: int, size_px: int, path: Path) -> None:
    write_tensors(path, generate(split, first, number, size_px).tensors())
