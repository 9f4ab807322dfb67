"""Quality of what came out: numbers per clip, and whether the run as a whole is within the config's thresholds.

In: a clip's tables at publication; the published tree at the end. Out: the `qc` block of meta.json, `qc.parquet` of the
run, a Verdict. Called by task.py and run.py. A rate is null where there was nothing to take it of.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_jobs.egoworld.clip_tables import NOTHING_FOUND
from data_jobs.egoworld.config import MetricsConfig
from data_jobs.runs.columns import Column, arrow_schema
from data_jobs.runs.outcome import DeadLetter
from data_jobs.runs.places import Run

# Of models/retarget/motion.py: no usable hand, and a joint that could not follow.
HELD, SLOWED = 2, 4

# Opening a small file is mostly waiting, for a disk or for a network.
READ_THREADS = 8
NAMED = 5  # clips named in a sentence; all of them are in qc.parquet

COLUMNS = (
    Column("clip_id", pa.string(), "as in the manifest"),
    Column("video_id", pa.string(), "as in the manifest"),
    Column("state", pa.string(), "done or dead"),
    Column("cause", pa.string(), "of death; empty when done"),
    Column("within", pa.bool_(), "neither dead nor beyond a threshold of its own"),
    Column("frames", pa.int64(), "of the clip"),
    Column("hand_rate", pa.float64(), "share of frames with a hand, 0..1"),
    Column("hand_score", pa.float64(), "mean score of the hands"),
    Column("mask_frames", pa.int64(), "frames that were segmented"),
    Column("mask_frames_empty", pa.int64(), "of these, frames in which nothing was found"),
    Column("empty_mask_rate", pa.float64(), "their share, 0..1"),
    Column("mapping_held_rate", pa.float64(), "share of hands without a usable pose, whose robot hand was held"),
    Column("mapping_slowed_rate", pa.float64(), "share of hands that a joint could not follow"),
    Column("tip_error_m", pa.float64(), "median over hands and tips, metres"),
    Column("object_found_rate", pa.float64(), "share of rows of object_pose with a pose"),
    Column("camera_outcome", pa.string(), "of fast3r_pose"),
    Column("camera_posed_rate", pa.float64(), "share of frames with a camera pose"),
)


def clip_qc(read: Callable[[str, list[str]], pa.Table], tables: Sequence[str], frames: int) -> dict[str, Any]:
    """Numbers of one clip. `read(table, columns)` gives the columns of one of `tables`."""
    made: dict[str, Callable[[Callable[[list[str]], pa.Table], int], dict[str, Any]]] = {
        "hand_pose": _hands,
        "masks": _masks,
        "mapping": _mapping,
        "object_pose": _objects,
        "fast3r_pose": _cameras,
    }
    values: dict[str, Any] = {}
    for name in tables:
        values |= made[name](lambda columns, name=name: read(name, columns), frames)  # type: ignore[misc]
    return values


def _hands(read: Callable[[list[str]], pa.Table], frames: int) -> dict[str, Any]:
    table = read(["frame_index", "score"])
    return {
        "hand_rate": _rate(len(pc.unique(table["frame_index"])), frames),
        "hand_score": _rounded(pc.mean(table["score"]).as_py()),
    }


def _masks(read: Callable[[list[str]], pa.Table], frames: int) -> dict[str, Any]:
    table = read(["frame_index", "object_id"])
    looked_at = len(pc.unique(table["frame_index"]))
    found = table.filter(pc.not_equal(table["object_id"], NOTHING_FOUND))
    empty = looked_at - len(pc.unique(found["frame_index"]))
    return {"mask_frames": looked_at, "mask_frames_empty": empty, "empty_mask_rate": _rate(empty, looked_at)}


def _mapping(read: Callable[[list[str]], pa.Table], frames: int) -> dict[str, Any]:
    table = read(["flags", "tip_error_m"])
    flags = table["flags"].to_numpy()
    errors = pc.list_flatten(table["tip_error_m"]).to_numpy()
    errors = errors[np.isfinite(errors)]
    return {
        "mapping_held_rate": _rate(int(((flags & HELD) > 0).sum()), len(flags)),
        "mapping_slowed_rate": _rate(int(((flags & SLOWED) > 0).sum()), len(flags)),
        "tip_error_m": _rounded(float(np.median(errors)) if len(errors) else None),
    }


def _objects(read: Callable[[list[str]], pa.Table], frames: int) -> dict[str, Any]:
    return {"object_found_rate": _posed(read(["pose"]))}


def _cameras(read: Callable[[list[str]], pa.Table], frames: int) -> dict[str, Any]:
    table = read(["pose", "outcome"])
    outcomes = pc.unique(table["outcome"]).to_pylist()
    return {"camera_outcome": outcomes[0] if outcomes else None, "camera_posed_rate": _posed(table)}


def _posed(table: pa.Table) -> float | None:
    if not len(table):
        return None
    poses = pc.list_flatten(table["pose"]).to_numpy().reshape(len(table), -1)
    return _rate(int(np.isfinite(poses).all(axis=1).sum()), len(table))


def _rate(part: int, whole: int) -> float | None:
    return _rounded(part / whole) if whole else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run against its thresholds."""

    failure_rate: float  # dead, of what was planned
    empty_mask_rate: float | None  # of all frames that were segmented
    faults: tuple[str, ...]  # one sentence per threshold that is passed, with clips
    clips_beyond: tuple[str, ...]  # dead, or beyond a threshold of their own

    @property
    def within(self) -> bool:
        """Whether the run passed no threshold."""
        return not self.faults


