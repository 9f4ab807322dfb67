"""VideoSegmenter: owns SAM 2 and follows objects through frames that are given one by one, in memory that stays flat.

In: RGB frames, boxes and masks. Out: Followed masks. Called by data_jobs/egoworld/operators/sam2_video.py. A stream
goes the way its frames are given: backwards through a clip is as good as forwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actors.messages import frozen

if TYPE_CHECKING:
    from models.sam2.stream import Seen, Segment

Precision = Literal["fp32", "bf16"]
# Stability as in SAM's automatic masks: the mask's IoU with itself, one logit stricter and one more lenient.
STABILITY_OFFSET = 1.0


@dataclass(frozen=True, slots=True)
class Followed:
    """One object in one frame."""

    mask: np.ndarray  # (H, W) bool; empty when the object is not in the frame
    presence: float  # 0..1 that it is
    stability: float  # 0..1

    def __post_init__(self) -> None:
        """Check the shape once and make the array read-only."""
        object.__setattr__(self, "mask", frozen(self.mask, np.bool_, (None, None), "mask"))


def architecture_named(config: str) -> str:
    """See models.sam2.files.architecture_of. ValueError for an unknown one, as pydantic wants it."""
    from models.errors import UnexpectedModel
    from models.sam2.files import architecture_of

    try:
        return architecture_of(config)
    except UnexpectedModel as error:
        raise ValueError(str(error)) from error


def checkpoint_of(given: str | None, architecture: str) -> Path:
    """See models.sam2.files.checkpoint_of."""
    from models.sam2 import files

    return files.checkpoint_of(given, architecture)


class VideoSegmenter:
    """One network for any number of streams, one after the other."""

    def __init__(
        self,
        checkpoint: Path,
        architecture: str = "sam2.1_hiera_small",
        side_px: int = 1024,
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        self._checkpoint, self._architecture, self._side_px = checkpoint, architecture, side_px
        self._device, self._precision = device, precision
        self._network: Any = None

    def load(self) -> None:
        """Read the checkpoint; a second call does nothing. UnexpectedModel unless it holds the video's memory."""
        if self._network is None:
            import torch

            from models.sam2.build import load

            dtype = torch.bfloat16 if self._precision == "bf16" else torch.float32
            self._network = load(
                self._checkpoint, self._architecture, side_px=self._side_px, device=self._device, dtype=dtype
            )

    def open_stream(self) -> FrameStream:
        """A new stream; it knows nothing of earlier ones."""
        if self._network is None:
            raise RuntimeError("the video segmenter is not loaded; call load() first (or again, after close())")
        return FrameStream(self._network)

    def close(self) -> None:
        """Free the network. Safe before load() and when called twice."""
        self._network = None


class FrameStream:
    """Objects by name along frames. `see` a frame; then `box` or `mask` say where objects are in it."""

    def __init__(self, network: Any) -> None:
        from models.sam2.stream import StreamingSam2

        self._stream = StreamingSam2(network, "exact")
        self._seen: Seen | None = None

    def see(self, image: np.ndarray) -> dict[str, Followed]:
        """Move on to the next frame; where the objects followed so far are in it."""
        self._seen = self._stream.see(image)
        found = self._stream.propagate() if self._stream.objects else {}
        return {name: self._followed(segment) for name, segment in found.items()}

    def box(self, name: str, box_px: np.ndarray) -> Followed:
        """Begin to follow what fills the box (4,) xyxy in the present frame."""
        return self._followed(self._stream.prompt(name, box_px=box_px))

    def mask(self, name: str, mask: np.ndarray) -> Followed:
        """Begin to follow, or correct, an object by its (H, W) bool mask. Raises ValueError for an empty one."""
        return self._followed(self._stream.prompt(name, mask=mask))

    def forget(self, name: str) -> None:
        """Stop following."""
        self._stream.forget(name)

    def appearance(self, mask: np.ndarray) -> np.ndarray:
        """(C,) float32 of unit length: coarsest features inside the mask, minus those of the whole frame."""
        import cv2

        assert self._seen is not None, "see() a frame first"
        height, width = self._seen.sizes[-1]
        features = self._seen.features[-1][:, 0].float().cpu().numpy()  # (h·w, C)
        share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA).ravel()
        # Every place looks a little like the whole picture; without that, all objects would look alike.
        inside = (features - features.mean(axis=0)).T @ share
        return (inside / max(float(np.linalg.norm(inside)), 1e-9)).astype(np.float32)

    def _followed(self, segment: Segment) -> Followed:
        import torch

        from models.sam2.picture import to_picture

        assert self._seen is not None
        low = segment.logits[0].float()
        strict, lenient = (int((low > offset).sum()) for offset in (STABILITY_OFFSET, -STABILITY_OFFSET))
        mask = to_picture(low, self._seen.height, self._seen.width)[0] > 0
        if segment.presence <= 0:
            mask = torch.zeros_like(mask)
        presence = float(torch.sigmoid(torch.tensor(segment.presence)))
        return Followed(mask.cpu().numpy(), presence, strict / lenient if lenient else 0.0)
