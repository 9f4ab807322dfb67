"""What SAM 2 keeps of past frames for one object, and what of it can still be asked for.

In: one memory per frame. Out: the dictionary that the package's memory attention reads. Called by stream.py. Knows
nothing of pictures.

The rule is read off `SAM2Base._prepare_memory_conditioned_features`: a frame attends to all conditioning frames, to
the spatial memories of the 6 frames before it, and to the object pointers of the 15 before it. Whatever is older can
be dropped without changing a bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Memory:
    """One object in one past frame."""

    features: torch.Tensor | None  # (1, 64, h, w) bfloat16, as the package stores it; None once it is too old
    pointer: torch.Tensor  # (1, 256)
    presence: torch.Tensor  # (1, 1) object score logit


@dataclass(slots=True)
class Bank:
    """Memories of one object by frame index."""

    conditioning: dict[int, Memory] = field(default_factory=dict)  # frames that were prompted
    recent: dict[int, Memory] = field(default_factory=dict)  # frames that were tracked

    def forget_before(self, next_frame: int, features: int, pointers: int) -> None:
        """Drop what `next_frame` and later ones cannot ask for: all but the last frames' features and pointers."""
        for frame in [frame for frame in self.recent if frame < next_frame - pointers]:
            del self.recent[frame]
        for frame, memory in self.recent.items():
            if frame < next_frame - features and memory.features is not None:
                self.recent[frame] = replace(memory, features=None)

    def keep_newest(self, features: int, pointers: int) -> None:
        """The same by rank rather than by age, for a bank in which frames were left out."""
        for rank, frame in enumerate(sorted(self.recent, reverse=True)):
            if rank >= pointers:
                del self.recent[frame]
            elif rank >= features and self.recent[frame].features is not None:
                self.recent[frame] = replace(self.recent[frame], features=None)

    def before(self, now: int) -> Bank:
        """What frame `now` may attend to; a frame that is corrected must not see its own first memory."""
        return Bank(self.conditioning, {frame: memory for frame, memory in self.recent.items() if frame < now})

    def by_rank(self, now: int) -> Bank:
        """The same, as if the frames remembered were the ones right before `now`."""
        newest_first = sorted((frame for frame in self.recent if frame < now), reverse=True)
        return Bank(self.conditioning, {now - 1 - rank: self.recent[frame] for rank, frame in enumerate(newest_first)})

    def make_room(self, most: int) -> int | None:
        """Before one more prompted frame: keep the first and the newest, `most` in all; the frame that had to go."""
        if len(self.conditioning) < most:
            return None
        oldest = sorted(self.conditioning)[1 if most > 1 else 0]
        del self.conditioning[oldest]
        return oldest

    def layout(self) -> tuple[tuple[int, ...], ...]:
        """Objects with equal layouts can share one pass through the memory attention."""
        with_features = sorted(frame for frame, memory in self.recent.items() if memory.features is not None)
        return tuple(self.conditioning), tuple(with_features), tuple(self.recent)


def output_dict(banks: list[Bank], positions: list[torch.Tensor]) -> dict[str, dict[int, dict[str, Any]]]:
    """What the package calls `output_dict`, for objects of one layout, one row of the batch each.

    `positions` are the spatial memory's position encodings, equal for every frame.
    """
    return {
        "cond_frame_outputs": _joined([bank.conditioning for bank in banks], positions),
        "non_cond_frame_outputs": _joined([bank.recent for bank in banks], positions),
    }


def _joined(memories: list[dict[int, Memory]], positions: list[torch.Tensor]) -> dict[int, dict[str, Any]]:
    return {
        frame: {
            "maskmem_features": _cat([each[frame].features for each in memories]),
            "maskmem_pos_enc": [encoding.expand(len(memories), -1, -1, -1) for encoding in positions],
            "obj_ptr": _cat([each[frame].pointer for each in memories]),
        }
        for frame in memories[0]
    }


def _cat(tensors: list[Any]) -> torch.Tensor | None:
    if tensors[0] is None:
        return None
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def save_bank(bank: Bank) -> dict[str, Any]:
    """The bank as plain containers and numpy arrays."""
    return {
        "conditioning": [[frame, _save(memory)] for frame, memory in bank.conditioning.items()],
        "recent": [[frame, _save(memory)] for frame, memory in bank.recent.items()],
    }


def restore_bank(saved: Mapping[str, Any], device: torch.device) -> Bank:
    """The inverse of `save_bank`."""
    return Bank(
        {frame: _restore(memory, device) for frame, memory in saved["conditioning"]},
        {frame: _restore(memory, device) for frame, memory in saved["recent"]},
    )


def _save(memory: Memory) -> dict[str, Any]:
    return {
        "features": None if memory.features is None else to_array(memory.features),
        "pointer": to_array(memory.pointer),
        "presence": to_array(memory.presence),
    }


def _restore(saved: Mapping[str, Any], device: torch.device) -> Memory:
    features = saved["features"]
    return Memory(
        None if features is None else to_tensor(features, device),
        to_tensor(saved["pointer"], device),
        to_tensor(saved["presence"], device),
    )


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Numpy has no bfloat16: its bits travel as int16. Always a copy on the host."""
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    return bits.cpu().numpy().copy()


def to_tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The inverse of `to_array`."""
    tensor = torch.tensor(array)
    return (tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor).to(device)
