"""Embedder: objects of a picture → descriptors, in chunks, with the way back to the masks they came from.

In: (H, W, 3) uint8 RGB and masks. Out: Descriptors. Called by actors/tracker. The embedded default is MobileNetV2;
DINOv2 where its weights are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from models import weights
from models.embedding.colours import COLOURS, colours
from models.embedding.crops import Crops, CropSpec, cut, normalise
from models.embedding.networks import MobileNet, Network, load_dinov2
from models.sam2.precision import computing, warn_of_xformers

EMBEDDED = "mobilenet_v2"
# A patch is the object's when at least this much of it is.
LEAST_PATCH_COVERAGE = 0.5


@dataclass(frozen=True, slots=True)
class Descriptors:
    """K objects; all vectors and patches have length 1. K may be 0."""

    vectors: np.ndarray  # (K, D) float32, the whole object
    patches: np.ndarray  # (K, G², P) float16, row-major over the square
    on_object: np.ndarray  # (K, G²) bool: which patches show the object
    colours: np.ndarray  # (K, COLOURS) float32, shares that sum to 1 (colours.py)
    index: np.ndarray  # (K,) int64: which of the given masks each row is of (empty masks have none)


class Embedder:
    """Four verbs: load, warm_up, embed, close. `name` is `mobilenet_v2`, or what `load_dinov2` takes."""

    def __init__(
        self,
        name: str = EMBEDDED,
        spec: CropSpec | None = None,
        *,
        chunk: int = 16,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if chunk < 1:
            raise ValueError(f"at least 1 object must go through the network at a time, not {chunk}")
        self.name, self.spec = name, spec or CropSpec()
        self.chunk, self._device, self._dtype = chunk, device, dtype
        self._network: Network | None = None
        self.weights_sha256 = ""

    def load(self) -> None:
        """Read the network; a second call does nothing. Raises MissingWeight or UnexpectedModel."""
        if self._network is not None:
            return
        warn_of_xformers()
        network: Network
        if self.name == EMBEDDED:
            network, self.weights_sha256 = MobileNet(weights.path_of(EMBEDDED)), weights.sha256_of(EMBEDDED)
        else:
            network, self.weights_sha256 = load_dinov2(self.name)
        network.module.to(device=self._device, dtype=self._dtype)
        self._network = network

    def warm_up(self) -> None:
        """Load, and run once."""
        self.load()
        self.embed(np.zeros((8, 8, 3), np.uint8), [np.ones((8, 8), bool)])

    @property
    def fingerprint(self) -> str:
        """16 hex digits over recipe, network and weights: what a bank must have been made with."""
        self._loaded()
        return self.spec.fingerprint(self.name, self.weights_sha256)

    def embed(self, image: np.ndarray, masks: Sequence[np.ndarray] | np.ndarray) -> Descriptors:
        """Descriptors of what the (H, W) bool masks show; none for empty masks, and none for no masks."""
        return self.embed_crops(cut(image, masks, self.spec))

    @torch.inference_mode()
    def embed_crops(self, crops: Crops) -> Descriptors:
        """The same from squares; `crops.index` goes through unchanged."""
        chunks = [
            self._chunk(crops.squares[start : start + self.chunk], crops.coverage[start : start + self.chunk])
            for start in range(0, len(crops.index), self.chunk)
        ]
        if not chunks:
            nothing = np.zeros((0, 0), np.float32)
            none = np.zeros((0, COLOURS), np.float32)
            return Descriptors(nothing, np.zeros((0, 0, 0), np.float16), np.zeros((0, 0), bool), none, crops.index)
        vectors, patches, on_object = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        return Descriptors(vectors, patches, on_object, colours(crops.squares, crops.coverage), crops.index)

    def close(self) -> None:
        """Free the network. Safe before load() and when called twice."""
        self._network = None

    def _loaded(self) -> Network:
        if self._network is None:
            raise RuntimeError("the embedder is not loaded; call load() first (or again, after close())")
        return self._network

    def _chunk(self, squares: np.ndarray, coverage: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        network = self._loaded()
        with computing(network.module):
            deep, patches = network(normalise(squares, self._device, self._dtype))
        covered = torch.tensor(coverage, device=deep.device)[:, None]
        if network.pools:
            share = F.adaptive_avg_pool2d(covered, deep.shape[1:3])[:, 0, :, :, None]
            deep = (deep.float() * share).sum(dim=(1, 2)) / share.sum(dim=(1, 2)).clamp(min=1e-6)
        share = F.adaptive_avg_pool2d(covered, patches.shape[1:3]).flatten(1)
        # A sliver may own no patch by that rule; then its best one.
        on_object = (share >= LEAST_PATCH_COVERAGE) | (share == share.amax(dim=1, keepdim=True))
        vectors = F.normalize(deep.float(), dim=1)
        grid = F.normalize(patches.float().flatten(1, 2), dim=2)
        return vectors.cpu().numpy(), grid.cpu().numpy().astype(np.float16), on_object.cpu().numpy()
