"""`track`: detections → tracks of every sequence, per camera, and one identity across the six cameras of a
scene.

In: a converted folder, a detections file, a motion model's name. Out: `<split>/<sequence>.txt` in MOT format
and `tracks.json`, the card that says what the tracks were made from. Called by __main__.py and the tuning
benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from data_jobs.nuscenes import geometry
from data_jobs.nuscenes.association import Detections, Motion, Step, Thresholds, Tracker
from data_jobs.nuscenes.detections import read_detections
from data_jobs.nuscenes.evaluate import TRACKS_CARD, SequenceRef, find_sequences, group_by_scene
from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.nuscenes.matching import IntArray
from data_jobs.nuscenes.mot_files import MotRows, mot_bytes
from data_jobs.nuscenes.motion import motion_maker
from data_jobs.nuscenes.rig import Tracklet, bearings, link
from data_jobs.nuscenes.scenes import vectors
from data_jobs.nuscenes.schema import CAMERAS


@dataclass(frozen=True, slots=True)
class Frames:
    """Times and viewing directions of one sequence's F frames."""

    time_s: FloatArray  # (F,) since the first
    start_us: int
    global_from_camera: FloatArray  # (F, 3, 3)
    intrinsics: FloatArray  # (F, 3, 3)
    image_wh: tuple[float, float]
    origin_m: FloatArray | None = None  # (F, 3) of the camera in the world; None where its way was not measured

    @classmethod
    def read(cls, sequence: SequenceRef) -> Frames:
        """From `frames.parquet`."""
        table = pq.read_table(sequence.folder / "frames.parquet")
        time = table["timestamp_us"].to_numpy()
        ego = geometry.rotation_matrices(vectors(table["ego_rotation_wxyz"]))
        camera = geometry.rotation_matrices(vectors(table["camera_rotation_wxyz"]))
        mount = vectors(table["camera_translation_m"]).reshape(-1, 3, 1)
        origin = (ego @ mount)[:, :, 0] + vectors(table["ego_translation_m"]).reshape(-1, 3)
        width, height = vectors(table["image_size_px"])[0] if len(table) else (0.0, 0.0)
        start = int(time[0]) if len(time) else 0
        intrinsics = vectors(table["intrinsics_px"]).reshape(-1, 3, 3)
        return cls((time - start) / 1e6, start, ego @ camera, intrinsics, (float(width), float(height)), origin)

    def steps(self) -> list[Step]:
        """The way to each frame from the one before."""
        if not len(self.time_s):
            return []
        inverse = np.linalg.inv(self.intrinsics)
        turn = np.swapaxes(self.global_from_camera[1:], 1, 2) @ self.global_from_camera[:-1]
        homography = self.intrinsics[1:] @ turn @ inverse[:-1]
        dt_s, lens = np.diff(self.time_s, prepend=self.time_s[:1]), self.intrinsics[:, [0, 0, 1], [0, 2, 2]].tolist()
        still = np.eye(3)[None]
        ways: list[FloatArray | None] = [None] * len(dt_s)
        if self.origin_m is not None:
            back = np.einsum("fji,fj->fi", self.global_from_camera[1:], self.origin_m[:-1] - self.origin_m[1:])
            ways = [np.eye(3, 4), *np.concatenate([turn, back[:, :, None]], axis=2)]
        return [
            Step(float(dt), matrix, self.image_wh, way, (focal, x, y))
            for dt, matrix, way, (focal, x, y) in zip(
                dt_s, np.concatenate([still, homography]), ways, lens, strict=True
            )
        ]


@dataclass(frozen=True, slots=True)
class TrackRows:
    """R rows of one sequence, in frame order."""

    frame: IntArray
    id: IntArray
    xywh_px: FloatArray
    score: FloatArray
    class_id: IntArray


