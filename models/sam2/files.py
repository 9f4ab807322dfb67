"""Which SAM 2 checkpoint and which architecture: from what a person wrote, without downloading anything.

In: a config's name or path, a checkpoint's path or nothing. Out: an architecture's name, a path. Called by
data_jobs/egoworld/operators/sam2_video.py through actors.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from models.errors import MissingWeight, UnexpectedModel
from models.sam2.build import ARCHITECTURES


def architecture_of(config: str) -> str:
    """The architecture that `config` means: its own name, or the name or path of a SAM 2 YAML, which need not exist.

    The `sam2` package finds its configurations by name inside itself; a path from elsewhere is no such name. Raises
    UnexpectedModel with the choices.
    """
    if config in ARCHITECTURES:
        return config
    file = PurePosixPath(config.replace("\\", "/")).name
    for name, inside in ARCHITECTURES.items():
        if PurePosixPath(inside).name == file:
            return name
    raise UnexpectedModel(f"no SAM 2 architecture belongs to {config!r}; choose from {', '.join(ARCHITECTURES)}")


def checkpoint_of(given: str | None, architecture: str) -> Path:
    """The checkpoint's path: `given`, else the official one in the hub's cache. Raises MissingWeight with a command."""
    size = architecture.removeprefix("sam2.1_hiera_").removeprefix("sam2_hiera_").replace("_", "-")
    line = "sam2.1" if architecture.startswith("sam2.1") else "sam2"
    repository, file = f"facebook/{line}-hiera-{size}", f"{architecture}.pt"
    command = f"hf download {repository} {file}"
    if given is not None:
        if not Path(given).is_file():
            raise MissingWeight(
                f"there is no SAM 2 checkpoint {given}; get one with `{command}`, or leave the path out"
            )
        return Path(given)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, file)
    if not isinstance(cached, str):
        raise MissingWeight(f"SAM 2's video weights {file} are not in the hub's cache; get them with `{command}`")
    return Path(cached)
