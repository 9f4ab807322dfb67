"""Strict configuration files: pydantic models that refuse unknown keys and name the nearest known one.

Used by every job's config; turns a ValidationError into one sentence a person can act on.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from data_jobs.runs.errors import RunError

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """Base of everything read from a file: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def load_config[M: BaseModel](model: type[M], path: Path) -> M:
    """Read YAML or JSON into `model`; RunError names the file, the key and what would be right."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read config {path}: {error}") from error
    try:
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())
        raise RunError(
            f"config {path} is not valid {'JSON' if path.suffix == '.json' else 'YAML'}: {detail}"
        ) from error
    if not isinstance(values, dict):
        raise RunError(f"config {path} holds {type(values).__name__}, expected a mapping of keys")
    return parse(model, values, f"config {path}")


def parse[M: BaseModel](model: type[M], values: dict[str, Any], where: str) -> M:
    """Validate `values`; RunError joins every mistake into one sentence."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RunError(f"{where}: " + "; ".join(_sentence(model, item) for item in error.errors())) from error


def _sentence(model: type[BaseModel], item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{place or 'top level'}: {item['msg'].removeprefix('Value error, ')} (got {item['input']!r})"
    *parents, key = item["loc"]
    known = _keys_at(model, parents)
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
    return f"unknown key {place!r}; {hint}"


def _keys_at(model: type[BaseModel], path: list[Any]) -> list[str]:
    """Field names of the model found by walking `path` from `model`; steps that are not models are skipped."""
    here: type[BaseModel] = model
    for step in path:
        field = here.model_fields.get(str(step))
        inner = _model_in(field.annotation) if field else None
        here = inner or here
    return list(here.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_in(part))), None)
