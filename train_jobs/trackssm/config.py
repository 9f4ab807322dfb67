"""What one phase of training is: the values of `configs/trackssm_*.yaml`, read strictly.

In: a YAML file and a few overrides from the command line. Out: a PhaseConfig. Called by __main__.py and the tests.
"""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from train_jobs.trackssm.errors import BadConfig

Form = Literal["residual", "public"]
SizeName = Literal["small", "full"]


class PhaseConfig(BaseModel):
    """One phase. The names are those of the published recipe where it had one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    def fingerprint(self) -> str:
        """A hash of every value: training that was begun with another one is not continued."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def read_config(path: Path, overrides: dict[str, Any]) -> PhaseConfig:
    """The file with the given values replaced. Raises BadConfig that names the key and the nearest known one."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadConfig(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BadConfig(f"{path} holds {type(values).__name__}, expected keys and values")
    try:
        return PhaseConfig.model_validate({**values, **overrides})
    except ValidationError as error:
        raise BadConfig(f"{path}: " + "; ".join(_sentence(item) for item in error.errors())) from error


def _sentence(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{key}: {item['msg']} (got {item['input']!r})"
    near = difflib.get_close_matches(key, list(PhaseConfig.model_fields), n=1, cutoff=0.5)
    return f"unknown key {key!r}; " + (
        f"did you mean {near[0]!r}?" if near else f"known: {', '.join(PhaseConfig.model_fields)}"
    )
