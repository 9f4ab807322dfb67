"""Settings of a training: a YAML file of configs/, read strictly, and its fingerprint.

In: a path, a pydantic model, overrides of the command line. Out: the model. Called by every training's command line.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Set
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from models.errors import ModelError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


class BadSettings(ModelError):
    """A configuration file is wrong; the message names file and key."""


class Settings(BaseModel):
    """Base of all: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fingerprint(self, *, but: Set[str] = frozenset()) -> str:
        """A hash of all values `but` those that say how long: training begun with other ones is not continued."""
        return hashlib.sha256(self.model_dump_json(exclude=set(but)).encode()).hexdigest()


def read_settings[S: Settings](path: Path, kind: type[S], overrides: dict[str, Any]) -> S:
    """The file with the given values replaced. Raises BadSettings that names the key and the nearest known one."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadSettings(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BadSettings(f"{path} holds {type(values).__name__}, expected keys and values")
    try:
        return kind.model_validate({**values, **overrides})
    except ValidationError as error:
        known = list(kind.model_fields)
        raise BadSettings(f"{path}: " + "; ".join(_sentence(item, known) for item in error.errors())) from error


def _sentence(item: Any, known: list[str]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{key}: {item['msg']} (got {item['input']!r})"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
