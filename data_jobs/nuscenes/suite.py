"""Sequences with truth and detections in memory, thinned or with gaps, to score trackers on side by side.

In: a converted folder and detections, a MOT folder, or a seed for synthetic ones. Out: class-averaged scores of any
tracker given as a function. Called by compare.py and benchmarks/nuscenes_tuning.py. All trackers get the same
detections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_jobs.nuscenes import mot_folder
from data_jobs.nuscenes.association import Motion, Thresholds
from data_jobs.nuscenes.convert import ConvertRequest, convert
from data_jobs.nuscenes.detections import read_detections
from data_jobs.nuscenes.evaluate import class_boxes, find_sequences, read_truth
from data_jobs.nuscenes.matching import pairwise_iou
from data_jobs.nuscenes.metrics import Score, class_averaged, combined, score_sequence
from data_jobs.nuscenes.mot_files import MotRows
from data_jobs.nuscenes.schema import CLASSES
from data_jobs.nuscenes.synthetic import scene_pool, write_database
from data_jobs.nuscenes.synthetic_world import WorldSpec
from data_jobs.nuscenes.track import Frames, TrackRows, track_camera

Truth = tuple[MotRows, np.ndarray]  # labels, and which are void

# A detection belongs to a true box from this overlap on, when gaps are cut.
SAME_OBJECT_IOU = 0.3


@dataclass(frozen=True, slots=True)
class Part:
    """One camera's sequence."""

    frames: Frames
    detections: MotRows
    truth: Truth


Track = Callable[[Part], MotRows]


def synthetic_suite(work: Path, split: str, seed: int, scenes: int) -> list[Part]:
    """Synthetic scenes, converted, with the detections of the made-up detector."""
    write_database(work, "v1.0-synthetic", WorldSpec(), seed, scene_pool(scenes, split))
    convert(ConvertRequest(work, "v1.0-synthetic", work / "out", work / "cache", split, "native", "native", "local", 1))
    return read_suite(work / "out", work / "detections.parquet")


def read_suite(converted: Path, detections: Path, split: str | None = None) -> list[Part]:
    """The sequences of a converted folder with detections from a file. Raises RunError for bad ones."""
    sequences = find_sequences(converted, split)
    given = read_detections(detections, sequences)
    return [Part(Frames.read(s), given.rows[s.name], read_truth(s)) for s in sequences]


def mot_suite(folder: Path) -> list[Part]:
    """The sequences of a plain MOT folder with their own detections. Raises RunError for bad ones."""
    return [
        Part(*mot_folder.read_detections(sequence), mot_folder.read_truth(sequence))
        for sequence in mot_folder.mot_sequences(folder)
    ]


def score(parts: list[Part], track: Track) -> dict[str, float]:
    """Class-averaged numbers of a tracker over all sequences."""
    scores: dict[str, list[Score]] = {name: [] for name in CLASSES}
    for part in parts:
        tracks = track(part)
        for number, name in enumerate(CLASSES):
            scores[name].append(score_sequence(*class_boxes(part.truth, tracks, number)))
    return class_averaged([combined(s) for s in scores.values()])


def ours(make: Callable[[], Motion], thresholds: Thresholds) -> Track:
    """A tracker of ours as a function."""

    def run(part: Part) -> MotRows:
        return rows_of(track_camera(part.frames, part.detections, make(), thresholds))

    return run


def rows_of(tracks: TrackRows) -> MotRows:
    """Tracks as rows to be scored."""
    t = tracks
    return MotRows(t.frame, t.id, t.xywh_px, t.score, t.class_id, np.full(len(t.frame), -1.0))


def thinned(part: Part, every: int) -> Part:
    """Every n-th frame, renumbered."""
    if every == 1:
        return part
    frames, keep = part.frames, np.arange(0, len(part.frames.time_s), every)
    origin = None if frames.origin_m is None else frames.origin_m[keep]
    less = Frames(frames.time_s[keep], frames.start_us, frames.global_from_camera[keep], frames.intrinsics[keep],
                  frames.image_wh, origin)  # fmt: skip

    def thin(rows: MotRows) -> tuple[MotRows, np.ndarray]:
        chosen = (rows.frame - 1) % every == 0
        rows = rows.chosen(chosen)
        return MotRows((rows.frame - 1) // every + 1, *(getattr(rows, n) for n in MotRows.__slots__[1:])), chosen

    labels, chosen = thin(part.truth[0])
    return Part(less, thin(part.detections)[0], (labels, part.truth[1][chosen]))


def with_gaps(part: Part, length: int, rng: np.random.Generator) -> Part:
    """Each object that is visible long enough goes undetected for `length` frames in a row, somewhere inside."""
    (labels, _), rows = part.truth, part.detections
    lost = np.zeros(len(rows.frame), dtype=bool)
    for identity in np.unique(labels.id):
        mine = labels.chosen(labels.id == identity)
        if len(mine.frame) < length + 10:
            continue
        first = int(rng.integers(5, len(mine.frame) - length - 4))
        for k in range(first, first + length):
            near = np.flatnonzero((rows.frame == mine.frame[k]) & (rows.class_id == mine.class_id[k]))
            box = np.repeat(mine.xywh_px[k : k + 1], len(near), axis=0)
            lost[near[pairwise_iou(box, rows.xywh_px[near]) >= SAME_OBJECT_IOU]] = True
    return Part(part.frames, rows.chosen(~lost), part.truth)
