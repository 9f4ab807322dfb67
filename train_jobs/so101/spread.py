"""Splits numbered work over all cores through Ray, or does it here.

In: a function of a list of numbers. Out: what every part returned, in order. Used where frames or episodes are judged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence


def spread[T](work: Callable[[list[int]], T], numbers: Sequence[int], workers: int | None = None) -> list[T]:
    """`workers` None: one per core; 0: in this process. Raises what `work` raises."""
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    if count == 0:
        return [work(list(numbers))]
    import ray

    mine = not ray.is_initialized()
    if mine:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        task = ray.remote(num_cpus=1, max_retries=1)(_do)
        # Several parts per core, dealt like cards: one that is slow does not hold up the others.
        parts = [list(numbers[part :: 4 * count]) for part in range(4 * count)]
        return ray.get([task.remote(work, part) for part in parts if part])
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        if mine:
            ray.shutdown()


def _do[T](work: Callable[[list[int]], T], numbers: list[int]) -> T:
    return work(numbers)


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), for any number of trials from 1 on."""
    share, squared = successes / trials, z * z
    centre = (share + squared / (2 * trials)) / (1 + squared / trials)
    half = z / (1 + squared / trials) * (share * (1 - share) / trials + squared / (4 * trials**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
