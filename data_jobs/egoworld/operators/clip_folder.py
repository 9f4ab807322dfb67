"""A clip as a folder that any program can read: pictures, their times, and the tables made so far.

In: a Clip. Out: files below a folder. Called by external.py; docs/operators.md describes the layout for those who
write a program for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.operators.sampling import frames_every
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import field_specs

Pictures = Literal["png", "jpeg", "none"]
WRITE_OPTIONS = {"png": [cv2.IMWRITE_PNG_COMPRESSION, 1], "jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95]}

# Columns of frames.parquet: what identifies a frame, and its picture relative to the folder ("" without pictures).
FRAME_COLUMNS = pa.schema(
    [("frame_index", pa.int64()), ("timestamp_s", pa.float64()), ("pts", pa.int64()), ("file", pa.string())]
)


def write_clip_folder(
    folder: Path,
    clip: Clip,
    window_frames: int,
    table: str,
    upstream: Mapping[str, pa.Table],
    pictures: Pictures = "png",
    interval_s: float = 0.0,
) -> pa.Table:
    """Write clip.json, frames.parquet, frames/ and one file per upstream table; returns the clip's frames table.

    The result holds every frame of the clip; `file` is "" for those without a picture.
    """
    (folder / "frames").mkdir(parents=True)
    reader = ClipReader(clip, window_frames)
    shown = set(frames_every(clip, reader, interval_s)) if pictures != "none" else set()
    columns: dict[str, list] = {name: [] for name in FRAME_COLUMNS.names}
    for window in reader.windows():
        for i, image in enumerate(window.images):
            index = int(window.frame_index[i])
            file = f"frames/{index:09d}.{'jpg' if pictures == 'jpeg' else pictures}" if index in shown else ""
            if file:
                cv2.imwrite(str(folder / file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), WRITE_OPTIONS[pictures])
            row = (index, float(window.timestamp_s[i]), int(window.pts[i]), file)
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    frames = pa.table(columns, schema=FRAME_COLUMNS)
    pq.write_table(frames, folder / "frames.parquet")
    for name, rows in upstream.items():
        pq.write_table(rows, folder / f"{name}.parquet")
    facts = {
        "clip_id": clip.clip_id,
        "video": clip.name,
        "width": clip.width,
        "height": clip.height,
        "frame_start": clip.frame_start,
        "frame_end": clip.frame_end,
        "table": table,
        "columns": field_specs(table),
    }
    (folder / "clip.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False))
    return frames
