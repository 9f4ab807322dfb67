"""One phase of training, step by step, and everything that a step depends on, so that it can go on where it stopped.

In: an Objective, windows, a PhaseConfig. Out: losses per step and epoch, best and last files. Called by job.py, which
puts it into a Ray Train worker; the tests run it alone. Knows nothing of Ray or TensorBoard.

Which windows, which noise, which samples: a generator seeded with (seed, step) decides, so the step's number is the
sampler's whole position. What is left is the network, the optimiser, torch's own generator and the best result so far;
`state` holds them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train_jobs.trackssm.config import PhaseConfig
from train_jobs.trackssm.objective import Objective, Samples, samples_of, tensors_of
from train_jobs.trackssm.windows import Windows

# Validation windows are cut once, with a generator that no step uses.
VALIDATION = 2**31


@dataclass(slots=True)
class Progress:
    """Where training is."""

    step: int = 0  # optimiser steps done
    best: float = math.inf  # lowest validation loss
    worse_epochs: int = 0  # since then
    finished: bool = False


@dataclass(slots=True)
class Trainer:
    """Trains `objective`. `shard` is (rank, workers): each worker takes every workers-th window of a batch."""

    objective: Objective
    config: PhaseConfig
    train: Windows
    held_out: Windows
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    shard: tuple[int, int] = (0, 1)
    wrap: Callable[[nn.Module], nn.Module] = field(default=lambda module: module)
    progress: Progress = field(default_factory=Progress)
    forward: nn.Module = field(init=False)
    optimiser: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        """Freeze what is not trained and give each part its own learning rate."""
        network = self.objective.network
        network.encoder.requires_grad_(self.config.train_encoder)
        groups = [{"params": list(network.ssm_decoder.parameters()), "peak": self.config.lr_decoder}]
        if self.config.train_encoder:
            groups.append({"params": list(network.encoder.parameters()), "peak": self.config.lr_encoder})
        self.objective.to(self.device)
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, weight_decay=self.config.weight_decay)
        self.forward = self.wrap(self.objective)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps between validations."""
        windows = self.config.windows_per_epoch or len(self.train)
        return max(1, min(windows, len(self.train)) // self.config.batch_size)

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.progress.step // self.steps_per_epoch

    def share(self) -> float:
        """Of the peak learning rate: linear warm-up, then half a cosine to zero at the last epoch."""
        epoch = (self.progress.step + 1) / self.steps_per_epoch
        warm = self.config.warmup_epochs
        if epoch <= warm:
            return epoch / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (epoch - warm) / max(1, self.config.max_epochs - warm))))

    def samples(self) -> Samples:
        """What the next step is made on."""
        epoch, place = divmod(self.progress.step, self.steps_per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.train))
        rng = np.random.default_rng([self.config.seed, epoch, place, self.shard[0]])
        size = self.config.batch_size
        numbers = order[place * size : (place + 1) * size][self.shard[0] :: self.shard[1]]
        strides = rng.choice(self.config.strides, len(numbers))
        windows = [self.train.window(int(n), int(s)) for n, s in zip(numbers, strides, strict=True)]
        return samples_of(self.config, self.train.batch(windows, rng, self.config.mirror), rng)

    def step(self) -> dict[str, float]:
        """One optimiser step; loss, its parts and the decoder's learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * self.share()
        parts = self.forward(*self._moved(self.samples()))
        self.optimiser.zero_grad(set_to_none=True)
        parts["loss"].backward()
        trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, self.config.gradient_clip)
        self.optimiser.step()
        self.progress.step += 1
        numbers = {name: float(value.detach()) for name, value in parts.items()}
        return {**numbers, "lr": self.optimiser.param_groups[0]["lr"]}

    def validate(self) -> dict[str, float]:
        """Numbers on the held-out windows: always the same windows, noise and samples."""
        rng = np.random.default_rng([self.config.seed, VALIDATION])
        numbers = rng.integers(0, len(self.held_out), self.config.validation_windows)
        strides = rng.choice(self.config.strides, len(numbers))
        windows = [self.held_out.window(int(n), int(s)) for n, s in zip(numbers, strides, strict=True)]
        parts = []
        for at in range(0, len(windows), self.config.batch_size):
            batch = self.held_out.batch(windows[at : at + self.config.batch_size], rng)
            samples = samples_of(self.config, batch, rng)
            if len(samples):
                moved = type(samples)(*self._moved(samples))
                parts.append((len(samples), self.objective.validate(moved)))
        total = sum(count for count, _ in parts)
        return {name: sum(c * row[name] for c, row in parts) / total for name in parts[0][1]} if parts else {}

    def judge(self, validation_loss: float) -> bool:
        """Take an epoch's validation into account; whether it is the best so far."""
        better = validation_loss < self.progress.best
        self.progress.best = min(self.progress.best, validation_loss)
        self.progress.worse_epochs = 0 if better else self.progress.worse_epochs + 1
        over = self.progress.worse_epochs >= self.config.patience or self.epoch >= self.config.max_epochs
        self.progress.finished = over
        return better

    def _moved(self, samples: Samples) -> list[Tensor]:
        return [tensor.to(self.device) for tensor in tensors_of(samples)]

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on, but for the data."""
        return {
            "network": self.objective.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "progress": {name: getattr(self.progress, name) for name in Progress.__slots__},
            "torch_rng": torch.get_rng_state(),
            "fingerprint": self.config.fingerprint(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.objective.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])
        torch.set_rng_state(state["torch_rng"])
