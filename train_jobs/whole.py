"""A training's state on the disk: whole, or as it was before.

In: a path and what torch can save. Out: the file. Called by every training that can be resumed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """torch.save under another name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(content, beside)
    beside.replace(path)
