"""How many pictures go through the network at once: as many as a target of memory holds.

In: a trial forward pass, a target in bytes. Out: a number of pictures. Called by trainer.py, which sends the rest of a
batch after them and adds up the gradients. Counted is what autograd keeps for the way back, on any device alike, so the
same configuration gives the same number everywhere; not counted is what single operations need for a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from train_jobs.errors import CannotStart

# Weights, their gradients, two moments of AdamW, the averaged weights.
COPIES = 5
TRIALS = (2, 4)
GIB = 2**30


def kept_bytes(forward: Callable[[], object]) -> int:
    """What a forward pass keeps for the way back; memory that several operations share counts once."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        sizes[memory.data_ptr()] = memory.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()  # held until all is counted: freed memory would be given out again
    del result
    return sum(sizes.values())


def at_once(module: nn.Module, trial: Callable[[int], object], batch: int, target_gib: float) -> int:
    """Pictures, at most `batch`; `trial(n)` is a forward pass of n. Raises CannotStart if not even one fits."""
    few, more = (kept_bytes(partial(trial, count)) for count in TRIALS)
    each = (more - few) / (TRIALS[1] - TRIALS[0])
    fixed = COPIES * sum(p.numel() * p.element_size() for p in module.parameters()) + few - TRIALS[0] * each
    fits = int((target_gib * GIB - fixed) // each)
    if fits < 1:
        raise CannotStart(f"memory_target_gib {target_gib:g} holds no picture: weights, gradients and moments take "
                          f"{fixed / GIB:.2f} GiB, each picture {each / GIB:.3f} GiB more")  # fmt: skip
    return min(batch, fits)
