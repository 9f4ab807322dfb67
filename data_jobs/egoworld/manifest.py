"""The list of work: every input file is here as a video with its clips, as a duplicate, or as rejected with a
reason.

In: folders and files, a splitter. Out: Manifest. Called by the command line before a run starts.
manifest_files.py writes and reads it. Clips are kept as one Arrow table, because there may be a million of
them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.egoworld.discover import Found, discover
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.records import Clip, Video
from data_jobs.egoworld.splitters import Split, Splitter
from data_jobs.runs.columns import Column, arrow_schema
from data_jobs.runs.errors import InputError

# Hashing and demuxing leave Python's lock; more readers than this only make a spinning disk seek.
PROBE_THREADS = 2

# Said again in every clip row, so that a row alone is enough to decode the clip; as dictionary it costs 4
# bytes a row.
_REPEATED = pa.dictionary(pa.int32(), pa.string())
CLIP_COLUMNS = (
    Column("clip_id", pa.string(), "{video_id}-{frame_start}-{frame_end}-{8 hex of content, bounds and splitter}"),
    Column("video_id", _REPEATED, "first 16 hex digits of the file's sha256"),
    Column("start_s", pa.float64(), "presentation time of the first frame, seconds"),
    Column("end_s", pa.float64(), "presentation time of the last frame, seconds"),
    Column("frame_start", pa.int64(), "index of the first frame in the video"),
    Column("frame_end", pa.int64(), "one past the last"),
    Column("overlap_s", pa.float64(), "seconds shared with the clip before"),
    Column("scenedetect_failed", pa.bool_(), "the video could not be cut by shots and was cut evenly"),
    Column("status", _REPEATED, "Pending: what became of a clip stands in the ledger"),
    Column("last_error", pa.string(), "for readers that expect it; empty"),
    Column("retry_count", pa.int64(), "for readers that expect it; 0"),
    Column("content_sha256", _REPEATED, "of the whole file, hexadecimal"),
    Column("path", _REPEATED, "absolute path that the video is read from"),
    Column("name", _REPEATED, "path relative to the input"),
    Column("start_pts", pa.int64(), "of the first frame, in units of the time base"),
    Column("end_pts", pa.int64(), "of the last frame"),
    Column("time_base_numerator", pa.int64(), "of the seconds per unit of pts"),
    Column("time_base_denominator", pa.int64(), "of the seconds per unit of pts"),
    Column("width", pa.int64(), "as shown, pixels"),
    Column("height", pa.int64(), "as shown, pixels"),
    Column("rotation_deg", pa.int64(), "clockwise from stored to shown: 0, 90, 180 or 270"),
    Column("splitter", _REPEATED, "name and version of what made the clip"),
    Column("splitter_params", _REPEATED, "its parameters as JSON"),
)
CLIP_SCHEMA = arrow_schema(CLIP_COLUMNS)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that cannot be worked on, and why."""

    path: str
    name: str
    message: str  # of the InputError, for a person
    size_bytes: int  # with mtime_ns, tells whether the file has changed since; -1 as in Found
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A file whose content is that of a video already listed; it is not worked on twice."""

    path: str
    name: str
    video_id: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a run has to account for."""

    videos: tuple[Video, ...]  # in the order found; 8 bytes per frame
    mtimes_ns: tuple[int, ...]  # of the videos' files, one each
    clip_table: pa.Table  # CLIP_SCHEMA, in the order of videos, then of frame_start
    rejected: tuple[Rejected, ...]
    duplicates: tuple[Duplicate, ...]
    split: str  # data split that all these videos belong to, e.g. "train"

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Size in bytes and modification time of every file that was looked at, by path."""
        listed = zip(self.videos, self.mtimes_ns, strict=True)
        others: list[Rejected | Duplicate] = [*self.rejected, *self.duplicates]
        return {video.path: (video.size_bytes, mtime_ns) for video, mtime_ns in listed} | {
            other.path: (other.size_bytes, other.mtime_ns) for other in others
        }


Progress = Callable[[int, int, str], None]  # files done, files in all, name of the file just done


def build_manifest(
    inputs: Sequence[Path],
    splitter: Splitter,
    *,
    split: str = "train",
    known: Manifest | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Find, probe and split everything under `inputs`.

    Args:
        inputs: folders or files, see discover.py.
        splitter: how videos are cut, see splitters.py.
        split: label for the `split` column.
        known: an earlier manifest: files with the same path, size and modification time are not read again.
        progress: called after every file, from this thread.

    Raises:
        RunError: an input does not exist, or nothing that is named like a video was found.
        TransientError: the storage failed while a file was read.
    """
    found = discover(inputs)
    if known is not None and known.split == split and _covers(known, found, splitter):
        return known
    examine = partial(_examine, splitter=splitter, known=_known_videos(known))
    videos: dict[str, tuple[Video, int]] = {}
    tables, rejected, duplicates = [CLIP_SCHEMA.empty_table()], [], []
    pool = ThreadPoolExecutor(PROBE_THREADS, thread_name_prefix="probe")
    try:
        for done, (file, outcome) in enumerate(zip(found, pool.map(examine, found), strict=True), start=1):
            if isinstance(outcome, Rejected):
                rejected.append(outcome)
            elif (video := outcome[0]).video_id in videos:
                stamp = (video.size_bytes, file.mtime_ns)
                duplicates.append(Duplicate(video.path, video.name, video.video_id, *stamp))
            else:
                videos[video.video_id] = (video, file.mtime_ns)
                tables.append(clips_of(video, outcome[1], splitter))
            if progress is not None:
                progress(done, len(found), file.name)
    finally:
        pool.shutdown(cancel_futures=True)
    return Manifest(
        videos=tuple(video for video, _ in videos.values()),
        mtimes_ns=tuple(mtime_ns for _, mtime_ns in videos.values()),
        clip_table=pa.concat_tables(tables).unify_dictionaries().combine_chunks(),
        rejected=tuple(rejected),
        duplicates=tuple(duplicates),
        split=split,
    )


