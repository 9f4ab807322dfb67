"""What one stage of training is: the values of `configs/manipulation_*.yaml`, read strictly.

In: a YAML file and a few overrides from the command line. Out: a StageConfig. Called by __main__.py and the tests.
"""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.manipulation.size import SizeName
from train_jobs.manipulation.errors import BadConfig
from train_jobs.manipulation.weighting import Weighting


class StageConfig(BaseModel):
    """Stage 1: everything that is told from one picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    augment: bool = True
    checkpoint_every: int = Field(ge=1, default=50)  # steps
    weights: dict[str, float] = {}
    schedules: dict[str, str] = {}
    seed: int = Field(ge=0, default=0)

    def model_post_init(self, _: Any) -> None:
        """Raises UnknownLoss for a weight that is no loss's."""
        self.weighting()

    def weighting(self) -> Weighting:
        """Weights by name."""
        return Weighting(self.weights, self.schedules)

    def fingerprint(self) -> str:
        """A hash of every value: training that was begun with another one is not continued."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def read_config(path: Path, overrides: dict[str, Any]) -> StageConfig:
    """The file with the given values replaced. Raises BadConfig that names the key and the nearest known one."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadConfig(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BadConfig(f"{path} holds {type(values).__name__}, expected keys and values")
    try:
        return StageConfig.model_validate({**values, **overrides})
    except ValidationError as error:
        raise BadConfig(f"{path}: " + "; ".join(_sentence(item) for item in error.errors())) from error


def _sentence(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{key}: {item['msg']} (got {item['input']!r})"
    near = difflib.get_close_matches(key, list(StageConfig.model_fields), n=1, cutoff=0.5)
    known = ", ".join(StageConfig.model_fields)
    return f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {known}")
