"""The learning rate over a training of the SO-101. In: the step. Out: a share of the peak. Called by both trainers."""

from __future__ import annotations


def rate_share(done: int, steps: int, warmup: int, cooldown: int) -> float:
    """Of the peak rate, for the step after `done`: a linear rise, level, a linear fall over the last `cooldown`."""
    return min(1.0, (done + 1) / max(1, warmup), (steps - done) / max(1, cooldown))