def clips_of(video: Video, split: Split, splitter: Splitter) -> pa.Table:
    """The clip rows of one video."""
    starts = [start for start, _ in split.ranges]
    ends = [end for _, end in split.ranges]
    start_pts, end_pts = video.pts[starts], video.pts[[end - 1 for end in ends]]
    seconds = video.time_base.numerator / video.time_base.denominator
    same = {
        "video_id": video.video_id,
        "overlap_s": splitter.overlap_s,
        "scenedetect_failed": split.scenedetect_failed,
        "status": "Pending",
        "last_error": "",
        "retry_count": 0,
        "content_sha256": video.content_sha256,
        "path": video.path,
        "name": video.name,
        "time_base_numerator": video.time_base.numerator,
        "time_base_denominator": video.time_base.denominator,
        "width": video.width,
        "height": video.height,
        "rotation_deg": video.rotation_deg,
        "splitter": splitter.label,
        "splitter_params": _params_json(splitter),
    }
    own = {
        "clip_id": [clip_id(video, start, end, splitter) for start, end in split.ranges],
        "start_s": start_pts * seconds,
        "end_s": end_pts * seconds,
        "frame_start": starts,
        "frame_end": ends,
        "start_pts": start_pts,
        "end_pts": end_pts,
    }
    columns = [
        pa.array(own[field.name], field.type)
        if field.name in own
        else _repeated(same[field.name], field.type, len(ends))
        for field in CLIP_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=CLIP_SCHEMA)


def clip_id(video: Video, start: int, end: int, splitter: Splitter) -> str:
    """`{video_id}-{start:09d}-{end:09d}-{8 hex}`: the same content cut in the same way has the same name
    everywhere."""
    identity = [
        video.content_sha256,
        int(video.pts[start]),
        int(video.pts[end - 1]),
        splitter.label,
        splitter.params(),
    ]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{video.video_id}-{start:09d}-{end:09d}-{digest[:8]}"


def clip_from_row(row: Mapping[str, Any]) -> Clip:
    """The record of one row of the clip table (as `Table.to_pylist` gives it)."""
    return Clip(
        clip_id=row["clip_id"],
        video_id=row["video_id"],
        content_sha256=row["content_sha256"],
        path=row["path"],
        name=row["name"],
        frame_start=row["frame_start"],
        frame_end=row["frame_end"],
        start_pts=row["start_pts"],
        end_pts=row["end_pts"],
        time_base=Fraction(row["time_base_numerator"], row["time_base_denominator"]),
        width=row["width"],
        height=row["height"],
        rotation_deg=row["rotation_deg"],
        splitter=row["splitter"],
        overlap_s=row["overlap_s"],
        scenedetect_failed=row["scenedetect_failed"],
    )


def clips(table: pa.Table) -> Iterator[Clip]:
    """The records of a clip table one after the other, a batch of rows in memory at a time."""
    for batch in table.to_batches(max_chunksize=4096):
        yield from map(clip_from_row, batch.to_pylist())


def _examine(
    found: Found, splitter: Splitter, known: Mapping[str, tuple[int, Video]]
) -> tuple[Video, Split] | Rejected:
    """Probe and split one file, in a thread of the pool."""
    path = str(found.path)
    mtime_ns, video = known.get(path, (-1, None))
    try:
        if video is None or (video.size_bytes, mtime_ns) != (found.size_bytes, found.mtime_ns):
            video = probe(path, found.name)
        return video, splitter.split(video)
    except InputError as error:
        return Rejected(path, found.name, str(error), found.size_bytes, found.mtime_ns)


def _known_videos(known: Manifest | None) -> dict[str, tuple[int, Video]]:
    """Modification time and record of every video of an earlier manifest, by path."""
    if known is None:
        return {}
    return {video.path: (mtime_ns, video) for video, mtime_ns in zip(known.videos, known.mtimes_ns, strict=True)}


def _covers(known: Manifest, found: Sequence[Found], splitter: Splitter) -> bool:
    """Whether a new manifest would be the same: no file came, went or changed, and the same splitter made the
    clips."""
    if known.stamps() != {str(file.path): (file.size_bytes, file.mtime_ns) for file in found}:
        return False
    wanted = {"splitter": splitter.label, "splitter_params": _params_json(splitter)}
    return bool(known.videos) and all(
        known.clip_table[column].unique().to_pylist() == [value] for column, value in wanted.items()
    )


def _params_json(splitter: Splitter) -> str:
    return json.dumps(splitter.params(), sort_keys=True)


def _repeated(value: Any, kind: pa.DataType, count: int) -> pa.Array:
    """`count` times the same value, as a dictionary of one where the schema says so."""
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value], kind.value_type))
    return pa.repeat(pa.scalar(value, kind), count)
