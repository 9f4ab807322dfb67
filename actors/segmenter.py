"""PromptSegmenter: owns MobileSAM and cuts objects out of pictures, one picture at a time.

In: (H, W, 3) uint8 RGB pictures and Prompts in their pixels. Out: Masks. Called by data_jobs/egoworld
operators and serve. Knows nothing of Ray, of files beyond the weights catalogue, or of other pictures: each
stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actors.messages import Mask, Prompt, frozen
from models import weights

if TYPE_CHECKING:
    import torch

    from models.mobile_sam.geometry import Fit
    from models.mobile_sam.network import MobileSam

WEIGHT_NAME = "mobile_sam"


@dataclass(frozen=True, slots=True)
class ImageEmbedding:
    """What the model saw in one picture; made by `embed`, understood by `segment` only."""

    features: np.ndarray  # (256, 64, 64) float32
    height: int  # of the picture, pixels
    width: int

    def __post_init__(self) -> None:
        """Check the shape once and make the array read-only."""
        object.__setattr__(self, "features", frozen(self.features, np.float32, (256, 64, 64), "features"))


class PromptSegmenter:
    """MobileSAM behind four verbs. Call from one thread at a time.

    The same picture, prompt, thread count and machine give the same bits, whatever other prompts are asked
    with it: each prompt is decoded alone. Batching them would change low bits with the batch size and is no
    faster on a CPU.

    Of SAM's outputs the single mask is taken for every prompt. SAM advises it for boxes and several points; for one
    point it advises the best of three by predicted IoU. With MobileSAM that is no better (406 clicks: mean IoU 0.583
    against 0.588 on LM-O, 0.470 against 0.499 on Aria Digital Twin), and it rates 97 % of its masks above 0.7, so
    that a threshold no longer separates; the single mask's ratings do.
    """

    def __init__(self, threads: int = 1, device: str = "cpu") -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self.threads, self.device = threads, device
        self._model: MobileSam | None = None

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Catalogue names of the weights, for `models.weights.fetch` and `sha256_of`."""
        return (WEIGHT_NAME,)

    def load(self) -> None:
        """Read the model; a second call does nothing. Raises MissingWeight with the command to run."""
        if self._model is None:
            path = weights.path_of(WEIGHT_NAME)
            from models.mobile_sam.network import load_mobile_sam

            with _threads(self.threads):
                self._model = load_mobile_sam(path, self.device)

    def warm_up(self) -> None:
        """Load, and run once, so that the first real picture is not slower than the others."""
        self.load()
        blank = np.zeros((720, 1280, 3), np.uint8)
        self.segment(self.embed(blank), [Prompt(box_px=np.array([10, 10, 90, 90]))])

    def embed(self, image: np.ndarray) -> ImageEmbedding:
        """The expensive step, once per picture. Raises ValueError unless it is (H, W, 3) uint8 RGB."""
        model = self._loaded()
        from models.mobile_sam.geometry import prepare

        with _threads(self.threads):
            square, fit = prepare(image)
            features = model.encode(square.to(self.device), fit.resized_height)
        return ImageEmbedding(features[0].cpu().numpy(), fit.height, fit.width)

    def segment(self, embedding: ImageEmbedding, prompts: Sequence[Prompt]) -> list[Mask]:
        """One mask per prompt, in their order."""
        model = self._loaded()
        import torch

        from models.mobile_sam.geometry import Fit

        fit = Fit.of(embedding.height, embedding.width)
        with _threads(self.threads):
            features = torch.tensor(embedding.features, device=self.device)[None]
            return [self._one(model, features, fit, prompt) for prompt in prompts]

    def close(self) -> None:
        """Free the model. Safe before load() and when called twice."""
        self._model = None

    def _one(self, model: MobileSam, features: torch.Tensor, fit: Fit, prompt: Prompt) -> Mask:
        from models.mobile_sam.geometry import stability, to_picture

        logits, iou = model.decode(features, **_on_square(prompt, fit, self.device), several=False)
        low_res = logits[0].cpu()
        return Mask(
            mask=to_picture(low_res, fit).numpy(),
            # The head is a plain regression and may leave the range that an IoU has.
            predicted_iou=min(max(float(iou[0]), 0.0), 1.0),
            stability=stability(low_res, fit),
            low_res_logits=low_res.numpy(),
        )

    def _loaded(self) -> MobileSam:
        if self._model is None:
            raise RuntimeError("the segmenter is not loaded; call load() first (or again, after close())")
        return self._model


def _on_square(prompt: Prompt, fit: Fit, device: str) -> dict[str, torch.Tensor]:
    """The prompt in pixels of the model's input, as `MobileSam.decode` takes it."""
    import torch

    sent = {}
    if prompt.box_px is not None:
        corners = fit.to_square(prompt.box_px.reshape(2, 2))
        sent["box"] = torch.tensor(corners.reshape(4), device=device)
    if prompt.points_px is not None:
        sent["points_K2"] = torch.tensor(fit.to_square(prompt.points_px), device=device)
        sent["labels_K"] = torch.tensor(prompt.point_labels, device=device)
    return sent


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Torch's thread count is one per process and decides the order of sums: set it for our work only."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
