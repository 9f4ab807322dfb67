"""Episodes on disk, one file each: what the policy is trained on.

In: Played episodes. Out: `round_R/NNNNNN.npz`, and all of them as one set of arrays with frame stacks cut out of it.
Written and read by dagger.py, read by trainer.py. An episode is written under another name and renamed: a kill leaves
whole files only, and those that are there are not played again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train_jobs.errors import CannotStart
from train_jobs.so101_policy.rollout import Played


@dataclass(frozen=True, slots=True)
class Pool:
    """All samples of all episodes in the order of their numbers."""

    planes: np.ndarray  # (N, 2, 84, 84) uint8
    low_dim: np.ndarray  # (N, 18) float32
    teach: np.ndarray  # (N, 4) float32
    beside: np.ndarray  # (N, 3) float32
    seen: np.ndarray  # (N,) bool
    first: np.ndarray  # (N,) index of the first sample of the same episode

    def __len__(self) -> int:
        return len(self.planes)

    def stack(self, chosen: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """(B, T, 2, 84, 84) uint8 and (B, T, 18): at an episode's start the first frame is repeated, as live."""
        back = np.arange(frames - 1, -1, -1)
        index = np.maximum(chosen[:, None] - back, self.first[chosen][:, None])
        return self.planes[index], self.low_dim[index]


def path_of(folder: Path, number: int) -> Path:
    """Of an episode's file."""
    return folder / f"{number:06d}.npz"


def save(folder: Path, played: Played) -> None:
    """One episode."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{played.number:06d}.npz"
    np.savez(
        beside,
        planes=np.stack(played.planes),
        low_dim=np.stack(played.low_dim),
        teach=np.stack(played.teach),
        beside=np.stack(played.beside),
        seen=np.array(played.seen),
        success=played.success,
    )
    beside.replace(path_of(folder, played.number))


def read(folders: Sequence[Path]) -> Pool:
    """Every episode of the folders. Raises CannotStart when there is none."""
    files = [path for folder in folders for path in sorted(folder.glob("[0-9]*.npz"))]
    if not files:
        raise CannotStart(f"no episodes in {', '.join(map(str, folders))}; collect some first")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("planes", "low_dim", "teach", "beside", "seen")}
    first, total = [], 0
    for path in files:
        with np.load(path) as file:
            for name, part in parts.items():
                part.append(file[name])
        count = len(parts["seen"][-1])
        first.append(np.full(count, total))
        total += count
    return Pool(**{name: np.concatenate(part) for name, part in parts.items()}, first=np.concatenate(first))
