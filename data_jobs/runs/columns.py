"""A table's columns as they are told: name, Arrow type, meaning. One list makes schema, meta.json and docs/formats.md.

In: columns. Out: an Arrow schema. Used by the jobs' tables and by docs/generate.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its Arrow type and what a reader must know, units included."""

    name: str
    type: pa.DataType
    meaning: str


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of a table."""
    return pa.schema([(column.name, column.type) for column in columns])
