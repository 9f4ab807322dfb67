"""Settings of the two SO-101 trainings: a YAML file of configs/, read strictly, and its fingerprint.

In: a path, a pydantic model, overrides of the command line. Out: the model. Called by both command lines.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from robot.errors import complaint
from train_jobs.so101.errors import BadSettings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


class Settings(BaseModel):
    """Base of both: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fingerprint(self, *, but: set[str]) -> str:
        """A hash of all values `but` those that say how long: training begun with other ones is not continued."""
        return hashlib.sha256(self.model_dump_json(exclude=but).encode()).hexdigest()


def read_settings[S: Settings](path: Path, kind: type[S], overrides: dict[str, Any]) -> S:
    """The file with the given values replaced. Raises BadSettings that names file and key."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadSettings(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BadSettings(f"{path} holds {type(values).__name__}, expected keys and values")
    try:
        return kind.model_validate({**values, **overrides})
    except ValidationError as error:
        known = ", ".join(kind.model_fields)
        raise BadSettings(f"{path}: {complaint(error)}; known keys: {known}") from error


def rate_share(done: int, steps: int, warmup: int, cooldown: int) -> float:
    """Of the peak rate, for the step after `done`: a linear rise, level, a linear fall over the last `cooldown`."""
    return min(1.0, (done + 1) / max(1, warmup), (steps - done) / max(1, cooldown))
