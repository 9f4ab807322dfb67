"""D2MP, the network of TrackSSM in its public form: five past boxes with their changes → the next box.

In: conditions (B, L, 8), oldest first: cx, cy, w, h and their change since the frame before, as shares of the image.
Out: the next box (B, 4). Used by data_jobs/nuscenes/learned.py and train_jobs/trackssm. Parameter names are those of
the public files (checkpoint.py reads them).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.trackssm.decoder import FlowDecoder
from models.trackssm.losses import s2l_loss
from models.trackssm.mamba import Encoder
from models.trackssm.size import Size

HISTORY = 5
INPUTS = 8
# Longer sequences want a parallel scan; nothing here tracks with more history than this.
MOST_TOKENS = 16


class BadCondition(ModelError):
    """A history that the network was not made for: too long, not finite, of another shape."""


class D2MP(nn.Module):
    """Encoder and flow decoder. `sigmoid` is a property of the weights that no file records."""

    def __init__(self, size: Size, sigmoid: bool) -> None:
        super().__init__()
        self.size = size
        self.encoder = Encoder(INPUTS, size.width, size.layers, size.state)
        self.ssm_decoder = FlowDecoder(size, sigmoid)

    def forward(self, condition: Tensor) -> Tensor:
        """(B, L, 8) → next box (B, 4) as shares of the image."""
        return self.steps(condition)[-1]

    def steps(self, condition: Tensor) -> Tensor:
        """(B, L, 8) → box after each head (H, B, 4). Raises BadCondition for another shape."""
        if condition.dim() != 3 or condition.shape[2] != INPUTS or not 1 <= condition.shape[1] <= MOST_TOKENS:
            raise BadCondition(
                f"a condition has the shape {tuple(condition.shape)}; expected (tracks, 1 to {MOST_TOKENS}, {INPUTS})"
            )
        return self.ssm_decoder(condition[:, -1, :4], self.encoder(condition))[0]

    def loss(self, condition: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(smooth L1 part, GIoU part) of the S2L loss on targets (B, 4); the same in train and eval mode."""
        return s2l_loss(self.steps(condition), condition[:, -1, :4], target)


def condition_of(boxes: np.ndarray, image_wh: tuple[float, float], history: int = HISTORY) -> np.ndarray:
    """One track's last boxes with changes (T, 8) in pixels → condition (history, 8) float32 as shares of the image.

    T ≤ history. Shorter ones are filled as the public tracker does: the last row, change included, is repeated at
    the end. Raises BadCondition when there is no row, too many, or one is not finite.
    """
    if not 1 <= len(boxes) <= history or boxes.shape[1:] != (INPUTS,):
        raise BadCondition(f"a history has the shape {boxes.shape}; expected 1 to {history} rows of {INPUTS} numbers")
    if not np.isfinite(boxes).all():
        raise BadCondition(f"row {int(np.argmin(np.isfinite(boxes).all(axis=1)))} of a history is not finite: {boxes}")
    shares = boxes / np.tile(np.array(image_wh, dtype=np.float64), 4)
    padding = np.repeat(shares[-1:], history - len(shares), axis=0)
    return np.concatenate([shares, padding]).astype(np.float32)


@torch.inference_mode()
def next_boxes(network: D2MP, conditions: np.ndarray) -> np.ndarray:
    """Conditions (B, L, 8) → boxes (B, 4) float64, shares of the image."""
    return network(torch.as_tensor(conditions)).double().numpy().copy()
