"""What an operator is. Each backend file defines one; registry.py lists them; task.py runs them.

An operator is a plain class: it owns its actors, decodes what it needs in bounded windows, and returns one table.
It must give the same bytes for the same clip whatever the window size and whatever ran before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pyarrow as pa
from pydantic import BaseModel

from data_jobs.egoworld.records import Clip


@dataclass(frozen=True, slots=True)
class OperatorSpec:
    """What the plan must know of an operator without loading it."""

    key: str  # the operator's name in the config: sam2, hamer, …
    backend: str
    version: int  # raised whenever the same input would give other bytes
    table: str  # the table it writes, a key of schemas.TABLES
    licence: str  # of the code and weights that make the table
    upstream: tuple[str, ...]  # keys of the operators whose tables it reads
    preload: tuple[str, ...]  # modules a worker imports once, before it forks

    @property
    def name(self) -> str:
        """`key:backend`, as printed everywhere."""
        return f"{self.key}:{self.backend}"


def spec_of(operator: type[Operator], params: Any) -> OperatorSpec:
    """The operator's facts under these parameters, which may decide licence and upstream (`specified`)."""
    specified = getattr(operator, "specified", None)
    spec: OperatorSpec = specified(params) if specified else operator.spec
    return spec


class Operator(Protocol):
    """The four verbs: `load`, `warm_up` (inside load), `run`, `close`."""

    spec: ClassVar[OperatorSpec]
    Params: ClassVar[type[BaseModel]]
    FOREIGN: ClassVar[tuple[str, ...]]  # dotted parameters it accepts for other backends' sake and does not use

    def __init__(self, params: Any) -> None: ...

    @staticmethod
    def weights(params: Any) -> tuple[str, ...]:
        """Names in models/weights.yaml that these parameters need, in a fixed order."""

    def load(self) -> None:
        """Load models; MissingWeight says which command fetches what is absent."""

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """The operator's table for one clip. `upstream` maps operator keys to their tables.

        Raises InputError, TransientError or ResourceError by cause; anything else counts as a bug.
        """

    def close(self) -> None:
        """Free what `load` took."""
