"""Windows of consecutive frames over many tracks: what the samples of both forms are cut from.

In: Sequences. Out: Batches, and the same in the shapes of the published data loader. Called by samples.py, job.py and
the tests. Knows nothing of networks.

A window is T frames and one more, the target's, each `stride` recorded frames apart; all tracks that are in it, up to
`most_tracks`. Augmentation mirrors the whole window (boxes, camera and lens together, before any difference is taken)
and never moves a true box: the detector's noise belongs to the history alone and is added by samples.py.
"""

# B windows, T frames of history, S = T + 1 frames, N tracks

from __future__ import annotations

from collections.abc import Sequence as Listed
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.box_kalman import FloatArray
from train_jobs.trackssm.errors import BadTracks
from train_jobs.trackssm.tracks import IntArray, Sequence

MIRROR = np.diag([-1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Window:
    """Where a window lies."""

    sequence: int
    start: int  # first frame, from 0
    stride: int


@dataclass(frozen=True, slots=True)
class Batch:
    """B windows, tracks padded to N. Boxes are true ones, pixels, centre x, centre y, width, height."""

    box_px: FloatArray  # (B, S, N, 4)
    there: np.ndarray  # (B, S, N) bool
    track_ids: IntArray  # (B, N) −1 where padded
    class_ids: IntArray  # (B, N)
    time_s: FloatArray  # (B, S)
    image_from_before: FloatArray  # (B, S, 3, 3) homography of the camera's rotation
    camera_from_before: FloatArray  # (B, S, 3, 4)
    lens_px: FloatArray  # (B, 3)
    image_wh: FloatArray  # (B, 2)
    way_known: np.ndarray  # (B,) bool
    seq_names: list[str]
    start_frames: list[int]  # from 1

    def seed_form(self) -> dict[str, Any]:
        """The published loader's dictionary: history of T frames and the current one, boxes as shares of the image.

        condition (B, T, N, 4), cur_bbox (B, N, 4), track_ids and class_ids (B, T, N), padding_mask (B, T, N) True
        where there is no box; such boxes are zero, such ids −1.
        """
        share = self.box_px / np.tile(self.image_wh, 2)[:, None, None]
        share = np.where(self.there[..., None], share, 0.0).astype(np.float32)
        there = self.there[:, :-1]
        ids, classes = (np.where(there, values[:, None], -1) for values in (self.track_ids, self.class_ids))
        return {
            "condition": torch.as_tensor(share[:, :-1]),
            "cur_bbox": torch.as_tensor(share[:, -1]),
            "track_ids": torch.as_tensor(ids),
            "class_ids": torch.as_tensor(classes),
            "padding_mask": torch.as_tensor(~there),
            "seq_names": self.seq_names,
            "start_frames": self.start_frames,
        }


class Windows:
    """All windows of some sequences."""

    def __init__(self, sequences: Listed[Sequence], length: int, most_tracks: int) -> None:
        """`length` frames of history. Raises BadTracks when no sequence is that long."""
        self.sequences, self.length, self.most_tracks = list(sequences), length, most_tracks
        self.bounds = [np.searchsorted(s.frame, np.arange(len(s.time_s) + 1)) for s in self.sequences]
        self.places = [
            (k, start)
            for k, s in enumerate(self.sequences)
            for start in range(0, len(s.time_s) - length, max(1, length // 2))
        ]
        if not self.places:
            longest = max(self.sequences, key=lambda s: len(s.time_s))
            raise BadTracks(
                f"no sequence is long enough for windows of {length} + 1 frames: the longest, {longest.name}, has "
                f"{len(longest.time_s)}; choose a smaller sequence_length"
            )

    def __len__(self) -> int:
        return len(self.places)

    def window(self, number: int, stride: int) -> Window:
        """The window at a place with frames `stride` apart, or nearer together where the sequence ends too soon."""
        k, start = self.places[number]
        most = (len(self.sequences[k].time_s) - 1) // self.length
        stride = min(stride, most)
        return Window(k, min(start, len(self.sequences[k].time_s) - 1 - self.length * stride), stride)

    def batch(self, windows: Listed[Window], rng: np.random.Generator, mirror: float = 0.0) -> Batch:
        """Cut windows; each is mirrored with probability `mirror`."""
        parts = [self._cut(window, rng, rng.random() < mirror) for window in windows]
        most = max(1, *(len(part["track_ids"]) for part in parts))

        def padded(name: str, axis: int, value: Any) -> np.ndarray:
            rows = []
            for part in parts:
                widths = [(0, 0)] * part[name].ndim
                widths[axis] = (0, most - part[name].shape[axis])
                rows.append(np.pad(part[name], widths, constant_values=value))
            return np.stack(rows)

        def stacked(name: str) -> np.ndarray:
            return np.stack([part[name] for part in parts])

        return Batch(
            box_px=padded("box_px", 1, 1.0),
            there=padded("there", 1, False),
            track_ids=padded("track_ids", 0, -1),
            class_ids=padded("class_ids", 0, -1),
            time_s=stacked("time_s"),
            image_from_before=stacked("image_from_before"),
            camera_from_before=stacked("camera_from_before"),
            lens_px=stacked("lens_px"),
            image_wh=stacked("image_wh"),
            way_known=stacked("way_known"),
            seq_names=[self.sequences[w.sequence].name for w in windows],
            start_frames=[w.start + 1 for w in windows],
        )

    def _cut(self, window: Window, rng: np.random.Generator, mirror: bool) -> dict[str, Any]:
        s, bounds = self.sequences[window.sequence], self.bounds[window.sequence]
        frames = window.start + window.stride * np.arange(self.length + 1)
        rows = np.concatenate([np.arange(bounds[f], bounds[f + 1]) for f in frames])
        step = np.repeat(np.arange(len(frames)), bounds[frames + 1] - bounds[frames])
        ids, column = np.unique(s.id[rows], return_inverse=True)
        if len(ids) > self.most_tracks:
            kept = np.sort(rng.choice(len(ids), self.most_tracks, replace=False))
            inside = np.isin(column, kept)
            rows, step, column, ids = rows[inside], step[inside], np.searchsorted(kept, column[inside]), ids[kept]
        box, there = np.ones((len(frames), len(ids), 4)), np.zeros((len(frames), len(ids)), dtype=bool)
        box[step, column], there[step, column] = s.box_px[rows], True
        classes = np.zeros(len(ids), dtype=np.int64)
        classes[column] = s.class_id[rows]
        poses, lens = s.global_from_camera[frames], s.intrinsics_px[frames].copy()
        if mirror:
            box[..., 0] = s.image_wh[0] - box[..., 0]
            lens[:, 0, 2] = s.image_wh[0] - lens[:, 0, 2]
            # A mirrored world seen by a mirrored camera: left is right on both sides of the pose.
            poses = np.concatenate([MIRROR @ poses[:, :, :3] @ MIRROR, MIRROR @ poses[:, :, 3:]], axis=2)
        turn, way = ways(poses, lens)
        return {
            "box_px": box, "there": there, "track_ids": ids, "class_ids": classes, "time_s": s.time_s[frames],
            "image_from_before": turn, "camera_from_before": way, "way_known": s.way_known,
            "lens_px": lens[0][[0, 0, 1], [0, 2, 2]], "image_wh": np.array(s.image_wh),
        }  # fmt: skip


def ways(global_from_camera: FloatArray, intrinsics: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Homographies (S, 3, 3) and rigid ways (S, 3, 4) from each frame's predecessor; the identity for the first."""
    rotation, origin = global_from_camera[:, :, :3], global_from_camera[:, :, 3]
    back = np.swapaxes(rotation[1:], 1, 2)
    turn = back @ rotation[:-1]
    move = np.einsum("sij,sj->si", back, origin[:-1] - origin[1:])
    homography = intrinsics[1:] @ turn @ np.linalg.inv(intrinsics[:-1])
    rigid = np.concatenate([turn, move[:, :, None]], axis=2)
    return np.concatenate([np.eye(3)[None], homography]), np.concatenate([np.eye(3, 4)[None], rigid])
