"""Motion by TrackSSM for association.py: the residual variant over the ego-turned Kalman filter, or the public form.

In: boxes and Steps, a weights file. Out: predictions, and for the residual variant how far they may be off. Made by
motion.py. All tracks of a frame go through the network in one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_jobs.nuscenes.association import Motion, Step
from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.nuscenes.matching import IntArray
from models.trackssm import memory
from models.trackssm.checkpoint import load_d2mp, read_checkpoint, says_residual
from models.trackssm.network import D2MP, HISTORY, condition_of, next_boxes
from models.trackssm.pretrained import PRETRAINED
from models.trackssm.residual import ResidualTrackSSM, load_residual, predict


def learned_motion(weights: Path | None, sigmoid: bool | None = None) -> Callable[[], Motion]:
    """Makes motion models around one network: the shipped one, or that of a file of either form.

    Raises ModelError naming what does not fit, OSError without a file.
    """
    path = weights or PRETRAINED
    if says_residual(read_checkpoint(path)):
        network = load_residual(path)
        return lambda: ResidualMotion(network)
    public = load_d2mp(path, sigmoid)
    return lambda: PublicMotion(public)


@dataclass(slots=True, eq=False)
class ResidualState:
    """One track's memory, and the spread of its present box."""

    memory: memory.Memory  # of one track
    class_id: int
    spread_px: float = np.nan


class ResidualMotion:
    """The filter's box plus what the network adds to it."""

    def __init__(self, network: ResidualTrackSSM) -> None:
        self.network = network

    def begin(self, boxes: FloatArray, class_id: IntArray) -> list[ResidualState]:
        """Memories of N tracks seen once (N, 4)."""
        whole = memory.born(boxes)
        return [ResidualState(whole.chosen(slice(k, k + 1)), int(c)) for k, c in enumerate(class_id)]

    def predict(self, states: list[ResidualState], step: Step) -> FloatArray:
        """Advance by one frame; boxes (N, 4)."""
        way, whole = _way(step, len(states)), memory.Memory.joined([state.memory for state in states])
        now = memory.advanced(whole, way)
        base, sigma = now.mean[:, :4], memory.spread_px(now)
        tokens = memory.tokens(now, way, np.array([state.class_id for state in states]))
        boxes, spread = predict(self.network, tokens, base, sigma, way.known)
        told = np.where(self.network.asked(way.known), spread[:, :2].mean(axis=1), np.nan)
        for k, state in enumerate(states):
            state.memory, state.spread_px = now.chosen(slice(k, k + 1)), float(told[k])
        return boxes

    def update(self, states: list[ResidualState], boxes: FloatArray) -> None:
        """Remember the matched boxes (N, 4)."""
        now = memory.observed(memory.Memory.joined([state.memory for state in states]), boxes)
        for k, state in enumerate(states):
            state.memory = now.chosen(slice(k, k + 1))

    def spread_px(self, states: list[ResidualState]) -> FloatArray:
        """Standard deviation (N,) of the predicted centres; NaN where the filter stands alone."""
        return np.array([state.spread_px for state in states])


def _way(step: Step, tracks: int) -> memory.Way:
    known = step.camera_from_before is not None
    width, height = step.image_wh
    lens = step.lens_px or (width, width / 2, height / 2)  # as train_jobs assumes where there is no calibration
    camera = step.camera_from_before if step.camera_from_before is not None else np.eye(3, 4)
    turn, move, pixels = (np.tile(m, (tracks, *[1] * np.ndim(m))) for m in (step.image_from_before, camera, lens))
    return memory.Way(np.full(tracks, step.dt_s), turn, move, pixels, np.full(tracks, known))


@dataclass(slots=True, eq=False)
class PublicState:
    """One track's last boxes with their changes, oldest first; the last row may be a prediction."""

    rows: list[FloatArray] = field(default_factory=list)  # (8,) pixels, HISTORY at most
    guessed: bool = False  # whether the last row is a prediction that no detection has confirmed yet


class PublicMotion:
    """The published tracker's use of the network: predictions enter the history until a detection replaces them."""

    def __init__(self, network: D2MP) -> None:
        self.network = network

    def begin(self, boxes: FloatArray, class_id: IntArray) -> list[PublicState]:
        """Histories of one box, which has not changed."""
        return [PublicState([np.concatenate([box, np.zeros(4)])]) for box in boxes]

    def predict(self, states: list[PublicState], step: Step) -> FloatArray:
        """The network's next boxes (N, 4): it counts frames, whatever time lies between."""
        conditions = np.stack([condition_of(np.stack(state.rows), step.image_wh) for state in states])
        boxes = next_boxes(self.network, conditions) * np.tile(step.image_wh, 2)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 1.0)
        for state, box in zip(states, boxes, strict=True):
            state.rows = [*state.rows, np.concatenate([box, box - state.rows[-1][:4]])][-HISTORY:]
            state.guessed = True
        return boxes

    def update(self, states: list[PublicState], boxes: FloatArray) -> None:
        """Put the matched boxes (N, 4) in place of the predictions."""
        for state, box in zip(states, boxes, strict=True):
            before = state.rows[-2] if state.guessed and len(state.rows) > 1 else state.rows[-1]
            state.rows[-1] = np.concatenate([box, box - before[:4]])
            state.guessed = False
