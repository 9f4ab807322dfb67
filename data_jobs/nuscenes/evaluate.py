"""`evaluate`: tracks against labels, per class, per camera and for the whole rig; several trackers in one
table.

In: a converted folder and one or more folders of tracks. Out: a Report (JSON and a printed table). Called by
__main__.py. Two guards keep the numbers honest: HOTA's detection recall and precision must agree with CLEAR's
at the same threshold, and trackers that were given different detections are not put into one table.

In the joint mode the six cameras are one sequence: their frames are steps in the order of their timestamps,
boxes compete within one camera's frame only, and an object must keep its id from camera to camera.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_jobs.nuscenes.matching import EPS, Boxes, IntArray, best_pairs, overlapping
from data_jobs.nuscenes.metrics import ALPHAS, IOU_THRESHOLD, Score, class_averaged, combined, score_sequence
from data_jobs.nuscenes.mot_files import BoxFileError, MotRows, check_tracks, read_mot
from data_jobs.nuscenes.schema import CAMERAS, CLASSES
from data_jobs.runs.errors import RunError

TRACKS_CARD = "tracks.json"

# HOTA matches for identity, CLEAR for overlap: the same boxes, so their hits at IoU 0.5 differ by a few
# percent of all boxes in crowds. The recipe's broken table had 13 % against 80 %.
DETECTION_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class SequenceRef:
    """One camera's sequence folder under a converted output."""

    split: str
    scene: str
    camera: str
    folder: Path

    @property
    def name(self) -> str:
        """`scene-XXXX_CAM_NAME`."""
        return self.folder.name


def find_sequences(converted: Path, split: str | None = None) -> list[SequenceRef]:
    """Sequences of a converted folder, of all splits or one, by split, scene and camera. RunError when there
    are none."""
    found = []
    for label in sorted(converted.glob(f"{split or '*'}/*/gt/gt.txt")):
        folder = label.parents[1]
        scene, _, camera = folder.name.partition("_")
        if camera in CAMERAS:
            found.append(SequenceRef(folder.parent.name, scene, camera, folder))
    if not found:
        raise RunError(
            f"{converted} holds no sequences{f' of split {split!r}' if split else ''}; expected "
            f"{split or '<split>'}/scene-XXXX_CAM_NAME/gt/gt.txt from `convert`"
        )
    return found


def scoreable(truth: Boxes, counted: np.ndarray, void: np.ndarray, tracks: Boxes) -> tuple[Boxes, Boxes, IntArray]:
    """True and track boxes that are scored, and the rows of the latter.

    MOTChallenge's preprocessing: tracks are matched against ALL true boxes at IoU 0.5; those on a void one
    are taken out, then true boxes that are not `counted` are. A void box is thus neither a hit nor a miss.
    """
    kept = np.ones(len(tracks.id), dtype=bool)
    if void.any():
        pairs = overlapping(truth, tracks)
        close = pairs.chosen(pairs.iou >= IOU_THRESHOLD - EPS)
        hit = close.chosen(best_pairs(close, close.iou, truth.frame[close.truth]))
        kept[hit.track[void[hit.truth]]] = False
    rows = np.flatnonzero(kept)
    return truth.chosen(counted), tracks.chosen(rows), rows


@dataclass(frozen=True, slots=True)
class Report:
    """Scores of one tracker. Keys of `per_class`: class names; of `per_camera`: camera names."""

    tracker: str
    per_class: dict[str, Score]
    per_camera: dict[str, dict[str, Score]]
    joint: dict[str, Score]

    def numbers(self) -> dict[str, Any]:
        """All ratios, ready for JSON."""
        return {
            "tracker": self.tracker,
            "cameras": _block(self.per_class),
            "per_camera": {camera: _block(scores) for camera, scores in self.per_camera.items()},
            "joint": _block(self.joint),
        }


def _block(scores: dict[str, Score]) -> dict[str, Any]:
    return {
        "per_class": {name: score.ratios() for name, score in scores.items()},
        "class_averaged": class_averaged(list(scores.values())),
        "detection_averaged": combined(list(scores.values())).ratios(),
    }


def evaluate(converted: Path, tracks: Path, split: str | None = None) -> Report:
    """Score one folder of tracks (`<split>/<sequence>.txt`) on the sequences of the converted folder.

    Raises RunError for missing or malformed track files and when HOTA and CLEAR disagree on the detections.
    """
    rig_ids = _rig_ids(tracks)
    per_camera: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    joint: dict[str, list[Score]] = defaultdict(list)
    for scene in group_by_scene(find_sequences(converted, split)):
        rig: dict[str, list[tuple[Boxes, Boxes]]] = defaultdict(list)
        for number, sequence in enumerate(scene):
            truth, track = read_truth(sequence), read_tracks(tracks, sequence)
            steps = _rig_steps(sequence)
            for class_id, name in enumerate(CLASSES):
                pair = class_boxes(truth, track, class_id)
                per_camera[sequence.camera][name].append(score_sequence(*pair))
                offset = 0 if rig_ids else number * 10**7  # ids that mean one camera only must not meet another's
                rig[name].append(_on_rig_clock(*pair, steps, offset))
        for name, parts in rig.items():
            joint[name].append(score_sequence(*(_concatenated(side) for side in zip(*parts, strict=True))))
    cameras = {camera: {n: combined(s) for n, s in scores.items()} for camera, scores in per_camera.items()}
    whole = {name: combined([scores[name] for scores in cameras.values()]) for name in CLASSES}
    report = Report(tracks.name, whole, cameras, {name: combined(scores) for name, scores in joint.items()})
    for where, scores in (("the cameras", report.per_class), ("the rig", report.joint)):
        for name, score in scores.items():
            check_detections_agree(score, f"class {name} over {where} of {tracks}")
    return report


