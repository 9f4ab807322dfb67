"""Where a worker of a training stands: plain values that a trainer needs, without Ray.

Made by train_jobs/fit.py, or as it is for one process. Called by the trainers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Place:
    """Its device, its rank among how many, and how gradients are joined."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    workers: int = 1
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module
