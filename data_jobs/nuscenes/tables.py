"""The 13 JSON tables of a nuScenes database as typed Arrow tables, cached once as Parquet under their
content's hash.

In: `dataroot/version/*.json`. Out: a TableStore, one Parquet file per table. Called by convert.py, scene_index.py
and the benchmarks. JSON is parsed in pieces, so that the gigabyte tables of trainval never stand in memory as Python
objects. Raises TableError (a RunError) that names table, token and field. Knows nothing of geometry or
sequences.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_jobs.nuscenes.schema import SCHEMAS
from data_jobs.runs.errors import RunError

# Raise when the Parquet files change meaning, so that old caches are left aside.
CACHE_VERSION = 1

# Bytes of JSON parsed at a time: Python objects take about ten times the text, so this bounds memory near 100
# MB.
PIECE_BYTES = 8 << 20

# How many borders between records are tried before a piece counts as broken JSON.
MAX_CUTS = 64

_BETWEEN_RECORDS = re.compile(rb"\}\s*,\s*\{")


class TableError(RunError):
    """A table is missing, malformed or points at nothing; the message names table, token and field."""


@dataclass(frozen=True, slots=True)
class TableStore:
    """Typed tables of one database version, on disk."""

    folder: Path
    content_sha256: str  # over the JSON files' bytes

    def read(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One table; Arrow memory-maps what it can."""
        return pq.read_table(self.folder / f"{table}.parquet", columns=None if columns is None else list(columns))


def open_tables(dataroot: Path, version: str, cache: Path) -> TableStore:
    """Typed tables of `dataroot/version`, read from JSON only if `cache` does not hold this content yet.

    Raises TableError for a missing or malformed table.
    """
    source = dataroot / version
    paths = {table: source / f"{table}.json" for table in SCHEMAS}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise TableError(
            f"{source} is not a nuScenes database: missing {', '.join(missing)}; all 13 tables must be there: "
            f"{', '.join(sorted(SCHEMAS))}"
        )
    content = content_sha256(paths)
    folder = cache / f"tables-{content[:24]}"
    if not (folder / "complete").is_file():
        _fill(folder, paths)
    return TableStore(folder, content)


def content_sha256(paths: dict[str, Path]) -> str:
    """Hash of the names and bytes of all tables and of the cache's own version."""
    total = hashlib.sha256(f"tables/{CACHE_VERSION}".encode())
    for table in sorted(paths):
        with paths[table].open("rb") as file:
            total.update(f"{table}:{hashlib.file_digest(file, 'sha256').hexdigest()};".encode())
    return total.hexdigest()


