"""Trackers for a host of many sessions: the large networks live once, elsewhere, and every session uses them.

In: something that encodes pictures (actors.segmenter.PromptSegmenter) and something that embeds (Embedder), usually in
processes of their own. Out: trackers that hold only their targets' state. Built by serve/zero_shot.py. Knows no Ray: a
far object is anything that has the methods below.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from actors.segmenter import WEIGHT_NAME, ImageEmbedding
from actors.tracker.banks import Bank, make_bank
from actors.tracker.errors import BankUnusable
from actors.tracker.flow import FlowBackend
from actors.tracker.mesh import View, read_mesh, render_views
from actors.tracker.tracker import Tracker
from actors.tracker.work import Desk
from models import weights
from models.embedding.embedder import Descriptors
from models.proposals import PROFILES


class Encoder(Protocol):
    """Owns the picture encoder."""

    def embed(self, image: np.ndarray) -> ImageEmbedding:
        """See PromptSegmenter.embed."""


class FarEmbedder:
    """An Embedder whose network is elsewhere: `name` and `fingerprint` are asked for once."""

    def __init__(self, far: Any, name: str, fingerprint: str) -> None:
        self._far, self.name, self.fingerprint = far, name, fingerprint

    def load(self) -> None:
        """It is loaded there."""

    warm_up = close = load

    def embed(self, image: np.ndarray, masks: Sequence[np.ndarray] | np.ndarray) -> Descriptors:
        """See Embedder.embed."""
        return self._far.embed(image, np.asarray(masks, bool).reshape(-1, *image.shape[:2]))


class FarFlow(FlowBackend):
    """Optical flow here, the picture encoder elsewhere; the sessions of a process share the small mask decoder."""

    def __init__(self, desk: Desk, encoder: Encoder, network: Any, device: str) -> None:
        super().__init__(desk, device)
        self._far = encoder
        self._model = network

    def _encode(self, image: np.ndarray) -> tuple[Any, Any]:
        held = self._encoded
        if held is None or held[0] is not image:
            import torch

            from models.mobile_sam.geometry import Fit

            found = self._far.embed(image)
            held = (image, torch.tensor(found.features, device=self._device)[None], Fit.of(found.height, found.width))
            self._encoded = held
        return held[1], held[2]


class Maker:
    """Makes trackers and banks around two far objects. Call from any thread."""

    def __init__(
        self, encoder: Encoder, embedder: FarEmbedder, profile: str = "edge", device: str = "cpu", threads: int = 1
    ) -> None:
        """`device` and `threads` are for the mask decoder, which works in this process."""
        if profile not in PROFILES:
            raise ValueError(f"there is no profile {profile!r}; choose {' or '.join(PROFILES)}")
        self._encoder, self._embedder, self._profile = encoder, embedder, PROFILES[profile]
        self._device, self._threads = device, threads
        self._lock = threading.Lock()
        self._network: Any = None

    def tracker(self) -> Tracker:
        """For a live session: searches run beside its frames."""
        network = self._decoder()

        def backend(desk: Desk) -> FarFlow:
            return FarFlow(desk, self._encoder, network, self._device)

        embedder: Any = self._embedder
        return Tracker(background=True, make_backend=backend, embedder=embedder, profile=self._profile)

    def bank(self, name: str, views: Sequence[View], done: Any = lambda count: None) -> Bank:
        """A bank of views; `done` is told how many are embedded."""
        counting: Any = _Counting(self._embedder, done)
        return make_bank(name, views, counting)

    def _decoder(self) -> Any:
        with self._lock:
            if self._network is None:
                import torch

                from models.mobile_sam.network import load_mobile_sam

                # A replica works on several sessions at once: each takes one core, not all of them.
                torch.set_num_threads(self._threads)
                self._network = load_mobile_sam(weights.path_of(WEIGHT_NAME), self._device)
            return self._network


class _Counting:
    """The embedder, telling how far it has come."""

    def __init__(self, embedder: FarEmbedder, done: Any) -> None:
        self._embedder, self._done, self._count = embedder, done, 0
        self.name, self.fingerprint = embedder.name, embedder.fingerprint

    def embed(self, image: np.ndarray, masks: Any) -> Descriptors:
        found = self._embedder.embed(image, masks)
        self._count += 1
        self._done(self._count)
        return found


def views_of_mesh(path: Path, count: int) -> list[View]:
    """Rendered views of a mesh file. Raises BankUnusable."""
    try:
        return list(render_views(read_mesh(path), count))
    except (ValueError, IndexError, ArithmeticError) as error:
        raise BankUnusable(f"the mesh cannot be drawn: {error}") from error


def without_banks(state: Mapping[str, Any]) -> dict[str, Any]:
    """A saved state without its banks: megabytes that do not change from frame to frame."""
    targets = {name: {**target, "bank": None} for name, target in state["targets"].items()}
    return {**state, "targets": targets}


def with_banks(state: Mapping[str, Any], banks: Mapping[str, Bank]) -> dict[str, Any]:
    """The inverse. Raises BankUnusable for a target whose bank is not among them."""
    missing = sorted(set(state["targets"]) - set(banks))
    if missing:
        raise BankUnusable(f"the bank of {missing[0]!r} is gone")
    targets = {name: {**target, "bank": banks[name].save()} for name, target in state["targets"].items()}
    return {**state, "targets": targets}
