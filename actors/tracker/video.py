"""Following with SAM 2: its streaming memory, and automatic masks, on one backbone.

In: frames and the masks to start from. Out: masks and presence. Implements backend.Backend; called by tracker.py. The
frame that a search was done on is not encoded again for tracking.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.tracker.backend import Followed, box_of, mask_iou
from models.proposals import PointDecoder
from models.sam2.automatic import Sam2Points
from models.sam2.build import compile_encoder, load
from models.sam2.picture import to_picture
from models.sam2.precision import warn_of_xformers
from models.sam2.stream import Mode, Seen, Segment, StreamingSam2

# A proposal is taken as it is only if SAM 2, asked with its box, draws another thing; else SAM 2's own mask is
# better: a mask given to it is remembered literally, with every speck.
LEAST_AGREEMENT = 0.7


class Sam2Backend:
    """See backend.Backend. Several cameras may share one `network`; the memory is each backend's own."""

    def __init__(
        self,
        checkpoint: Path | None = None,
        architecture: str = "sam2.1_hiera_tiny",
        *,
        network: Any = None,
        mode: Mode = "exact",
        side_px: int = 1024,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        if (checkpoint is None) == (network is None):
            raise ValueError("give either a checkpoint or a network")
        self._checkpoint, self._architecture, self._network = checkpoint, architecture, network
        self._mode, self._side_px, self._device, self._dtype = mode, side_px, device, dtype
        self._compiled = compiled
        self._stream: StreamingSam2 | None = None
        self._image: np.ndarray | None = None
        self._encoded: tuple[np.ndarray, Seen] | None = None

    def load(self) -> None:
        """See Backend. Raises UnexpectedModel for a checkpoint without the video's memory."""
        if self._stream is None:
            warn_of_xformers()
            if self._network is None:
                assert self._checkpoint is not None
                self._network = load(
                    self._checkpoint, self._architecture, side_px=self._side_px, device=self._device, dtype=self._dtype
                )
            if self._compiled:
                compile_encoder(self._network)
            self._stream = StreamingSam2(self._network, self._mode)

    def decoder(self, image: np.ndarray) -> PointDecoder:
        """See Backend."""
        return Sam2Points(self._network, self._encode(image))

    def see(self, image: np.ndarray, learn: Mapping[str, bool]) -> dict[str, Followed]:
        """See Backend. Without anything to follow the backbone is spared."""
        stream, self._image = self._loaded(), image
        if not stream.objects:
            return {}
        stream.see(self._encode(image))
        found = stream.propagate(None if stream.mode == "exact" else learn)
        return {name: self._followed(segment) for name, segment in found.items()}

    def begin(self, name: str, mask: np.ndarray) -> Followed:
        """See Backend."""
        stream, image = self._loaded(), self._image
        if image is None:
            raise RuntimeError("see() a frame first")
        if not stream.objects:
            stream.see(self._encode(image))
        drawn = self._followed(stream.prompt(name, box_px=box_of(mask)))
        if mask_iou(drawn.mask, mask) < LEAST_AGREEMENT:
            stream.forget(name)
            drawn = self._followed(stream.prompt(name, mask=mask))
        return Followed(drawn.mask, 1.0)

    def forget(self, name: str) -> None:
        """See Backend."""
        if self._stream is not None and name in self._stream.objects:
            self._stream.forget(name)

    def save(self) -> dict[str, Any]:
        """See Backend."""
        return self._loaded().save()

    def restore(self, saved: Mapping[str, Any]) -> None:
        """See Backend."""
        self._loaded().restore(saved)
        self._image = self._encoded = None

    def close(self) -> None:
        """See Backend."""
        self._stream = self._network = self._encoded = None

    def _loaded(self) -> StreamingSam2:
        if self._stream is None:
            raise RuntimeError("the tracker is not loaded; call load() first (or again, after close())")
        return self._stream

    def _encode(self, image: np.ndarray) -> Seen:
        held = self._encoded
        if held is None or held[0] is not image:
            held = (image, self._loaded().encode(image))
            self._encoded = held
        return held[1]

    def _followed(self, segment: Segment) -> Followed:
        assert self._image is not None
        logits = to_picture(segment.logits[0], *self._image.shape[:2])
        mask = (logits[0] > 0).cpu().numpy()  # to the host before numpy touches it
        return Followed(mask, float(1 / (1 + np.exp(-segment.presence))))
