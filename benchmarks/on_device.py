"""What a measurement on a GPU needs to know: which device, how large, whose weights; its clock and its memory.

In: a Setting. Out: seconds that wait for the device, its peak of memory, SAM 2 and Depth Anything with the weights of
the hub's cache or, where asked for, with RANDOM ones. Used by the measurements of gpu.py. Times of networks do not
depend on the values of weights; what is found in a picture does, and rows with random weights say so.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.depth import from_hub
from benchmarks.paired import seconds
from data_jobs.egoworld.demo import REAL_CLIP, backgrounds
from models.errors import MissingWeight
from models.proposals import PROFILES, Profile
from models.sam2.build import build, load
from models.sam2.files import checkpoint_of
from models.weights import path_of

ARCHITECTURE = "sam2.1_hiera_tiny"
RANDOM = ", RANDOM weights"
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how large. `small` runs the same code on inputs of a few pixels: to try it, not to quote it."""

    device: str = "cuda"
    small: bool = False
    random_weights: bool = False  # where the hub's are missing

    @property
    def side_px(self) -> int:
        """Of SAM 2's input."""
        return 64 if self.small else 1024

    @property
    def frames(self) -> int:
        """In one sample of a rate."""
        return 2 if self.small else 30

    @property
    def profile(self) -> Profile:
        """Of automatic masks."""
        return Profile(points_per_side=2, points_per_batch=4) if self.small else PROFILES["gpu"]

    def seconds(self, work: Callable[[], object]) -> float:
        """Wall time of one call and of all that it left the device to do."""
        self._settle()
        return seconds(lambda: (work(), self._settle()))

    def peak(self, work: Callable[[], object]) -> str:
        """The most memory of the device that tensors held during one call; on a CPU that of the process so far."""
        if not self.device.startswith("cuda"):
            work()
            return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB of the whole process"
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        self._settle()
        return f"{torch.cuda.max_memory_allocated(self.device) / MIB:.0f} MiB of the device"

    def _settle(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


@cache
def pictures() -> tuple[np.ndarray, ...]:
    """The first frames of the demo's kitchen, (480, 640, 3) uint8 RGB. Raises MissingWeight."""
    frames = backgrounds(path_of(REAL_CLIP))
    return tuple(next(frames) for _ in range(4))


def sam2(setting: Setting, dtype: torch.dtype = torch.float32) -> tuple[Any, str]:
    """The network, and what its rows must say of it. Raises MissingWeight with the command that gets it."""
    try:
        path = checkpoint_of(None, ARCHITECTURE)
    except MissingWeight:
        if not setting.random_weights:
            raise
        torch.manual_seed(0)
        return build(ARCHITECTURE, setting.side_px).to(device=setting.device, dtype=dtype), RANDOM
    return load(path, ARCHITECTURE, side_px=setting.side_px, device=setting.device, dtype=dtype), ""


def sam2_checkpoint(setting: Setting, folder: Path) -> tuple[Path, str]:
    """The same as a file, which a random network is written to."""
    try:
        return checkpoint_of(None, ARCHITECTURE), ""
    except MissingWeight:
        network, note = sam2(setting)
        path = folder / f"random_{ARCHITECTURE}.pt"
        torch.save({"model": network.state_dict()}, path)
        return path, note


def depth_network(setting: Setting) -> tuple[Any, str]:
    """Depth Anything V2 Small, and what its rows must say of it. Raises MissingWeight."""
    try:
        return from_hub(), ""
    except MissingWeight:
        if not setting.random_weights:
            raise
        return _depth_anything_small(), RANDOM


def _depth_anything_small() -> Any:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        out_indices=[3, 6, 9, 12],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    sizes = {"reassemble_hidden_size": 384, "neck_hidden_sizes": [48, 96, 192, 384], "fusion_hidden_size": 64}
    return DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, **sizes))
