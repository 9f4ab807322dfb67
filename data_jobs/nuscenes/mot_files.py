"""MOT text files ↔ arrays, read strictly: `frame,id,x,y,w,h,score,class,…` per line.

In: a path. Out: MotRows. Called by evaluate.py, track.py, detections.py and the benchmarks. Errors name file
and line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from data_jobs.nuscenes.matching import Boxes, FloatArray, IntArray
from data_jobs.nuscenes.schema import CLASSES
from data_jobs.runs.errors import RunError


class BoxFileError(RunError):
    """A file of tracks or detections cannot be used; the message names file, line and what would be right."""


@dataclass(frozen=True, slots=True)
class MotRows:
    """N rows of a MOT file, sorted by frame; rows of a frame keep their order."""

    frame: IntArray  # (N,) from 1
    id: IntArray  # (N,) −1 in detection files
    xywh_px: FloatArray  # (N, 4)
    score: FloatArray  # (N,) confidence, or the "count it" flag of a gt file
    class_id: IntArray  # (N,) −1 where the file has none
    visibility: FloatArray  # (N,) ninth column, −1 where the file has none

    def chosen(self, rows: np.ndarray) -> MotRows:
        """These rows (index or mask) only."""
        return MotRows(*(getattr(self, name)[rows] for name in MotRows.__slots__))

    @property
    def boxes(self) -> Boxes:
        """The geometry and identity alone."""
        return Boxes(self.frame, self.id, self.xywh_px)


def read_mot(path: Path) -> MotRows:
    """Read a MOT file. Raises BoxFileError for a missing file, a line that is not 7 or more numbers, or
    NaN."""
    if not path.is_file():
        raise BoxFileError(f"there is no file {path}")
    if not path.stat().st_size:
        return rows_of_table(np.zeros((0, 9)))
    try:
        table = pa_csv.read_csv(path, pa_csv.ReadOptions(autogenerate_column_names=True, use_threads=False))
        columns = [column.cast(pa.float64()).to_numpy() for column in table.columns]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BoxFileError(f"{path} is not a table of numbers: {error}") from error
    if len(columns) < 7:
        raise BoxFileError(f"{path} has {len(columns)} columns, expected at least 7: frame,id,x,y,w,h,score")
    data = np.stack([*columns[:9], *[np.full(len(table), -1.0)] * max(0, 9 - len(columns))], axis=1)
    bad = np.flatnonzero(~np.isfinite(data).all(axis=1))
    if len(bad):
        raise BoxFileError(f"{path}, line {bad[0] + 1}: a value is missing or not a finite number")
    return rows_of_table(data)


def rows_of_table(data: FloatArray) -> MotRows:
    """From an (N, 9) table in the order of a MOT line."""
    data = data[np.argsort(data[:, 0], kind="stable")]
    whole = data[:, [0, 1, 7]].astype(np.int64)
    return MotRows(whole[:, 0], whole[:, 1], data[:, 2:6], data[:, 6], whole[:, 2], data[:, 8])


def check_tracks(rows: MotRows, path: Path) -> None:
    """Raise BoxFileError for an id that stands twice in a frame, a class that does not exist, or a box
    without area."""
    key = np.stack([rows.frame, rows.class_id, rows.id], axis=1)
    unique, count = np.unique(key, axis=0, return_counts=True)
    if (count > 1).any():
        frame, _, identity = unique[count > 1][0]
        raise BoxFileError(f"{path}: id {identity} stands twice in frame {frame}; ids must be unique in a frame")
    check_classes(rows.class_id, str(path))
    flat = np.flatnonzero((rows.xywh_px[:, 2:] <= 0).any(axis=1))
    if len(flat):
        raise BoxFileError(f"{path}: the box of id {rows.id[flat[0]]} in frame {rows.frame[flat[0]]} has no area")


def check_classes(class_id: IntArray, where: str) -> None:
    """Raise BoxFileError for a class number outside 0–6."""
    wrong = np.flatnonzero((class_id < 0) | (class_id >= len(CLASSES)))
    if len(wrong):
        names = ", ".join(f"{k} {name}" for k, name in enumerate(CLASSES))
        raise BoxFileError(f"{where}: class {class_id[wrong[0]]} is unknown; classes are {names}")


def mot_bytes(frame: IntArray, identity: IntArray, xywh: FloatArray, score: FloatArray, class_id: IntArray) -> bytes:
    """Track rows as text, sorted by frame and id: two decimals for pixels, six for the score."""
    order = np.lexsort((identity, frame))
    lines = [
        f"{f},{i},{x:.2f},{y:.2f},{w:.2f},{h:.2f},{s:.6f},{c},-1,-1\n"
        for f, i, (x, y, w, h), s, c in zip(
            frame[order].tolist(), identity[order].tolist(), xywh[order].tolist(), score[order].tolist(),
            class_id[order].tolist(), strict=True,
        )
    ]  # fmt: skip
    return "".join(lines).encode()
