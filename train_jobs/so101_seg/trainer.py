"""Training of the segmentation network on rendered frames, spoilt anew at every step.

In: Frames and SegSettings. Out: losses, mIoU on frames kept back, state. Called by so101/job.py. Which frames a step
takes and how they are spoilt follows from (seed, step) alone.

Loss: weighted cross-entropy plus 1 − mean soft IoU of the classes that the batch holds; the public training counted
absent classes too, which rewards a network for nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from models.so101_seg import SegCheckpoint, So101Seg, normalise
from robot.contract import SEGMENTER_CLASSES
from train_jobs.errors import CannotStart
from train_jobs.place import Place
from train_jobs.settings import Settings
from train_jobs.so101.average import Average
from train_jobs.so101.ranges import TRAIN_SPOIL
from train_jobs.so101.rate import rate_share
from train_jobs.so101.spoil import spoil
from train_jobs.so101_seg.frames import Frames
from train_jobs.so101_seg.score import Confusion

CLASSES = len(SEGMENTER_CLASSES)
# Table fills nine tenths of most pictures, and things that lie on it are taken for it more often than it for them.
CLASS_WEIGHTS = (1.0, 2.0, 0.5, 2.0, 1.0, 1.5)


class SegSettings(Settings):
    """configs/so101_seg.yaml."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup_steps: int = Field(ge=0)
    cooldown_steps: int = Field(ge=0, description="at the end, with a rate that falls to nothing")
    averaging: float = Field(ge=0, lt=1, description="share of the old in the running average of the weights")
    kept_back: int = Field(ge=1, description="frames at the end of the folder that are measured and not trained on")
    measure_every: int = Field(ge=1)
    seed: int = Field(ge=0, default=0)


class SegTrainer:
    """The Trainer protocol of so101/job.py."""

    def __init__(self, settings: SegSettings, frames: Frames, place: Place, start: SegCheckpoint | None = None) -> None:
        """`start`: weights to go on from, instead of random ones."""
        if len(frames) <= settings.kept_back:
            raise CannotStart(f"{len(frames)} frames: {settings.kept_back} are kept back to measure on; render more")
        torch.manual_seed(settings.seed)
        self.settings, self._frames, self._place = settings, frames, place
        self.steps, self.measure_every, self.steps_done = settings.steps, settings.measure_every, 0
        self.fingerprint = settings.fingerprint(but={"steps", "cooldown_steps"}) + repr(frames.plan)
        network = So101Seg(CLASSES)
        if start is not None:
            self.fingerprint += start.sha256
            network.load_state_dict(start.network.state_dict())
        self.network = network.to(place.device, memory_format=torch.channels_last)
        self._forward: nn.Module = place.wrap(self.network)
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._weights = torch.tensor(CLASS_WEIGHTS, device=place.device)
        self.average = Average(self.network, settings.averaging)

    def step(self) -> dict[str, float]:
        """One batch."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * self._share()
        image, ids = self._batch()
        self.network.train()
        loss = segmentation_loss(self._forward(image), ids, self._weights)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimiser.step()
        self.steps_done += 1
        self.average.update(self.network, self.steps_done)
        return {"loss": float(loss.detach()), "lr": self._optimiser.param_groups[0]["lr"]}

    def measure(self) -> dict[str, float]:
        """mIoU and IoU per class of the average on the frames kept back, spoilt in the training ranges."""
        confusion = Confusion(CLASSES)
        total = len(self._frames)
        network = self.average.network.eval()
        for number in range(total - self.settings.kept_back, total):
            image, ids = self._pictures([number], np.random.default_rng([self.settings.seed, 2**31, number]))
            with torch.inference_mode():
                confusion.add(ids[0].cpu().numpy(), network(image)[0].argmax(0).cpu().numpy())
        values = dict(zip(SEGMENTER_CLASSES, confusion.iou().tolist(), strict=True))
        return {"miou": confusion.mean_iou(), **{name: v for name, v in values.items() if np.isfinite(v)}}

    def state(self) -> dict[str, Any]:
        """Network, optimiser, step."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "steps_done": self.steps_done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.steps_done = state["steps_done"]

    def _share(self) -> float:
        """Of the peak rate."""
        settings = self.settings
        return rate_share(self.steps_done, settings.steps, settings.warmup_steps, settings.cooldown_steps)

    def _batch(self) -> tuple[Tensor, Tensor]:
        settings, place = self.settings, self._place
        chosen = np.random.default_rng([settings.seed, self.steps_done]).integers(
            0, len(self._frames) - settings.kept_back, settings.batch_size
        )[place.rank :: place.workers]
        return self._pictures(list(chosen), np.random.default_rng([settings.seed, self.steps_done, 1 + place.rank]))

    def _pictures(self, numbers: list[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        rgb = np.stack([spoil(self._frames.rgb[n], TRAIN_SPOIL, rng) for n in numbers])
        ids = np.stack([self._frames.ids[n] for n in numbers])
        image = torch.from_numpy(rgb).to(self._place.device).permute(0, 3, 1, 2)
        image = normalise(image).contiguous(memory_format=torch.channels_last)
        return image, torch.from_numpy(ids).to(self._place.device).long()


def segmentation_loss(logits_BCHW: Tensor, ids_BHW: Tensor, weights_C: Tensor) -> Tensor:
    """Weighted cross-entropy plus 1 − mean soft IoU over the classes in `ids_BHW`."""
    entropy = F.cross_entropy(logits_BCHW, ids_BHW, weight=weights_C)
    share = logits_BCHW.softmax(1)
    truth = F.one_hot(ids_BHW, logits_BCHW.shape[1]).permute(0, 3, 1, 2).to(share.dtype)
    common = (share * truth).sum((0, 2, 3))
    either = (share + truth).sum((0, 2, 3)) - common
    present = truth.sum((0, 2, 3)) > 0
    return entropy + 1.0 - (common[present] / either[present]).mean()
