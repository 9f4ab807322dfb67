"""The manifest on disk: four tables as Parquet, each with a twin in JSON lines.

In and out: Manifest, a folder. Called by the command line. Column names of video_manifest and clip_manifest
that egoworld's earlier tools know are kept (video_id, path, duration_s, …, clip_id, start_s, …, retry_count).
The same manifest gives the same bytes. Columns are checked by name and type; a missing or unknown one is
refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from data_jobs.egoworld.manifest import CLIP_SCHEMA, Duplicate, Manifest, Rejected
from data_jobs.egoworld.records import Video
from data_jobs.runs.columns import Column, arrow_schema
from data_jobs.runs.errors import RunError

VIDEO_COLUMNS = (
    Column("video_id", pa.string(), "first 16 hex digits of `checksum`"),
    Column("path", pa.string(), "absolute path that the video is read from"),
    Column("duration_s", pa.float64(), "first to last presentation time plus one median interval, seconds"),
    Column("fps", pa.float64(), "frames per second on average"),
    Column("width", pa.int64(), "as shown, pixels"),
    Column("height", pa.int64(), "as shown, pixels"),
    Column("audio", pa.bool_(), "whether there is a sound track"),
    Column("checksum", pa.string(), "sha256 of the whole file, hexadecimal"),
    Column("split", pa.string(), "name that the manifest was made under"),
    Column("name", pa.string(), "path relative to the input"),
    Column("size_bytes", pa.int64(), "of the file"),
    Column("mtime_ns", pa.int64(), "when the file was last changed; with the size tells whether it is the same"),
    Column("rotation_deg", pa.int64(), "clockwise from stored to shown: 0, 90, 180 or 270"),
    Column("codec", pa.string(), "FFmpeg's name"),
    Column("pixel_format", pa.string(), "FFmpeg's name"),
    Column("time_base_numerator", pa.int64(), "of the seconds per unit of pts"),
    Column("time_base_denominator", pa.int64(), "of the seconds per unit of pts"),
    Column("pts", pa.list_(pa.int64()), "presentation time of every frame, in display order"),
)
VIDEO_SCHEMA = arrow_schema(VIDEO_COLUMNS)
_FILE_COLUMNS = [("size_bytes", pa.int64()), ("mtime_ns", pa.int64())]
REJECTED_SCHEMA = pa.schema([(name, pa.string()) for name in ("path", "name", "message")] + _FILE_COLUMNS)
DUPLICATE_SCHEMA = pa.schema([(name, pa.string()) for name in ("path", "name", "video_id")] + _FILE_COLUMNS)

# Rows turned into Python objects at a time while JSON lines are written.
_ROWS_AT_A_TIME = 4096


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write {video_manifest,clip_manifest,rejected,duplicates}.{parquet,jsonl}; each file appears whole or
    not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, table in _tables(manifest).items():
        parquet, jsonl = folder / f"{stem}.parquet", folder / f"{stem}.jsonl"
        # Presentation times are nearly an arithmetic series: as differences they take about one byte a frame.
        encodings = {"pts.list.element": "DELTA_BINARY_PACKED"} if "pts" in table.column_names else None
        plain = [name for name in table.column_names if name != "pts"]
        pq.write_table(table, _staged(parquet), compression="zstd", use_dictionary=plain, column_encoding=encodings)
        _staged(parquet).replace(parquet)
        with _staged(jsonl).open("w", encoding="utf-8") as file:
            file.writelines(_json_lines(table))
        _staged(jsonl).replace(jsonl)


def read_manifest(folder: Path) -> Manifest:
    """The manifest that `write_manifest` left in `folder`, from Parquet, or from JSON lines where there is no
    Parquet.

    Raises RunError when a table is missing, or its columns are not the expected ones.
    """
    table = _read(folder, "video_manifest", VIDEO_SCHEMA)
    rejected = _read(folder, "rejected", REJECTED_SCHEMA).to_pylist()
    duplicates = _read(folder, "duplicates", DUPLICATE_SCHEMA).to_pylist()
    splits = table["split"].unique().to_pylist()
    if len(splits) > 1:
        raise RunError(f"video_manifest in {folder} mixes the splits {', '.join(splits)}; one manifest holds one split")
    return Manifest(
        videos=tuple(_videos(table)),
        mtimes_ns=tuple(table["mtime_ns"].to_pylist()),
        clip_table=read_clip_table(folder),
        rejected=tuple(Rejected(**row) for row in rejected),
        duplicates=tuple(Duplicate(**row) for row in duplicates),
        split=splits[0] if splits else "train",
    )


def read_clip_table(folder: Path) -> pa.Table:
    """Only the clips, as one Arrow table of CLIP_SCHEMA: what planning a run needs. Raises RunError as
    `read_manifest`."""
    return _read(folder, "clip_manifest", CLIP_SCHEMA)


def _tables(manifest: Manifest) -> dict[str, pa.Table]:
    rejected = [asdict(row) for row in manifest.rejected]
    duplicates = [asdict(row) for row in manifest.duplicates]
    return {
        "video_manifest": _video_table(manifest),
        "clip_manifest": manifest.clip_table,
        "rejected": pa.Table.from_pylist(rejected, schema=REJECTED_SCHEMA),
        "duplicates": pa.Table.from_pylist(duplicates, schema=DUPLICATE_SCHEMA),
    }


def _video_table(manifest: Manifest) -> pa.Table:
    renamed = {"audio": "has_audio", "checksum": "content_sha256"}
    columns: dict[str, list[Any]] = {
        name: [getattr(video, renamed.get(name, name)) for video in manifest.videos]
        for name in VIDEO_SCHEMA.names
        if name not in {"split", "mtime_ns", "time_base_numerator", "time_base_denominator"}
    }
    columns["split"] = [manifest.split] * len(manifest.videos)
    columns["mtime_ns"] = list(manifest.mtimes_ns)
    columns["time_base_numerator"] = [video.time_base.numerator for video in manifest.videos]
    columns["time_base_denominator"] = [video.time_base.denominator for video in manifest.videos]
    return pa.table({name: columns[name] for name in VIDEO_SCHEMA.names}, schema=VIDEO_SCHEMA)


def _videos(table: pa.Table) -> Iterator[Video]:
    own = {field.name for field in fields(Video)}
    rows = table.drop_columns(["pts"]).to_pylist()
    for row, pts in zip(rows, table["pts"], strict=True):
        yield Video(
            **{name: value for name, value in row.items() if name in own},
            content_sha256=row["checksum"],
            has_audio=row["audio"],
            time_base=Fraction(row["time_base_numerator"], row["time_base_denominator"]),
            pts=np.asarray(pts.values),
        )


def _json_lines(table: pa.Table) -> Iterator[str]:
    for batch in table.to_batches(max_chunksize=_ROWS_AT_A_TIME):
        for row in batch.to_pylist():
            yield json.dumps(row, ensure_ascii=False) + "\n"


def _read(folder: Path, stem: str, schema: pa.Schema) -> pa.Table:
    parquet, jsonl = folder / f"{stem}.parquet", folder / f"{stem}.jsonl"
    file = parquet if parquet.is_file() else jsonl
    try:
        if parquet.is_file():
            table = pq.read_table(parquet)
        elif jsonl.is_file():
            table = _read_json_lines(jsonl, schema)
        else:
            raise RunError(f"no {stem}.parquet and no {stem}.jsonl in {folder}; make a manifest there first")
        table = table.select(schema.names).cast(schema) if set(table.column_names) == set(schema.names) else table
    except (pa.ArrowException, KeyError) as error:
        raise RunError(f"{file} is not a {stem} table: {error}") from error
    _check(table, schema, file)
    return table


def _read_json_lines(file: Path, schema: pa.Schema) -> pa.Table:
    """Rows of a file whose fields are exactly those of the schema; dictionaries are made afterwards."""
    plain = pa.schema([(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in schema])
    size = file.stat().st_size
    if size == 0:
        return schema.empty_table()
    # One row may hold the times of a whole video, and a row must fit into a block.
    block = min(size + 1, 2**31 - 1) if "pts" in schema.names else 1 << 24
    table = pa_json.read_json(
        file,
        read_options=pa_json.ReadOptions(block_size=block),
        parse_options=pa_json.ParseOptions(explicit_schema=plain, unexpected_field_behavior="error"),
    )
    encoded = [
        table[f.name].combine_chunks().dictionary_encode() if pa.types.is_dictionary(f.type) else table[f.name]
        for f in schema
    ]
    return pa.table(encoded, names=schema.names)


def _check(table: pa.Table, schema: pa.Schema, file: Path) -> None:
    """Refuse a table with other columns than ours or with holes."""
    missing = sorted(set(schema.names) - set(table.column_names))
    unknown = sorted(set(table.column_names) - set(schema.names))
    if missing or unknown:
        raise RunError(f"{file} lacks the columns {missing} and has the unknown ones {unknown}; make the manifest anew")
    holes = [name for name in schema.names if table[name].null_count]
    if holes:
        raise RunError(f"{file} has rows without {', '.join(holes)}; make the manifest anew")


def _staged(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")
