"""The same work on many things, by as many processes as there are cores: for pictures that are drawn before training.

In: a function of a module, its arguments. Out: nothing; the work writes files. Called by pictures.py and clips.py.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch


def spread(work: Callable[..., None], arguments: list[tuple[Any, ...]], tell: Callable[[int], None]) -> None:
    """Do all, in this process if it is only one; tell how many are done. Raises what the work raises."""
    workers = min(len(arguments), os.cpu_count() or 1)
    if workers <= 1:
        for done, own in enumerate(arguments, 1):
            work(*own)
            tell(done)
        return
    # Started anew: a process that torch has threads in must not be forked.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _alone) as pool:
        for done, one in enumerate(as_completed([pool.submit(work, *own) for own in arguments]), 1):
            one.result()
            tell(done)


def _alone() -> None:
    """One thread per process: there is one process per core."""
    torch.set_num_threads(1)
