"""Detections from whatever file they come in, laid onto the frames of converted sequences, with one hash for
all.

In: a Parquet file keyed by image token, or a folder of MOT text files. Out: MotRows per sequence. Called by
track.py. Errors name the file and the row. Two trackers are comparable only if `sha256` of their detections
is the same.

Parquet: `sample_data_token, x_px, y_px, w_px, h_px, score, class_id`. Folder: `<sequence>.txt`,
`<split>/<sequence>.txt` or `<split>/<sequence>/det/det.txt` with `frame,-1,x,y,w,h,score,class` per line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_jobs.nuscenes.evaluate import SequenceRef
from data_jobs.nuscenes.mot_files import BoxFileError, MotRows, check_classes, read_mot, rows_of_table

COLUMNS = ("x_px", "y_px", "w_px", "h_px", "score", "class_id")


@dataclass(frozen=True, slots=True)
class DetectionSet:
    """Detections of every sequence, by sequence name."""

    rows: dict[str, MotRows]
    sha256: str  # over sequences, frames, boxes, scores and classes
    unplaced: int  # detections in images that are in no sequence (before the first or after the last keyframe)


def read_detections(path: Path, sequences: Sequence[SequenceRef]) -> DetectionSet:
    """All detections of `sequences`. Raises BoxFileError for NaN, unknown classes, boxes without area, double
    ids."""
    rows, unplaced = _from_parquet(path, sequences) if path.suffix == ".parquet" else _from_folder(path, sequences)
    total = hashlib.sha256()
    for name in sorted(rows):
        _check(rows[name], f"{path}, sequence {name}")
        total.update(f"{name}:{len(rows[name].frame)};".encode())
        for column in (rows[name].frame, rows[name].xywh_px, rows[name].score, rows[name].class_id):
            total.update(np.ascontiguousarray(column).tobytes())
    return DetectionSet(rows, total.hexdigest(), unplaced)


def _check(rows: MotRows, where: str) -> None:
    check_classes(rows.class_id, where)
    flat = np.flatnonzero((rows.xywh_px[:, 2:] <= 0).any(axis=1))
    if len(flat):
        raise BoxFileError(f"{where}: a box in frame {rows.frame[flat[0]]} has no area")
    outside = np.flatnonzero((rows.score < 0) | (rows.score > 1))
    if len(outside):
        raise BoxFileError(f"{where}: score {rows.score[outside[0]]} in frame {rows.frame[outside[0]]} is not in 0–1")
    named = rows.id >= 0
    key = rows.frame[named] * (rows.id.max(initial=0) + 1) + rows.id[named]
    unique, count = np.unique(key, return_counts=True)
    if (count > 1).any():
        frame, identity = divmod(int(unique[count > 1][0]), int(rows.id.max()) + 1)
        raise BoxFileError(f"{where}: detection id {identity} stands twice in frame {frame}; use −1 or unique ids")


def _from_folder(folder: Path, sequences: Sequence[SequenceRef]) -> tuple[dict[str, MotRows], int]:
    if not folder.is_dir():
        raise BoxFileError(f"there are no detections at {folder}; expected a .parquet file or a folder of MOT files")
    found, unplaced = {}, 0
    for sequence in sequences:
        places = (
            folder / f"{sequence.name}.txt",
            folder / sequence.split / f"{sequence.name}.txt",
            folder / sequence.split / sequence.name / "det" / "det.txt",
        )
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise BoxFileError(f"no detections for {sequence.name}: looked for {', '.join(map(str, places))}")
        rows = read_mot(path)
        frames = pq.ParquetFile(sequence.folder / "frames.parquet").metadata.num_rows
        inside = (rows.frame >= 1) & (rows.frame <= frames)
        found[sequence.name], unplaced = rows.chosen(inside), unplaced + int((~inside).sum())
    return found, unplaced


def _from_parquet(path: Path, sequences: Sequence[SequenceRef]) -> tuple[dict[str, MotRows], int]:
    if not path.is_file():
        raise BoxFileError(f"there are no detections at {path}")
    table = pq.read_table(path)
    missing = [name for name in ("sample_data_token", *COLUMNS) if name not in table.column_names]
    if missing:
        raise BoxFileError(
            f"{path} has no column {', '.join(missing)}; expected sample_data_token, {', '.join(COLUMNS)}"
        )
    data = np.stack([table[name].cast(pa.float64()).to_numpy() for name in COLUMNS], axis=1)
    bad = np.flatnonzero(~np.isfinite(data).all(axis=1))
    if len(bad):
        token = table["sample_data_token"][int(bad[0])].as_py()
        raise BoxFileError(f"{path}, row {bad[0]} (image {token}): a value is missing or not a finite number")
    order = pc.sort_indices(table["sample_data_token"])
    tokens, data = table["sample_data_token"].take(order), data[order.to_numpy()]
    unique = tokens.unique()
    starts = pc.index_in(unique, value_set=tokens).to_numpy()
    ends = np.append(starts[1:], len(tokens))
    found, placed = {}, 0
    for sequence in sequences:
        frames = pq.read_table(sequence.folder / "frames.parquet", columns=["frame", "sample_data_token"])
        where = pc.index_in(frames["sample_data_token"], value_set=unique)
        has = where.is_valid().to_numpy()
        runs = [(starts[k], ends[k]) for k in where.drop_null().to_pylist()]
        rows = np.concatenate([np.arange(a, b) for a, b in runs]) if runs else np.zeros(0, np.int64)
        frame = np.repeat(frames["frame"].to_numpy()[has], [b - a for a, b in runs])
        placed += len(rows)
        found[sequence.name] = rows_of_table(
            np.column_stack([frame, np.full(len(rows), -1.0), data[rows], np.full(len(rows), -1.0)])
        )
    return found, len(data) - placed
