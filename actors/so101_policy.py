"""Policy: owns one DrQ-v2 snapshot and turns a stack of pictures and joints into an action.

In: one observation as arrays. Out: one action. Called by the robot's worker thread (through robot.networks) and by
serve. Knows nothing of Ray, robots or wire formats.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.drqv2 import Snapshot, load_snapshot
from models.errors import UnexpectedModel
from models.shipped import SO101_POLICY as SHIPPED

__all__ = ["SHIPPED", "So101Policy"]  # the weights that ship, for those who may not know `models`

# One core is left to the control loop and the camera.
THREADS = 1
# What the public training run did with its pictures; a snapshot names its observation type, not these details
# (ggand0/pick-101@55fe119 so101_factory.py, SegDepthWrapper).
TRAINED_ON = {"order": "normalise_then_crop", "interpolation": "area", "class_count": 5}
OBSERVATION_TYPE = "seg_depth"


class So101Policy:
    """Four verbs: load, warm_up, act, close."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._path = Path(path)
        self._device = device
        self._snapshot: Snapshot | None = None

    def load(self) -> None:
        """Read the snapshot. Raises OSError without a file, UnexpectedModel when it is of another layout or kind."""
        snapshot = load_snapshot(self._path)
        kind = snapshot.config.get("env", {}).get("obs_type")
        if kind != OBSERVATION_TYPE:
            raise UnexpectedModel(
                f"{self._path} was trained on {kind!r} pictures; this reader serves {OBSERVATION_TYPE!r}"
            )
        snapshot.network.to(self._device)
        self._snapshot = snapshot

    def describe(self) -> dict[str, Any]:
        """What it takes and gives, as fields for the robot's contract check."""
        network = self._loaded.network
        return {
            "name": self._path.name,
            "action_space": "cartesian_delta",
            "action_size": network.actions,
            "action_frame": "mujoco_base",
            "low_dim_size": network.low_dim,
            "stack": network.frames,
            "image_channels": network.frames * network.planes,
            "layout": "time_planes",
            "normalises_input": True,
            "checkpoint_sha256": self._loaded.sha256,
            **TRAINED_ON,
        }

    def warm_up(self) -> None:
        """One pass on zeros."""
        network = self._loaded.network
        self.act(
            np.zeros((network.frames, network.planes, 84, 84), np.float32),
            np.zeros((network.frames, network.low_dim), np.float32),
        )

    def act(self, image: np.ndarray, low_dim: np.ndarray) -> np.ndarray:
        """(T, 2, 84, 84) float32 0..255 and (T, N) float32 to (A,) float32 in [-1, 1]; evaluation action, no noise."""
        torch.set_num_threads(THREADS)
        with torch.inference_mode():
            picture = torch.tensor(image, dtype=torch.float32, device=self._device)[None]
            state = torch.tensor(low_dim, dtype=torch.float32, device=self._device)[None]
            return self._loaded.network.act(picture, state)[0].cpu().numpy()

    def close(self) -> None:
        """Free the network. Safe before load() and when called twice."""
        self._snapshot = None

    @property
    def _loaded(self) -> Snapshot:
        if self._snapshot is None:
            raise RuntimeError("load() the policy before using it")
        return self._snapshot
