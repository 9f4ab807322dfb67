"""Samples for training: what each form of the network is shown, and the true box that it should name.

In: Batches of windows and a random generator. Out: tensors. Called by objective.py and the tests. The true box of the
target frame is in no sample's history; only noisy boxes of earlier frames are. The published recipe had the target as
the last row of its own history.
"""

# M samples, K remembered observations, F numbers per token

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.box_kalman import FloatArray
from models.trackssm import memory
from models.trackssm.network import HISTORY
from train_jobs.trackssm.windows import Batch


@dataclass(frozen=True, slots=True)
class Detector:
    """What stands between true boxes and a tracker's history."""

    noise: float = 0.03  # of each box edge, as a share of the box's side
    missed: float = 0.08  # of single detections
    gap_share: float = 0.3  # tracks with one longer gap
    longest_gap: int = 10  # frames
    longest_s: float = 2.0  # a track not seen for longer is given up


@dataclass(frozen=True, slots=True)
class PublicSamples:
    """For the public form: shares of the image."""

    condition: Tensor  # (M, 5, 8)
    target: Tensor  # (M, 4)

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True, slots=True)
class ResidualSamples:
    """For the residual variant: the filter's box, its standard deviation and the truth in pixels."""

    tokens: Tensor  # (M, K, F)
    base_px: Tensor  # (M, 4)
    sigma_px: Tensor  # (M, 4)
    target_px: Tensor  # (M, 4)

    def __len__(self) -> int:
        return len(self.target_px)


def detected(box_px: FloatArray, noise: float, image_wh: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Boxes (..., 4) as a detector would report them: every edge off by `noise` of the side, cut at the image."""
    low, high = box_px[..., :2] - box_px[..., 2:] / 2, box_px[..., :2] + box_px[..., 2:] / 2
    low = low + rng.normal(0, noise, low.shape) * box_px[..., 2:]
    high = high + rng.normal(0, noise, high.shape) * box_px[..., 2:]
    low, high = np.clip(low, 0, image_wh), np.clip(high, 0, image_wh)
    side = np.maximum(high - low, 1.0)
    return np.concatenate([(low + high) / 2, side], axis=-1)


def public_samples(batch: Batch, detector: Detector, rng: np.random.Generator) -> PublicSamples:
    """Every run of seven consecutive boxes of a track: six give five rows of box and change, the seventh is the target.

    A track with a gap gives samples on both sides of it, none across.
    """
    image = batch.image_wh[:, None, None]
    seen = detected(batch.box_px, detector.noise, image, rng)
    scale = np.tile(batch.image_wh, 2)[:, None, None]
    history, truth = seen / scale, batch.box_px / scale
    rows, targets = [], []
    for at in range(HISTORY + 1, batch.there.shape[1]):
        whole = batch.there[:, at - HISTORY - 1 : at + 1].all(axis=1)
        past = np.moveaxis(history[:, at - HISTORY - 1 : at], 1, 2)[whole]
        rows.append(np.concatenate([past[:, 1:], np.diff(past, axis=1)], axis=2))
        targets.append(truth[:, at][whole])
    return PublicSamples(*(torch.as_tensor(np.concatenate(part), dtype=torch.float32) for part in (rows, targets)))


def residual_samples(batch: Batch, detector: Detector, rng: np.random.Generator) -> ResidualSamples:
    """Play the windows to the tracker's own memory, with noise, misses and gaps; a sample wherever a truth follows."""
    window, track = np.nonzero(batch.track_ids >= 0)
    truth, there = batch.box_px[window, :, track], batch.there[window, :, track]
    seen = detected(truth, detector.noise, batch.image_wh[window][:, None], rng)
    found = there & _found(there, detector, rng)
    class_id = batch.class_ids[window, track]
    dt_s = np.diff(batch.time_s, axis=1, prepend=batch.time_s[:, :1])
    known, alive = memory.born(seen[:, 0]), found[:, 0].copy()
    parts: list[tuple[np.ndarray, ...]] = []
    for at in range(1, truth.shape[1]):
        rows = np.flatnonzero(alive)
        of = window[rows]
        way = memory.Way(dt_s[of, at], batch.image_from_before[of, at], batch.camera_from_before[of, at],
                         batch.lens_px[of], batch.way_known[of])  # fmt: skip
        now = memory.advanced(known.chosen(rows), way)
        asked = there[rows, at] & (now.age_s[:, -1] <= detector.longest_s)
        parts.append(_asked(now.chosen(asked), way, asked, class_id[rows], truth[rows, at]))
        hit = found[rows, at] & (now.age_s[:, -1] <= detector.longest_s)
        known.put(rows, now)
        known.put(rows[hit], memory.observed(now.chosen(hit), seen[rows[hit], at]))
        alive[rows[~hit & (now.age_s[:, -1] > detector.longest_s)]] = False
        fresh = np.flatnonzero(found[:, at] & ~np.isin(np.arange(len(alive)), rows))
        known.put(fresh, memory.born(seen[fresh, at]))
        alive[fresh] = True
    columns = (torch.as_tensor(np.concatenate(column), dtype=torch.float32) for column in zip(*parts, strict=True))
    return ResidualSamples(*columns)


def _asked(
    now: memory.Memory, way: memory.Way, asked: np.ndarray, class_id: np.ndarray, truth: FloatArray
) -> tuple[np.ndarray, ...]:
    mine = memory.Way(*(getattr(way, name)[asked] for name in memory.Way.__slots__))
    return memory.tokens(now, mine, class_id[asked]), now.mean[:, :4], memory.spread_px(now), truth[asked]


def _found(there: np.ndarray, detector: Detector, rng: np.random.Generator) -> np.ndarray:
    """(M, S) which true boxes a detector finds: single misses, and one longer gap in some tracks."""
    found = rng.random(there.shape) >= detector.missed
    start = rng.integers(1, there.shape[1], len(there))
    length = rng.integers(2, detector.longest_gap + 1, len(there)) * (rng.random(len(there)) < detector.gap_share)
    place = np.arange(there.shape[1])
    return found & ~((place >= start[:, None]) & (place < (start + length)[:, None]))