def track_camera(
    frames: Frames, rows: MotRows, motion: Motion, thresholds: Thresholds, make: type[Tracker] = Tracker
) -> TrackRows:
    """Run one camera's tracker over all frames, those without detections included."""
    tracker = make(motion, thresholds)
    bounds = np.searchsorted(rows.frame, np.arange(1, len(frames.time_s) + 2))
    out: list[tuple[int, int, FloatArray, float, int]] = []
    for k, step in enumerate(frames.steps()):
        part = slice(bounds[k], bounds[k + 1])
        detections = Detections(rows.xywh_px[part], rows.score[part], rows.class_id[part])
        for found in tracker.step(detections, float(frames.time_s[k]), step):
            xywh = np.concatenate([found.box[:2] - found.box[2:] / 2, found.box[2:]])
            out.append((k + 1, found.id, xywh, found.score, found.class_id))
    if not out:
        none = np.zeros(0, dtype=np.int64)
        return TrackRows(none, none, np.zeros((0, 4)), np.zeros(0), none)
    frame, identity, xywh_all, score, class_id = zip(*out, strict=True)
    return TrackRows(np.array(frame), np.array(identity), np.stack(xywh_all), np.array(score), np.array(class_id))


def track_scene(
    sequences: Sequence[SequenceRef],
    detections: dict[str, MotRows],
    motion: Callable[[], Motion],
    thresholds: Thresholds,
    across: bool,
) -> dict[str, TrackRows]:
    """Tracks of one scene's cameras by sequence name; ids are unique in the scene, and shared where `across`
    links."""
    frames = {s.name: Frames.read(s) for s in sequences}
    tracks = {s.name: track_camera(frames[s.name], detections[s.name], motion(), thresholds) for s in sequences}
    owners = [(s, int(i)) for s in sequences for i in np.unique(tracks[s.name].id)]
    group: IntArray = np.arange(len(owners))
    if across:
        group = link([_tracklet(s, tracks[s.name], frames[s.name], i) for s, i in owners])
    dense = np.unique(group, return_inverse=True)[1] + 1
    new = {(s.name, i): int(number) for (s, i), number in zip(owners, dense, strict=True)}
    return {
        name: TrackRows(
            rows.frame,
            np.array([new[name, int(i)] for i in rows.id], dtype=np.int64),
            rows.xywh_px,
            rows.score,
            rows.class_id,
        )
        for name, rows in tracks.items()
    }


def _tracklet(sequence: SequenceRef, rows: TrackRows, frames: Frames, identity: int) -> Tracklet:
    mine = rows.id == identity
    at = rows.frame[mine] - 1
    azimuth, width, height = bearings(rows.xywh_px[mine], frames.intrinsics[at], frames.global_from_camera[at])
    time_s = frames.start_us / 1e6 + frames.time_s[at]
    camera, class_id = CAMERAS.index(sequence.camera), int(rows.class_id[mine][0])
    return Tracklet(camera, class_id, time_s, np.unwrap(azimuth).astype(np.float64), width, height)


def run_track(
    converted: Path,
    detections: Path,
    motion: str,
    output: Path,
    thresholds: Thresholds,
    across: bool,
    split: str | None = None,
    weights: Path | None = None,
) -> dict[str, int]:
    """Track the sequences of a converted folder. Returns counts. Raises RunError for bad detections or
    names."""
    make = motion_maker(motion, weights)
    sequences = find_sequences(converted, split)
    given = read_detections(detections, sequences)
    rows = 0
    for scene in group_by_scene(sequences):
        for name, tracks in track_scene(scene, given.rows, make, thresholds, across).items():
            split = next(s.split for s in scene if s.name == name)
            path = output / split / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(mot_bytes(tracks.frame, tracks.id, tracks.xywh_px, tracks.score, tracks.class_id))
            rows += len(tracks.frame)
    card = {
        "motion": motion,
        "weights": weights and weights.name,
        "thresholds": asdict(thresholds),
        "ids": "rig" if across else "scene",
        "detections_sha256": given.sha256,
    }
    (output / TRACKS_CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")
    placed = sum(len(part.frame) for part in given.rows.values())
    return {
        "sequences": len(sequences),
        "detections": placed,
        "unplaced detections": given.unplaced,
        "track boxes": rows,
    }
