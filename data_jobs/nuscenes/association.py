"""Detections → identities in one camera: two-stage association with a pluggable motion model, in seconds not
frames.

In: the detections of each frame with its time. Out: one row per matched track and frame. Called by track.py
and the parity test. Knows nothing of cameras, files or how motion is predicted.

The life of a track is ByteTrack's (Zhang et al. 2022), with the details of the TrackSSM code that its numbers
come
from: first match confident detections to tracked and lost tracks, then weak ones to what is still tracked; a
newborn needs a second match; a lost track that drifts onto a tracked one is merged into the older. Added: a
detection can only join a track of its own class, and time counts, not frames: a lost track is kept for
seconds, and before boxes are compared both grow by a share of their size for every second since the track was
seen, because a prediction over half a second is worse than one over a twelfth. Newborns are predicted too:
what the camera's turn does to a box needs no velocity.

The `trackers` package (2.6.1) has the same two stages, but one motion state per object and call, no class
gate and no place for an ego rotation between frames; a learned motion model needs all objects of a frame in
one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.optimize import linear_sum_assignment

from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.nuscenes.matching import IntArray


@dataclass(frozen=True, slots=True)
class Step:
    """What a motion model may know of the way from the frame before to this one."""

    dt_s: float  # since the frame before; 0 at the first
    image_from_before: FloatArray  # (3, 3) homography of the camera's rotation between the two, pixels to pixels
    image_wh: tuple[float, float]
    camera_from_before: FloatArray | None = None  # (3, 4) the camera's whole way, metres; None where not measured
    lens_px: tuple[float, float, float] | None = None  # focal length, principal point; None where not known


class Motion(Protocol):
    """Predicts boxes. A state is the model's own; boxes are centre x, centre y, width, height in pixels."""

    def begin(self, boxes: FloatArray, class_id: IntArray) -> list[Any]:
        """States of N newborn tracks from their first boxes (N, 4) and classes (N,)."""

    def predict(self, states: list[Any], step: Step) -> FloatArray:
        """Advance N states by one frame; their boxes (N, 4)."""

    def update(self, states: list[Any], boxes: FloatArray) -> None:
        """Correct N states with the boxes (N, 4) they were matched to."""


@runtime_checkable
class Unsure(Protocol):
    """A motion model that also says how far its boxes may be off."""

    def spread_px(self, states: list[Any]) -> FloatArray:
        """Standard deviation (N,) of the predicted boxes, pixels; NaN where it cannot say."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a detection counts, and how far apart a match may be. Costs are 1 − IoU of the grown boxes."""

    high: float = 0.6  # scores above are confident
    low: float = 0.1  # scores between low and high only keep tracks alive
    birth: float = 0.7  # scores from here on start a track
    first_cost: float = 0.8
    second_cost: float = 0.5
    newborn_cost: float = 0.7
    duplicate_cost: float = 0.15
    max_lost_s: float = 1.0
    # Growth on each side, as a share of the box's size √(w·h) per second since the track was last seen; a
    # newborn's velocity is not known yet. 0 compares the boxes as they are, at any frame rate.
    drift_per_s: float = 0.0
    newborn_drift_per_s: float = 0.0
    # With a motion model that is Unsure, boxes grow by this many of its standard deviations instead, where it says
    # them. 0: as above.
    spread_growth: float = 0.0


