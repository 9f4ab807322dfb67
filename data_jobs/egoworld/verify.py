"""Whether every published clip is whole: the tables that meta.json names, readable, with schema and rows as promised.

In: a run's folder or URL. Out: faults in words, none if all is well. Called by the command line's `verify`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from data_jobs.egoworld.schemas import TABLES, schema_of
from data_jobs.runs.places import Run, Where, open_run


def faults(where: Where) -> Iterator[str]:
    """One sentence for each thing that is wrong, clip by clip."""
    run = open_run(where)
    for folder in run.store.folders(run.name):
        for fault in _clip_faults(run, folder):
            yield f"{folder.removeprefix(run.name + '/')}: {fault}"


def _clip_faults(run: Run, folder: str) -> Iterator[str]:
    try:
        meta = json.loads(run.store.read(f"{folder}/meta.json"))
        tables, clip = meta["tables"], meta["clip"]
    except (OSError, ValueError, KeyError) as error:
        yield f"meta.json cannot be read ({error})"
        return
    if f"clip_id={clip['clip_id']}" != folder.rpartition("/")[2]:
        yield f"meta.json speaks of clip {clip['clip_id']}"
    wanted = {"meta.json", *(f"{name}.parquet" for name in tables)}
    present = set(run.store.files(folder))
    for name in sorted(wanted ^ present):
        yield f"{name} is {'missing' if name in wanted else 'not named in meta.json'}"
    for name, facts in tables.items():
        if f"{name}.parquet" in present:
            yield from _table_faults(run, f"{folder}/{name}.parquet", name, facts["rows"], clip)


def _table_faults(run: Run, path: str, name: str, rows: int, clip: dict[str, int]) -> Iterator[str]:
    file = f"{name}.parquet"
    if name not in TABLES:
        yield f"{file}: unknown table; known are {', '.join(sorted(TABLES))}"
        return
    try:
        table = pq.ParquetFile(pa.BufferReader(run.store.read(path))).read()
    except (OSError, pa.ArrowException) as error:
        yield f"{file} cannot be read ({error})"
        return
    if not table.schema.equals(schema_of(name)):
        yield f"{file}: columns {table.schema.names} are not those of the schema"
        return
    if len(table) != rows:
        yield f"{file} holds {len(table)} rows, meta.json says {rows}"
    frames = table["frame_index"].to_numpy()
    if len(frames) and not (clip["frame_start"] <= frames.min() and frames.max() < clip["frame_end"]):
        yield f"{file} speaks of frames outside {clip['frame_start']}–{clip['frame_end'] - 1}"
