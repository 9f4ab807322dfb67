"""Plain MOT folders: `track` with any of the motion models, and their truth for `compare`.

In: `<sequence>/{seqinfo.ini, det/det.txt, gt/gt.txt}`. Out: `<sequence>.txt` in MOT format, class −1, as MOT's tools
read, or detections and truth in memory. Called by __main__.py and suite.py. Such folders have no times, poses or
classes: frames are 1/frameRate apart, the camera is taken to stand still, and everything is a pedestrian.
"""

from __future__ import annotations

import configparser
from pathlib import Path

import numpy as np

from data_jobs.nuscenes.association import TUNED_THRESHOLDS
from data_jobs.nuscenes.mot_files import BoxFileError, MotRows, mot_bytes, read_mot
from data_jobs.nuscenes.motion import motion_maker
from data_jobs.nuscenes.schema import CLASSES
from data_jobs.nuscenes.track import Frames, track_camera

PEDESTRIAN = CLASSES.index("pedestrian")
# Truth from MOT16 on has nine columns, the eighth a class: pedestrians are counted; people on vehicles, standing ones,
# likenesses and reflections are void. MOT15 has ten columns and no classes.
COMMAS_WITH_CLASSES, COUNTED, DISTRACTORS = 8, 1, (2, 7, 8, 12)


def is_mot_folder(folder: Path) -> bool:
    """Whether its sequences lie directly in it; a conversion has a split between."""
    return any(folder.glob("*/seqinfo.ini"))


def run_mot(folder: Path, motion: str, output: Path, weights: Path | None = None) -> dict[str, int]:
    """Track every sequence. Returns counts. Raises RunError naming what is wrong, before anything is written."""
    make, rows = motion_maker(motion, weights), 0
    given = {sequence: read_detections(sequence) for sequence in mot_sequences(folder)}
    output.mkdir(parents=True, exist_ok=True)
    for sequence, (frames, found) in given.items():
        tracks = track_camera(frames, found, make(), TUNED_THRESHOLDS)
        text = mot_bytes(tracks.frame, tracks.id, tracks.xywh_px, tracks.score, np.full(len(tracks.id), -1))
        (output / f"{sequence.name}.txt").write_bytes(text)
        rows += len(tracks.frame)
    return {"sequences": len(given), "track boxes": rows}


def mot_sequences(folder: Path) -> list[Path]:
    """Its sequences by name."""
    return sorted(path.parent for path in folder.glob("*/seqinfo.ini"))


def read_detections(sequence: Path) -> tuple[Frames, MotRows]:
    """Frames and the sequence's own detections, as pedestrians. Raises BoxFileError."""
    frames, found = still_frames(sequence), read_mot(sequence / "det" / "det.txt")
    inside = (found.frame >= 1) & (found.frame <= len(frames.time_s)) & (found.xywh_px[:, 2:] > 0).all(axis=1)
    found = found.chosen(inside)
    found.class_id[:] = PEDESTRIAN
    return frames, found


def read_truth(sequence: Path) -> tuple[MotRows, np.ndarray]:
    """Counted pedestrians, and the boxes on which a track neither gains nor loses. Raises BoxFileError."""
    path = sequence / "gt" / "gt.txt"
    rows = read_mot(path)
    with path.open() as file:
        classes = file.readline().count(",") == COMMAS_WITH_CLASSES
    void = np.isin(rows.class_id, DISTRACTORS) & classes
    kept = void | ((rows.score != 0) & ((rows.class_id == COUNTED) | (not classes)))
    rows = rows.chosen(kept)
    rows.class_id[:] = PEDESTRIAN
    return rows, void[kept]


def still_frames(sequence: Path) -> Frames:
    """Frames of a sequence whose camera stands still. Raises BoxFileError for an unusable seqinfo.ini."""
    parser = configparser.ConfigParser()
    try:
        parser.read(sequence / "seqinfo.ini")
        info = parser["Sequence"]
        count, rate = int(info["seqLength"]), float(info["frameRate"])
        width, height = float(info["imWidth"]), float(info["imHeight"])
    except (configparser.Error, KeyError, ValueError) as error:
        raise BoxFileError(f"{sequence / 'seqinfo.ini'} has no usable {error}") from error
    if rate <= 0 or width <= 0 or height <= 0:
        raise BoxFileError(f"{sequence / 'seqinfo.ini'}: frameRate, imWidth and imHeight must be positive")
    lens = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    still = np.tile(np.eye(3), (count, 1, 1))
    return Frames(np.arange(count) / rate, 0, still, np.tile(lens, (count, 1, 1)), (width, height))
