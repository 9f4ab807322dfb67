"""Whether every published clip is whole: the tables that meta.json names, readable, with schema and rows as promised.

In: a run folder. Out: faults in words, none if all is well. Called by the command line's `verify`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_jobs.egoworld.schemas import TABLES, schema_of


def faults(run_folder: Path) -> Iterator[str]:
    """One sentence for each thing that is wrong, clip by clip."""
    for folder in sorted(run_folder.glob("video_id=*/clip_id=*")):
        for fault in _clip_faults(folder):
            yield f"{folder.relative_to(run_folder)}: {fault}"


def _clip_faults(folder: Path) -> Iterator[str]:
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        tables, clip = meta["tables"], meta["clip"]
    except (OSError, ValueError, KeyError) as error:
        yield f"meta.json cannot be read ({error})"
        return
    if f"clip_id={clip['clip_id']}" != folder.name:
        yield f"meta.json speaks of clip {clip['clip_id']}"
    wanted = {"meta.json", *(f"{name}.parquet" for name in tables)}
    present = {path.name for path in folder.iterdir()}
    for name in sorted(wanted ^ present):
        yield f"{name} is {'missing' if name in wanted else 'not named in meta.json'}"
    for name, facts in tables.items():
        if f"{name}.parquet" in present:
            yield from _table_faults(folder / f"{name}.parquet", name, facts["rows"], clip)


def _table_faults(path: Path, name: str, rows: int, clip: dict[str, int]) -> Iterator[str]:
    if name not in TABLES:
        yield f"{path.name}: unknown table; known are {', '.join(sorted(TABLES))}"
        return
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        yield f"{path.name} cannot be read ({error})"
        return
    if not table.schema.equals(schema_of(name)):
        yield f"{path.name}: columns {table.schema.names} are not those of the schema"
        return
    if len(table) != rows:
        yield f"{path.name} holds {len(table)} rows, meta.json says {rows}"
    frames = table["frame_index"].to_numpy()
    if len(frames) and not (clip["frame_start"] <= frames.min() and frames.max() < clip["frame_end"]):
        yield f"{path.name} speaks of frames outside {clip['frame_start']}–{clip['frame_end'] - 1}"
