"""What one stage of training is: the values of `configs/manipulation_*.yaml`, read by train_jobs/settings.py.

Called by __main__.py and the tests.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from models.manipulation.size import SizeName
from train_jobs.manipulation.weighting import Weighting
from train_jobs.settings import Settings


class StageConfig(Settings):
    """Stage 1: everything that is told from one picture."""

    size: SizeName = "tiny"
    sigma_reparam: bool = False
    pictures: int = Field(ge=1, default=6000)  # synthetic ones to train on
    validation_pictures: int = Field(ge=2, default=400)
    batch_size: int = Field(ge=2, default=32)
    epochs: int = Field(ge=1, default=10)
    lr: float = Field(gt=0, default=1e-3)
    lr_backbone: float = Field(gt=0, le=1, default=0.01)  # of a pretrained one, as a share of lr
    lr_new: float = Field(gt=0, le=1, default=0.5)  # of what stands between backbone and heads
    weight_decay: float = Field(ge=0, default=0.02)
    warmup_steps: int = Field(ge=0, default=50)
    gradient_clip: float = Field(gt=0, default=1.0)
    ema: float = Field(ge=0, lt=1, default=0.995)  # of the averaged weights, which are the ones that are shipped
    bf16: bool = False
    checkpointing: bool = False
    memory_target_gib: float | None = Field(gt=0, default=None)  # more pictures than it holds go through in turns
    augment: bool = True
    checkpoint_every: int = Field(ge=1, default=50)  # steps
    weights: dict[str, float] = Field(default_factory=dict)
    schedules: dict[str, str] = Field(default_factory=dict)
    seed: int = Field(ge=0, default=0)

    def model_post_init(self, _: Any) -> None:
        """Raises UnknownLoss for a weight that is no loss's."""
        self.weighting()

    def weighting(self) -> Weighting:
        """Weights by name."""
        return Weighting(self.weights, self.schedules)