def judge(run: Run, letters: Sequence[DeadLetter], planned: int, limits: MetricsConfig) -> tuple[Verdict, bytes]:
    """The verdict on a finished run, and its qc.parquet: one row per clip or refused file, by clip id."""
    with ThreadPoolExecutor(READ_THREADS) as pool:
        rows = list(pool.map(lambda folder: _done_row(run, folder), run.store.folders(run.name)))
    rows += [_dead_row(letter) for letter in letters]
    for row in rows:
        row["within"] = row["state"] == "done" and (row.get("empty_mask_rate") or 0.0) <= limits.empty_mask_rate_max
    rows.sort(key=lambda row: (row["clip_id"], row["video_id"]))
    looked_at = sum(row.get("mask_frames") or 0 for row in rows)
    empty = sum(row.get("mask_frames_empty") or 0 for row in rows)
    failure_rate, empty_rate = len(letters) / max(planned, 1), _rate(empty, looked_at)
    dead = [row for row in rows if row["state"] == "dead"]
    hollow = sorted(
        (row for row in rows if row["state"] == "done" and not row["within"]), key=lambda row: -row["empty_mask_rate"]
    )
    faults = []
    if failure_rate > limits.failure_rate_max:
        faults.append(f"failure rate {failure_rate:.3f} is above {limits.failure_rate_max:g}: {_named(dead)}")
    if (empty_rate or 0.0) > limits.empty_mask_rate_max:
        faults.append(f"empty-mask rate {empty_rate:.3f} is above {limits.empty_mask_rate_max:g}: {_named(hollow)}")
    beyond = tuple(row["clip_id"] or row["video_id"] for row in rows if not row["within"])
    return Verdict(round(failure_rate, 6), empty_rate, tuple(faults), beyond), _to_parquet(rows)


def _done_row(run: Run, folder: str) -> dict[str, Any]:
    meta: Mapping[str, Any] = json.loads(run.store.read(f"{folder}/meta.json"))
    clip = meta["clip"]
    of_clip = {"clip_id": clip["clip_id"], "video_id": clip["video_id"], "state": "done", "cause": ""}
    # Clips that an older version published have no such block.
    return of_clip | {"frames": clip["frame_end"] - clip["frame_start"]} | dict(meta.get("qc", {}))


def _dead_row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "clip_id": letter.clip_id or "",
        "video_id": letter.video_id or letter.video_path,
        "state": "dead",
        "cause": letter.cause,
    }


def _named(rows: Sequence[Mapping[str, Any]]) -> str:
    names = [row["clip_id"] or row["video_id"] for row in rows[:NAMED]]
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return ", ".join(names) + more


def _to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    columns = [pa.array([row.get(column.name) for row in rows], column.type) for column in COLUMNS]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=arrow_schema(COLUMNS)), sink)
    return sink.getvalue()
