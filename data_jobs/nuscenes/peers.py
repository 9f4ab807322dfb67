"""Trackers of the `trackers` package with its own defaults, as functions to be scored beside ours.

In: a sequence's frames and detections. Out: its tracks. Called by compare.py and benchmarks/nuscenes_tuning.py. The
package is a peer, not a dependency: it is looked for when it is asked for. It has no class gate of its own, so each
class gets a tracker.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from data_jobs.nuscenes.matching import FloatArray
from data_jobs.nuscenes.mot_files import MotRows, rows_of_table
from data_jobs.nuscenes.schema import CLASSES
from data_jobs.nuscenes.suite import Part, Track
from data_jobs.nuscenes.track import Frames
from data_jobs.runs.errors import RunError

VERSION = "2.6.1"
PEERS = {"SORT": "SORTTracker", "ByteTrack": "ByteTrackTracker"}
# Ids of one class's tracker begin this far from those of the class before.
IDS_PER_CLASS = 100_000


def library(name: str) -> Track:
    """One of PEERS as a function; it is told the frame rate. Raises RunError without the package."""
    try:
        make = getattr(import_module("trackers"), PEERS[name])
    except ImportError as error:
        raise RunError(
            f"the library's {name} needs the package `trackers`, which is not installed: "
            f"pip install --no-deps trackers=={VERSION}"
        ) from error

    def run(part: Part) -> MotRows:
        parts = [_one_class(make, part.frames, part.detections, class_id) for class_id in range(len(CLASSES))]
        return rows_of_table(np.concatenate(parts))

    return run


def rate_hz(frames: Frames) -> float:
    """Frames per second, from the median time between two."""
    return 1 / float(np.median(np.diff(frames.time_s))) if len(frames.time_s) > 1 else 1.0


def _one_class(make: Any, frames: Frames, rows: MotRows, class_id: int) -> FloatArray:
    """Tracks (N, 9) of one class, in the order of a MOT line."""
    import supervision as sv

    mine, out = rows.chosen(rows.class_id == class_id), []
    if not len(mine.frame):
        return np.zeros((0, 9))
    tracker = make(frame_rate=rate_hz(frames))
    for k in range(1, len(frames.time_s) + 1):
        now = mine.frame == k
        xywh = mine.xywh_px[now]
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        got = tracker.update(sv.Detections(xyxy=xyxy, confidence=mine.score[now], class_id=mine.class_id[now]))
        if got.tracker_id is None:
            continue
        good = got.tracker_id >= 0  # −1: not confirmed yet
        for identity, box in zip(got.tracker_id[good], got.xyxy[good], strict=True):
            out.append((k, class_id * IDS_PER_CLASS + identity, *box[:2], *(box[2:] - box[:2]), 1.0, class_id, -1.0))
    return np.array(out, dtype=np.float64).reshape(-1, 9)
