"""What one phase of training is: the values of `configs/trackssm_*.yaml`, read by train_jobs/settings.py.

Called by __main__.py, job.py and the tests.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from train_jobs.settings import Settings

Form = Literal["residual", "public"]
SizeName = Literal["small", "full"]


class PhaseConfig(Settings):
    """One phase. The names are those of the published recipe where it had one."""

    form: Form = "residual"
    size: SizeName = "small"
    sigmoid: bool = False  # of the public form's output; the residual variant has none
    train_encoder: bool  # false: decoder only, the encoder stays as the start weights have it
    lr_encoder: float = Field(gt=0)
    lr_decoder: float = Field(gt=0)
    batch_size: int = Field(ge=1)  # windows
    sequence_length: int = Field(ge=2)  # frames of history in a window
    num_queries: int = Field(ge=1)  # most tracks of a window
    max_epochs: int = Field(ge=1)
    patience: int = Field(ge=1)  # epochs without a better validation loss
    warmup_epochs: int = Field(ge=0)
    gradient_clip: float = Field(gt=0)
    weight_decay: float = Field(ge=0, default=0.0)
    windows_per_epoch: int | None = Field(ge=1, default=None)  # None: every window once
    most_samples: int = Field(ge=1, default=1024)  # of a batch, drawn at random
    strides: tuple[int, ...] = (1,)  # frames between those of a window, drawn at random: 1 is the recorded rate
    mirror: float = Field(ge=0, le=1, default=0.5)
    validation_windows: int = Field(ge=1, default=64)
    checkpoint_every: int = Field(ge=1, default=50)  # steps
    seed: int = Field(ge=0, default=0)
