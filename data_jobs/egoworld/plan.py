"""What one run will do: the stages in order, their parameters and weights, and the content key of every artifact.

Made once by the driver from a config, pickled to the workers. Knows no files and runs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_jobs.egoworld.config import EgoworldConfig, OperatorConfig
from data_jobs.egoworld.licences import refuse_unpermitted
from data_jobs.egoworld.operators.base import Operator, OperatorSpec, spec_of
from data_jobs.egoworld.operators.registry import KEYS, operator_class
from data_jobs.runs.errors import RunError
from data_jobs.runs.guard import PUBLISH, RetryPolicy
from data_jobs.runs.keys import artifact_key
from data_jobs.runs.strict import parse


@dataclass(frozen=True, slots=True)
class Stage:
    """One operator as this run uses it."""

    operator: type[Operator]
    params: Any  # the operator's own Params
    key_params: dict[str, Any]  # those parameters that can change the table
    weights: dict[str, str]  # catalogue name → sha256
    published: bool  # False: only computed because another operator reads it

    @property
    def spec(self) -> OperatorSpec:
        """The operator's facts under this run's parameters."""
        return spec_of(self.operator, self.params)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a worker needs to know besides its row."""

    stages: tuple[Stage, ...]  # in the order of the data
    config: EgoworldConfig

    @property
    def stage_names(self) -> tuple[str, ...]:
        """What the guard walks through: operator keys, then publication."""
        return (*(stage.spec.key for stage in self.stages), PUBLISH)

    def stage(self, key: str) -> Stage:
        """The stage of an operator key."""
        return next(stage for stage in self.stages if stage.spec.key == key)

    def artifact_key(self, unit_id: str, key: str) -> str:
        """Content key of an operator's table for a clip."""
        stage = self.stage(key)
        upstream = [self.artifact_key(unit_id, other) for other in stage.spec.upstream]
        parquet = self.config.parquet.model_dump(exclude={"partition"})
        return artifact_key(
            unit_id,
            stage.spec.name,
            stage.spec.version,
            [f"{name}={sha256}" for name, sha256 in stage.weights.items()],
            stage.key_params | {"parquet": parquet},
            upstream,
        )

    def retry_policy(self) -> RetryPolicy:
        """The guard's policy from the config's `retry` block."""
        retry = self.config.retry
        return RetryPolicy(retry.max_retries, retry.base_delay_s, retry.backoff)

    def preload(self) -> list[str]:
        """Modules worth importing before a worker forks."""
        shared = {"data_jobs.runs.guard", "data_jobs.egoworld.task"}
        return sorted(shared | {module for stage in self.stages for module in stage.spec.preload})


def make_plan(config: EgoworldConfig, weight_sha256: Callable[[str], str]) -> tuple[Plan, list[str]]:
    """The plan of a config, and notices about values that were accepted but have no effect.

    `weight_sha256` gives the catalogue's hash of a weight and raises if the file is not there. RunError if an
    operator, backend or parameter does not exist or nothing is enabled.
    """
    wanted = {key: operator for key, operator in config.operators.by_key().items() if operator.enabled}
    if not wanted:
        raise RunError("no operator is enabled: set operators.<name>.enabled for at least one of sam2, hamer")
    # Every word of the config is checked before any file is: a typing error must not wait for a download.
    params: dict[str, Any] = {}
    for key in reversed(config.operators.by_key()):  # from the end of the data, so that what is read is known by then
        if key not in wanted:
            continue
        params[key] = _params(key, wanted[key])
        spec = spec_of(operator_class(key, wanted[key].backend), params[key])
        refuse_unpermitted(spec, config.allow_licence)
        for upstream in spec.upstream:
            if KEYS.index(upstream) >= KEYS.index(key):
                raise RunError(
                    f"operators.{key}.params.upstream: {upstream} comes after {key}; the order is {', '.join(KEYS)}"
                )
            wanted.setdefault(upstream, getattr(config.operators, upstream))
    notices: list[str] = []
    ordered = {key: wanted[key] for key in config.operators.by_key() if key in wanted}
    stages = [_stage(key, operator, params[key], weight_sha256, notices) for key, operator in ordered.items()]
    return Plan(tuple(stages), config), notices


def _params(key: str, operator: OperatorConfig) -> Any:
    cls = operator_class(key, operator.backend)
    return parse(cls.Params, operator.params, f"operators.{key}.params (backend {cls.spec.backend})")


def _stage(
    key: str, operator: OperatorConfig, params: Any, weight_sha256: Callable[[str], str], notices: list[str]
) -> Stage:
    cls = operator_class(key, operator.backend)
    values = params.model_dump(mode="json", exclude_none=True)
    unused = sorted(name for name in cls.FOREIGN if _drop(values, name.split(".")))
    if unused:
        notices.append(f"{cls.spec.name} does not use {', '.join(unused)} (accepted from the seed's config)")
    weights = {name: weight_sha256(name) for name in cls.weights(params)}
    files = getattr(cls, "files", None)  # of operators whose weights are the user's own
    for name, (path, wanted) in (files(params) if files else {}).items():
        weights[name] = _file_sha256(path)
        if wanted is not None and weights[name] != wanted.lower():
            raise RunError(f"{cls.spec.name}: {path} has sha256 {weights[name]}, the config says {wanted}")
    return Stage(cls, params, values, weights, operator.enabled)


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{path}, which the config names, cannot be read: {error.strerror}") from error


def _drop(values: dict[str, Any], path: list[str]) -> bool:
    """Remove the value at a dotted path; whether it was set."""
    *parents, leaf = path
    for parent in parents:
        values = values.get(parent, {})
    return values.pop(leaf, None) is not None