def _fill(folder: Path, paths: dict[str, Path]) -> None:
    """Write all Parquet files beside the target, then rename: a cache folder is whole or absent."""
    staged = folder.with_name(f".{folder.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    staged.mkdir(parents=True)
    try:
        for table, path in paths.items():
            write_table(table, path, staged / f"{table}.parquet")
        (staged / "complete").write_text("")
        try:
            staged.rename(folder)
        except OSError:
            if not (folder / "complete").is_file():  # else another process was first, with the same content
                raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def write_table(table: str, source: Path, target: Path) -> None:
    """Parse one JSON table in pieces into a typed Parquet file. Raises TableError."""
    schema = pa.schema(list(SCHEMAS[table].items()))
    with pq.ParquetWriter(target, schema, compression="zstd", compression_level=1) as writer:
        for rows in json_pieces(source, table):
            writer.write_batch(typed(rows, table, schema))
    tokens = pq.read_table(target, columns=["token"])["token"]
    if pc.count_distinct(tokens).as_py() != len(tokens):
        counts = pc.value_counts(tokens)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise TableError(f"table {table}: token {twice} stands there twice; tokens must be unique")


def json_pieces(path: Path, table: str) -> Iterator[list[dict[str, Any]]]:
    """Records of a JSON array, some megabytes at a time. Raises TableError for anything but an array of
    objects."""
    with path.open("rb") as file:
        held = file.read(PIECE_BYTES).lstrip()
        if not held.startswith(b"["):
            raise TableError(f"table {table} ({path.name}) is not a JSON array of records")
        held = held[1:]
        while more := file.read(PIECE_BYTES):
            rows, held = _whole_records(held + more, table, path)
            yield rows
        yield _parse(b"[" + held, table, path)


def _whole_records(text: bytes, table: str, path: Path) -> tuple[list[dict[str, Any]], bytes]:
    """The records up to the last border between two, and the text after it; no records when there is no
    border.

    Borders are searched by their punctuation, which a description may hold as text: such a cut does not
    parse, and the border before it is tried. Not one of many parsing means that the file itself is broken.
    """
    borders = [match.start() for match in _BETWEEN_RECORDS.finditer(text, max(0, len(text) - (1 << 18)))]
    for border in reversed(borders[-MAX_CUTS:-1]):
        try:
            return json.loads(b"[" + text[: border + 1] + b"]"), text[border + 1 :].lstrip()[1:]
        except ValueError:
            continue
    return (_parse(b"[" + text[: borders[-1] + 1] + b"]", table, path), b"") if len(borders) > MAX_CUTS else ([], text)


def _parse(text: bytes, table: str, path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise TableError(f"table {table} ({path.name}) is not valid JSON: {error}") from error
    return rows


def typed(rows: list[dict[str, Any]], table: str, schema: pa.Schema) -> pa.RecordBatch:
    """Records as one Arrow batch. Raises TableError that names table, token and field of the first bad
    value."""
    strays = [row for row in rows if not isinstance(row, dict)]
    if strays:
        raise TableError(f"table {table} holds {type(strays[0]).__name__} where a record should stand")
    columns = []
    for field in schema:
        try:
            column = pa.array([row[field.name] for row in rows], field.type)
        except (KeyError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise _first_bad(rows, table, field) from error
        if column.null_count or not _finite(column) or not _whole(rows, field):
            raise _first_bad(rows, table, field)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _finite(column: pa.Array) -> bool:
    while pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    if column.null_count:
        return False
    return not pa.types.is_floating(column.type) or bool(np.isfinite(column.to_numpy(zero_copy_only=False)).all())


def _whole(rows: list[dict[str, Any]], field: pa.Field) -> bool:
    """Whether an integer field holds integers only: Arrow would cut 1.5 down to 1 without a word."""
    return not pa.types.is_integer(field.type) or all(type(row[field.name]) is int for row in rows)


def _first_bad(rows: list[dict[str, Any]], table: str, field: pa.Field) -> TableError:
    for row in rows:
        token = row.get("token", "without token")
        if field.name not in row:
            return TableError(f"table {table}, token {token}: field {field.name} is missing")
        try:
            fits = _finite(pa.array([row[field.name]], field.type)) and _whole([row], field)
            fits &= row[field.name] is not None
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            fits = False
        if not fits:
            return TableError(
                f"table {table}, token {token}: field {field.name} is {row[field.name]!r}, expected {field.type}"
            )
    return TableError(f"table {table}: field {field.name} does not fit {field.type}")


def rows_of(tokens: pa.ChunkedArray, target: pa.ChunkedArray, source_tokens: pa.ChunkedArray, field: str) -> np.ndarray:
    """Row numbers (N,) int64 in the target table of N tokens: the join, as one hash lookup for all rows.

    `field` is "table.field → target" for the message; `source_tokens` name the rows that ask.
    Raises TableError for the first token that points at nothing.
    """
    found = pc.index_in(tokens, value_set=target)
    if found.null_count:
        row = int(np.flatnonzero(pc.is_null(found).to_numpy())[0])
        table, _, rest = field.partition(".")
        name, _, aim = rest.partition(" → ")
        raise TableError(
            f"table {table}, token {source_tokens[row].as_py()}: field {name} points at {tokens[row].as_py()!r}, "
            f"which is no token of table {aim}"
        )
    return found.to_numpy().astype(np.int64)
