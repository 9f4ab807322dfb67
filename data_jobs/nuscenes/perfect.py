"""Perfect motion: what the best motion model there could be would gain under the same association.

In: a Part with its truth. Out: its tracks. Called by compare.py. Every track knows which object its last detection lay
on, and predicts that object's true box. A track of no object, of one that is not labelled now, or of one that an older
track follows is predicted by the ego-turned filter. Detections, gates and the life of a track are everyone else's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from data_jobs.nuscenes.association import Detections, Step, Thresholds, Track, Tracker
from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.nuscenes.matching import IntArray, pairwise_iou
from data_jobs.nuscenes.mot_files import MotRows
from data_jobs.nuscenes.motion import BoxKalman
from data_jobs.nuscenes.suite import SAME_OBJECT_IOU, Part, rows_of
from data_jobs.nuscenes.track import track_camera
from models import box_kalman

NOBODY = -1


@dataclass(slots=True, eq=False)
class Known:
    """A track's filter and the object that it follows."""

    filter: Any
    id: int


class Perfect:
    """A motion model that is told the truth of each frame before it is asked."""

    def __init__(self) -> None:
        self.filter = BoxKalman(box_kalman.TUNED, ego=True)
        self.truth: MotRows

    def begin(self, boxes: FloatArray, class_id: IntArray) -> list[Known]:
        """States of N newborn tracks."""
        states = zip(self.filter.begin(boxes, class_id), boxes, strict=True)
        return [Known(state, self._below(box, NOBODY)) for state, box in states]

    def predict(self, states: list[Known], step: Step) -> FloatArray:
        """True boxes (N, 4), the filter's where there is none."""
        boxes = self.filter.predict([state.filter for state in states], step)
        place = {int(identity): row for row, identity in enumerate(self.truth.id)}
        for k, state in enumerate(states):
            if state.id in place:
                xywh = self.truth.xywh_px[place.pop(state.id)]
                boxes[k] = [*(xywh[:2] + xywh[2:] / 2), *xywh[2:]]
        return boxes

    def update(self, states: list[Known], boxes: FloatArray) -> None:
        """Correct the filters; a detection on another object changes whom a track follows."""
        self.filter.update([state.filter for state in states], boxes)
        for state, box in zip(states, boxes, strict=True):
            state.id = self._below(box, state.id)

    def _below(self, box: FloatArray, before: int) -> int:
        """The object that a detection lies on: the one before if it may be that, else that with the largest overlap."""
        xywh = np.concatenate([box[:2] - box[2:] / 2, box[2:]])
        shares = pairwise_iou(np.repeat(xywh[None], len(self.truth.id), axis=0), self.truth.xywh_px)
        near = shares >= SAME_OBJECT_IOU
        if before in self.truth.id[near] or not near.any():
            return before
        return int(self.truth.id[np.argmax(shares)])


def perfect(part: Part, thresholds: Thresholds) -> MotRows:
    """Tracks of one camera with perfect motion."""
    labels, motion, frame = part.truth[0], Perfect(), 0

    class Told(Tracker):
        def step(self, detections: Detections, time_s: float, step: Step) -> list[Track]:
            nonlocal frame
            frame += 1
            motion.truth = labels.chosen(labels.frame == frame)
            return Tracker.step(self, detections, time_s, step)

    return rows_of(track_camera(part.frames, part.detections, motion, thresholds, Told))