def group_by_scene(sequences: Sequence[SequenceRef]) -> list[list[SequenceRef]]:
    """The cameras of each scene together."""
    scenes: dict[tuple[str, str], list[SequenceRef]] = defaultdict(list)
    for sequence in sequences:
        scenes[sequence.split, sequence.scene].append(sequence)
    return list(scenes.values())


def read_truth(sequence: SequenceRef) -> tuple[MotRows, np.ndarray]:
    """Labels and void boxes of a sequence together, and which are void."""
    parts = [read_mot(sequence.folder / "gt" / name) for name in ("gt.txt", "void.txt")]
    void = np.repeat([False, True], [len(part.frame) for part in parts])
    rows = MotRows(*(np.concatenate([getattr(p, name) for p in parts]) for name in MotRows.__slots__))
    order = np.argsort(rows.frame, kind="stable")
    return rows.chosen(order), void[order]


def read_tracks(folder: Path, sequence: SequenceRef) -> MotRows:
    """Tracks of one sequence, checked. Raises BoxFileError."""
    path = folder / sequence.split / f"{sequence.name}.txt"
    rows = read_mot(path)
    check_tracks(rows, path)
    frames = pq.ParquetFile(sequence.folder / "frames.parquet").metadata.num_rows
    if len(rows.frame) and not 1 <= rows.frame.min() <= rows.frame.max() <= frames:
        raise BoxFileError(f"{path} has frame {rows.frame.max()}; {sequence.name} has frames 1 to {frames}")
    return rows


def class_boxes(truth: tuple[MotRows, np.ndarray], track: MotRows, class_id: int) -> tuple[Boxes, Boxes]:
    """What is scored for one class: its true boxes, and its tracks without those on void boxes."""
    rows, void = truth
    mine = rows.class_id == class_id
    void = void[mine]
    got, tracks, _ = scoreable(rows.chosen(mine).boxes, ~void, void, track.chosen(track.class_id == class_id).boxes)
    return got, tracks


def _rig_steps(sequence: SequenceRef) -> IntArray:
    """A number for each frame that orders the frames of all cameras by time: microseconds × 8 + camera."""
    frames = pq.read_table(sequence.folder / "frames.parquet", columns=["timestamp_us"])
    return frames["timestamp_us"].to_numpy() * 8 + CAMERAS.index(sequence.camera)


def _on_rig_clock(truth: Boxes, track: Boxes, steps: IntArray, offset: int) -> tuple[Boxes, Boxes]:
    return (
        Boxes(steps[truth.frame - 1], truth.id, truth.xywh_px),
        Boxes(steps[track.frame - 1], track.id + offset, track.xywh_px),
    )


def _concatenated(parts: Sequence[Boxes]) -> Boxes:
    return Boxes.sorted(*(np.concatenate([getattr(p, name) for p in parts]) for name in Boxes.__slots__))


def check_detections_agree(score: Score, what: str) -> None:
    """Raise RunError when HOTA's hits at IoU 0.5 and CLEAR's are not of the same boxes."""
    at_half = float(score.hota_tp[int(np.argmin(np.abs(ALPHAS - IOU_THRESHOLD)))])
    for name, total in (("recall", score.truths), ("precision", score.tracks)):
        if abs(at_half - score.clr_tp) > DETECTION_TOLERANCE * total + 1:
            hota, clear = at_half / max(1, total), score.clr_tp / max(1, total)
            raise RunError(
                f"{what}: HOTA's detection {name} is {hota:.3f}, CLEAR's {clear:.3f}; they must be of the same boxes, "
                f"so one of them was given other frames or classes"
            )


# --- several trackers
# ---------------------------------------------------------------------------------------------


def card(tracks: Path) -> dict[str, Any]:
    """What `track` noted about a folder of tracks; empty for foreign ones."""
    path = tracks / TRACKS_CARD
    return json.loads(path.read_text()) if path.is_file() else {}


def _rig_ids(tracks: Path) -> bool:
    return card(tracks).get("ids") in ("rig", "scene")


def check_comparable(tracks: Sequence[Path]) -> None:
    """Raise RunError unless all trackers were given the same detections: else the table compares
    detectors."""
    known = {path: card(path).get("detections_sha256") for path in tracks}
    unknown = [str(path) for path, value in known.items() if value is None]
    if len(tracks) > 1 and unknown:
        raise RunError(
            f"{', '.join(unknown)} does not say which detections it was made from ({TRACKS_CARD} with "
            f"detections_sha256), so it cannot share a table with others; evaluate it alone"
        )
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{path}: {str(value)[:12]}" for path, value in known.items())
        raise RunError(f"these tracks were made from different detections and cannot be compared: {listed}")
