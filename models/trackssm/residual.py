"""The residual variant: what to add to the Kalman filter's box, and how sure that is.

In: tokens (B, K, FEATURES) of memory.py. Out: answers (B, 4) and the logarithm of their spread (B, 4), both in units
of the filter's own standard deviation: offsets of the centre, logarithms of the size. Used by
data_jobs/nuscenes/learned.py and train_jobs/trackssm.

Same encoder and flow as the public form, but each head adds a step to the answer instead of naming a box. The last
layers start at zero: an untrained network IS the tuned, ego-warped filter, box and spread, and training can only move
it from there. The public form must reproduce the box itself to a pixel before it can say anything about motion.
"""

# B tracks, H heads, K observations

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.box_kalman import FloatArray
from models.errors import UnexpectedModel
from models.trackssm import memory
from models.trackssm.checkpoint import EMBEDDING, fill, read_checkpoint, size_of
from models.trackssm.decoder import FlowStep, in_a_row
from models.trackssm.losses import giou, step_targets
from models.trackssm.mamba import Encoder
from models.trackssm.size import Size

# Answers beyond this many of the filter's standard deviations are not believed.
MOST_SIGMAS = 8.0
# Spreads between a twentieth and twenty times the filter's.
MOST_LOG_SPREAD = 3.0


class ResidualHead(FlowStep):
    """A flow step whose code is the answer so far and whose output is a step to add to it."""

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self.answer_in = nn.Linear(4, size.width)
        self.answer_out = nn.Linear(size.width, 4)
        nn.init.zeros_(self.answer_out.weight)
        nn.init.zeros_(self.answer_out.bias)

    def forward(self, answer: Tensor, flow: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Answer so far (B, 4) → next answer, feature (B, E), new state."""
        feature, h = self.step(self.answer_in(answer) + flow, flow, h)
        return answer + self.answer_out(feature), feature, h


class ResidualDecoder(nn.Module):
    """Heads in a row, and the spread from the last one's feature."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.head_series = in_a_row(ResidualHead(size) for _ in range(size.heads))
        self.spread_out = nn.Linear(size.width, 4)
        nn.init.zeros_(self.spread_out.weight)
        nn.init.zeros_(self.spread_out.bias)

    def forward(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Flow (B, E) → answers after each head (H, B, 4), log spread (B, 4)."""
        answer, h, answers = torch.zeros(len(flow), 4, dtype=flow.dtype, device=flow.device), None, []
        for head in self.head_series:
            answer, feature, h = head(answer, flow, h)
            answers.append(answer)
            answer, h = answer.detach(), h.detach()
        # The spread is read off the feature, not allowed to bend it.
        spread = self.spread_out(feature.detach()).clamp(-MOST_LOG_SPREAD, MOST_LOG_SPREAD)
        return torch.stack(answers), spread


class ResidualTrackSSM(nn.Module):
    """Encoder and residual decoder. `unposed` says whether it learned from recordings without the camera's way."""

    def __init__(self, size: Size, unposed: bool = False) -> None:
        super().__init__()
        self.size, self.unposed = size, unposed
        self.encoder = Encoder(memory.FEATURES, size.width, size.layers, size.state)
        self.ssm_decoder = ResidualDecoder(size)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, FEATURES) → answers after each head (H, B, 4), log spread (B, 4)."""
        return self.ssm_decoder(self.encoder(tokens))

    def asked(self, known: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """For which tracks (N,) its answer counts: without the camera's way, only if it ever learned without."""
        return known | self.unposed

    def loss(self, tokens: Tensor, base: Tensor, sigma: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(smooth L1 in sigmas, 1 − GIoU, Gaussian log-likelihood of the spread), means over tracks.

        base, target (B, 4) boxes cx cy w h in pixels, sigma (B, 4) pixels: the filter's box, its spread, the truth.
        """
        answers, spread = self(tokens)
        wanted = answers_of(base, sigma, target)
        goals = step_targets(torch.zeros_like(wanted), wanted, len(answers))
        smooth = F.smooth_l1_loss(answers, goals, reduction="none", beta=0.5).mean(dim=(1, 2)).sum()
        overlap = (1 - giou(boxes_of(answers[-1], base, sigma), target)).mean()
        off = (wanted - answers[-1].detach()) * torch.exp(-spread)
        # Student's t with 4 degrees of freedom: a few wild boxes must not set the spread of all.
        likelihood = (spread + 2.5 * torch.log1p(off.square() / 4)).mean()
        return smooth, overlap, likelihood


def answers_of(base: Tensor, sigma: Tensor, box: Tensor) -> Tensor:
    """The answer (B, 4) that turns `base` into `box`, both (B, 4) pixels; bounded to MOST_SIGMAS."""
    centre = (box[:, :2] - base[:, :2]) / sigma[:, :2]
    size = torch.log(box[:, 2:] / base[:, 2:]) * base[:, 2:] / sigma[:, 2:]
    return torch.cat([centre, size], dim=1).clamp(-MOST_SIGMAS, MOST_SIGMAS)


def boxes_of(answer: Tensor, base: Tensor, sigma: Tensor) -> Tensor:
    """The boxes (B, 4) that answers (B, 4) stand for: the inverse of `answers_of` within its bounds."""
    answer = answer.clamp(-MOST_SIGMAS, MOST_SIGMAS)
    centre = base[:, :2] + sigma[:, :2] * answer[:, :2]
    size = base[:, 2:] * torch.exp((sigma[:, 2:] / base[:, 2:] * answer[:, 2:]).clamp(-1, 1))
    return torch.cat([centre, size], dim=1)


@torch.inference_mode()
def predict(
    network: ResidualTrackSSM, tokens: np.ndarray, base: FloatArray, sigma: FloatArray, known: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Boxes (N, 4) and their standard deviations (N, 4), pixels.

    known (N,): whether the camera's way was measured. Where not asked, the filter's box and spread stand.
    """
    if not network.asked(known).any():
        return base.copy(), sigma.copy()
    answers, spread = network(torch.as_tensor(tokens))
    asked = torch.as_tensor(network.asked(known))[:, None]
    box = boxes_of(answers[-1].double() * asked, torch.as_tensor(base), torch.as_tensor(sigma))
    return box.numpy(), sigma * np.exp((spread.double() * asked).numpy())


def load_residual(path: Path) -> ResidualTrackSSM:
    """The network of a checkpoint, strictly, in eval mode. Raises UnexpectedModel, also for the public form."""
    checkpoint = read_checkpoint(path)
    size, inputs = size_of(checkpoint), checkpoint.weights[EMBEDDING].shape[0]
    if inputs != memory.FEATURES:
        raise UnexpectedModel(
            f"{path} takes {inputs} numbers per token, the residual variant {memory.FEATURES}: it is the public form, "
            f"or of another version"
        )
    return fill(ResidualTrackSSM(size, bool(checkpoint.note.get("unposed"))), checkpoint).eval()
