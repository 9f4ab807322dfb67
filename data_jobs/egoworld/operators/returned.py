"""What a program of the user's gave back, turned into a table of ours or refused with the reason.

In: a Parquet file that may hold anything, and the clip's frames. Out: a table in the schema's order and types, or
Malformed. Called by external.py. Frames are named by `frame_index`; times are the clip's own, never the program's.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pycocotools import mask as coco

from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import schema_of

# A program may count in single precision; nothing shown at 240 frames per second is nearer than 4 ms.
TIME_TOLERANCE_S = 1e-3

# Numbers per list where Arrow's type does not say.
LENGTHS = {("hand_pose", "pose"): 63, ("mapping", "tip_error_m"): 4}


class Malformed(Exception):
    """A program's output is not the table that was asked for: its fault, not the clip's."""


def read_returned(path: Path, table: str, clip: Clip, frames: pa.Table) -> pa.Table:
    """The file as `table`, sorted by frame. `timestamp_s` and `pts` may be left out and are checked if given."""
    try:
        given = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise Malformed(f"its output is not a readable Parquet file ({_first_line(error)})") from error
    schema = schema_of(table)
    extra = [name for name in given.column_names if name not in schema.names]
    missing = [name for name in schema.names if name not in (*given.column_names, "timestamp_s", "pts")]
    if missing or extra:
        faults = [f"lacks {', '.join(missing)}" if missing else "", f"has unknown {', '.join(extra)}" if extra else ""]
        raise Malformed(
            f"its {table} table {' and '.join(filter(None, faults))}; columns are {', '.join(schema.names)}"
        )
    columns = {name: _cast(given, table, schema.field(name)) for name in given.column_names}
    places = _places(columns["frame_index"], table, clip)
    for name in ("timestamp_s", "pts"):
        truth = frames[name].take(pa.array(places))
        if name in columns:
            _same_times(columns[name], truth, name)
        columns[name] = truth
    result = pa.table([columns[name] for name in schema.names], schema=schema)
    if table == "masks":
        _check_masks(result, clip)
    order = np.argsort(places, kind="stable")
    return result.take(pa.array(order)).combine_chunks()


def _cast(given: pa.Table, table: str, field: pa.Field) -> pa.ChunkedArray:
    column = given[field.name]
    if column.null_count:
        raise Malformed(f"column {field.name} of its {table} table holds {column.null_count} nulls; none are allowed")
    wanted = field.type
    try:
        # Floats may lose digits (a program may work in double precision); numbers of frames and objects may not.
        column = column.cast(wanted, safe=pa.types.is_integer(wanted))
    except pa.ArrowException as error:
        raise Malformed(f"column {field.name} of its {table} table is {column.type}, not {wanted}") from error
    length = LENGTHS.get((table, field.name))
    if length is not None and len(column) and pc.any(pc.not_equal(pc.list_value_length(column), length)).as_py():
        raise Malformed(f"column {field.name} of its {table} table must hold {length} numbers in every row")
    return column


def _places(frame_index: pa.ChunkedArray, table: str, clip: Clip) -> np.ndarray:
    """Positions of the rows' frames within the clip."""
    index = frame_index.to_numpy()
    if len(index) and not (clip.frame_start <= index.min() and index.max() < clip.frame_end):
        raise Malformed(
            f"its {table} table speaks of frames {index.min()}–{index.max()}, the clip's are "
            f"{clip.frame_start}–{clip.frame_end - 1} (frame_index counts over the whole video)"
        )
    return index - clip.frame_start


def _same_times(given: pa.ChunkedArray, truth: pa.ChunkedArray, name: str) -> None:
    """A program that numbers other frames than ours is found out by its own times."""
    off = np.abs(given.to_numpy().astype(np.float64) - truth.to_numpy())
    worst = int(np.argmax(off)) if len(off) else 0
    if len(off) and not off.max() <= (TIME_TOLERANCE_S if name == "timestamp_s" else 0):
        raise Malformed(f"row {worst} has {name} {given[worst]} for a frame whose {name} is {truth[worst]}")


def _check_masks(table: pa.Table, clip: Clip) -> None:
    for row, text in enumerate(table["mask_rle"].to_pylist()):
        try:
            rle = json.loads(text)
            fits = rle["size"] == [clip.height, clip.width] and isinstance(rle["counts"], str)
            fits = fits and coco.decode(rle).shape == (clip.height, clip.width)
        except (ValueError, KeyError, TypeError) as error:
            raise Malformed(f"mask_rle of row {row} is not COCO run lengths as JSON ({error})") from error
        if not fits:
            raise Malformed(
                f"mask_rle of row {row} is not a compressed mask of the clip's {clip.height}×{clip.width} pixels"
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