# Chosen with box_kalman.TUNED on the held-out split of the synthetic suite (benchmarks/nuscenes_tuning.py).
TUNED_THRESHOLDS = Thresholds(
    high=0.34, birth=0.39, first_cost=0.97, second_cost=0.70, newborn_cost=0.92, max_lost_s=2.0,
    drift_per_s=2.5, newborn_drift_per_s=6.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes of one frame."""

    xywh_px: FloatArray  # (N, 4) left, top, width, height
    score: FloatArray  # (N,) 0..1
    class_id: IntArray  # (N,)


@dataclass(slots=True, eq=False)
class Track:
    """One identity and where it is now."""

    id: int
    class_id: int
    state: Any
    box: FloatArray  # (4,) centre x, centre y, width, height: matched or predicted
    score: float
    born_s: float
    seen_s: float
    confirmed: bool
    life: str = "tracked"  # tracked | lost | removed


@dataclass(slots=True)
class Tracker:
    """One camera's tracks. Call `step` once per frame, also for frames without detections."""

    motion: Motion
    thresholds: Thresholds = field(default_factory=Thresholds)
    tracked: list[Track] = field(default_factory=list)
    lost: list[Track] = field(default_factory=list)
    removed: set[int] = field(default_factory=set)
    frames: int = 0
    last_id: int = 0

    def step(self, detections: Detections, time_s: float, step: Step) -> list[Track]:
        """Tracks that are matched in this frame, in the order of their confirmation."""
        self.frames += 1
        limits, score = self.thresholds, detections.score
        confident = np.flatnonzero(score > limits.high)
        weak = np.flatnonzero((score > limits.low) & (score < limits.high))
        newborn = [track for track in self.tracked if not track.confirmed]
        known = [track for track in self.tracked if track.confirmed] + self.lost
        self._predict(known + newborn, step)
        late = self._margins(known, time_s, limits.drift_per_s)
        pairs, alone, left = self._match(known, late, detections, confident, limits.first_cost)
        back = [track for track, _ in pairs if track.life != "tracked"]
        found = [track for track in self._take(pairs, detections, time_s) if track not in back]
        still = [track for track in alone if track.life == "tracked"]
        late = self._margins(still, time_s, limits.drift_per_s)
        pairs, fading, _ = self._match(still, late, detections, weak, limits.second_cost)
        found += self._take(pairs, detections, time_s)
        for track in fading:
            track.life = "lost"
        late = self._margins(newborn, time_s, limits.newborn_drift_per_s)
        pairs, stillborn, left = self._match(newborn, late, detections, left, limits.newborn_cost)
        found += self._take(pairs, detections, time_s)
        for track in stillborn:
            track.life = "removed"
        found += self._give_birth(detections, left[score[left] >= limits.birth], time_s)
        self._keep_lists(found + back, fading, stillborn, time_s)
        return [track for track in self.tracked if track.confirmed]

    def _predict(self, tracks: list[Track], step: Step) -> None:
        if tracks:
            boxes = self.motion.predict([track.state for track in tracks], step)
            for track, box in zip(tracks, boxes, strict=True):
                track.box = box

    def _margins(self, tracks: Sequence[Track], time_s: float, drift_per_s: float) -> FloatArray:
        """How many pixels (N,) each track's boxes grow on every side, for the time since it was seen."""
        # A motion model may shrink a box through zero: such a box has no size to grow by.
        area = np.array([max(track.box[2], 0.0) * max(track.box[3], 0.0) for track in tracks])
        margins = drift_per_s * np.sqrt(area) * np.array([time_s - track.seen_s for track in tracks])
        if self.thresholds.spread_growth and tracks and isinstance(self.motion, Unsure):
            told = self.motion.spread_px([track.state for track in tracks])
            margins = np.where(np.isnan(told), margins, self.thresholds.spread_growth * told)
        return margins

    def _match(
        self, tracks: Sequence[Track], margins: FloatArray, detections: Detections, rows: IntArray, limit: float
    ) -> tuple[list[tuple[Track, int]], list[Track], IntArray]:
        """(track, detection row) pairs, tracks without a match, rows without a match."""
        if not tracks or not len(rows):
            return [], list(tracks), rows
        cost = 1 - overlap(_corners(tracks), xyxy(detections.xywh_px[rows]), margins)
        cost[np.array([t.class_id for t in tracks])[:, None] != detections.class_id[rows][None]] = np.inf
        first, second = cheapest(cost, limit)
        pairs = [(tracks[a], int(rows[b])) for a, b in zip(first, second, strict=True)]
        alone = [tracks[k] for k in np.setdiff1d(np.arange(len(tracks)), first)]
        return pairs, alone, np.delete(rows, second)

    def _take(self, pairs: Sequence[tuple[Track, int]], detections: Detections, time_s: float) -> list[Track]:
        """Give matched tracks their detections."""
        if not pairs:
            return []
        boxes = centred(detections.xywh_px[[row for _, row in pairs]])
        self.motion.update([track.state for track, _ in pairs], boxes)
        for (track, row), box in zip(pairs, boxes, strict=True):
            track.box, track.seen_s, track.confirmed = box, time_s, True
            track.life, track.score = "tracked", float(detections.score[row])
        return [track for track, _ in pairs]

    def _give_birth(self, detections: Detections, rows: IntArray, time_s: float) -> list[Track]:
        boxes = centred(detections.xywh_px[rows])
        states, tracks = self.motion.begin(boxes, detections.class_id[rows]), []
        for row, box, state in zip(rows, boxes, states, strict=True):
            self.last_id += 1
            class_id, score = int(detections.class_id[row]), float(detections.score[row])
            # In the first frame there is no second look to wait for.
            tracks.append(Track(self.last_id, class_id, state, box, score, time_s, time_s, confirmed=self.frames == 1))
        return tracks

    def _keep_lists(self, found: list[Track], fading: list[Track], stillborn: list[Track], time_s: float) -> None:
        """Move tracks between the lists, in the order that their ids and output depend on."""
        over = [t for t in self.lost if time_s - t.seen_s > self.thresholds.max_lost_s]
        kept = [track for track in self.tracked if track.life == "tracked"]
        already = {id(track) for track in kept}
        self.tracked = kept + [track for track in found if id(track) not in already]
        living = {track.id for track in self.tracked}
        lost = [track for track in self.lost if track.id not in living] + fading
        # Tracks that ran out of time in this frame stay until the next one: they may still be found once
        # more.
        self.lost = [track for track in lost if track.id not in self.removed]
        self.removed |= {track.id for track in stillborn + over}
        self._merge_duplicates()

    def _merge_duplicates(self) -> None:
        """Where a lost track lies on a tracked one of its class, the one with the shorter life goes."""
        if not self.tracked or not self.lost:
            return
        cost = 1 - overlap(_corners(self.tracked), _corners(self.lost))
        same = np.array([[a.class_id == b.class_id for b in self.lost] for a in self.tracked])
        drop: set[int] = set()
        for a, b in zip(*np.nonzero((cost < self.thresholds.duplicate_cost) & same), strict=True):
            young, old = self.tracked[a], self.lost[b]
            older = young.seen_s - young.born_s > old.seen_s - old.born_s
            drop.add(id(old) if older else id(young))
        self.tracked = [track for track in self.tracked if id(track) not in drop]
        self.lost = [track for track in self.lost if id(track) not in drop]


def overlap(first: FloatArray, second: FloatArray, margins: FloatArray | float = 0.0) -> FloatArray:
    """IoU (N, M) of xyxy boxes (N, 4) and (M, 4); `margins` (N,) ≥ 0 grow both boxes of a pair on every side."""
    grown = 2 * np.broadcast_to(margins, len(first))[:, None, None]
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    inter = np.clip(np.minimum(first[:, None, 2:], second[None, :, 2:]) - low + grown, 0, None).prod(axis=2)
    area = ((first[:, 2:] - first[:, :2])[:, None] + grown).prod(axis=2)
    other = ((second[:, 2:] - second[:, :2])[None] + grown).prod(axis=2)
    union = area + other - inter
    return np.where(union > 0, inter / np.where(union > 0, union, 1.0), 0.0)


def cheapest(cost: FloatArray, limit: float) -> tuple[IntArray, IntArray]:
    """Rows and columns of the assignment with the least total cost, where staying alone costs `limit` per
    pair.

    Equal to the extended-cost formulation of the lap package: a pair is worth what it saves against two that
    are alone, so a match at the limit or above is never made, and near ones are not given up for its sake.
    """
    saving = np.where(cost < limit, limit - cost, 0.0)
    rows, columns = linear_sum_assignment(saving, maximize=True)
    made = saving[rows, columns] > 0
    return rows[made], columns[made]


def centred(xywh: FloatArray) -> FloatArray:
    """Left, top, width, height (N, 4) → centre x, centre y, width, height."""
    return np.concatenate([xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]], axis=1)


def xyxy(xywh: FloatArray) -> FloatArray:
    """Left, top, width, height (N, 4) → corners."""
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def _corners(tracks: Sequence[Track]) -> FloatArray:
    box = np.stack([track.box for track in tracks])
    return np.concatenate([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], axis=1)
