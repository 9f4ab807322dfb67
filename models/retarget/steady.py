"""Takes the jitter out of hand keypoints before a robot follows them: a One-Euro filter in the wrist's frame.

In: keypoints (T, 21, 3) with times, or one live frame. Out: the same hand seen from its wrist, steadier. Called by
hand_follower.py (actors) and the egoworld operator, before hand.py. The filter (Casiez, Roussel, Vogel 2012,
doi:10.1145/2207676.2208639) is a low-pass whose cutoff rises with speed: still hands are held still, quick ones
hardly lag. It works on points seen from the wrist, because there the jitter of the hand's place and turn is gone.
What is missing stays missing, and does not disturb what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from models.retarget.keypoints import KEYPOINTS, from_wrist
from models.retarget.motion import FloatArray, check_times


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How strongly to filter. `cutoff = slowest_hz + hz_per_m_s · speed`."""

    slowest_hz: float = 0.7
    hz_per_m_s: float = 6.0
    speed_hz: float = 1.0  # cutoff of the speed's own low-pass


STEADINESS = Steadiness()


@dataclass(frozen=True, slots=True)
class Memory:
    """What the filter remembers between two frames; NaN where nothing was seen yet."""

    points_m: FloatArray  # (21, 3)
    speed_m_s: FloatArray  # (21, 3)


def nothing_seen() -> Memory:
    """The memory before the first frame."""
    return Memory(np.full((KEYPOINTS, 3), np.nan), np.zeros((KEYPOINTS, 3)))


def seen_from_wrist(keypoints_m: FloatArray, side: str) -> FloatArray:
    """Keypoints (..., 21, 3) in the wrist's frame; NaN where missing, or where the frame is not usable."""
    view = from_wrist(torch.as_tensor(np.asarray(keypoints_m, dtype=np.float64)), side)
    known = np.isfinite(keypoints_m).all(axis=-1) & view.usable.numpy()[..., None]
    return np.where(known[..., None], view.points_m.numpy(), np.nan)


def steady_step(
    points_m: FloatArray, dt_s: float, before: Memory, how: Steadiness = STEADINESS
) -> tuple[FloatArray, Memory]:
    """One frame (21, 3) in the wrist's frame, `dt_s` after the one before: filtered, and what to remember."""
    new, old = np.isfinite(points_m), np.isfinite(before.points_m)
    speed = np.where(new & old, (points_m - before.points_m) / dt_s, 0.0)
    share = _share(np.array(how.speed_hz), dt_s)
    speed = np.where(new, before.speed_m_s + share * (speed - before.speed_m_s), before.speed_m_s)
    # One cutoff per point, not per coordinate: a point that moves along x must not lag along y.
    cutoff = how.slowest_hz + how.hz_per_m_s * np.linalg.norm(speed, axis=-1, keepdims=True)
    near = before.points_m + _share(cutoff, dt_s) * (points_m - before.points_m)
    kept = np.where(new, np.where(old, near, points_m), before.points_m)
    return np.where(new, kept, np.nan), Memory(kept, speed)


def _share(cutoff_hz: FloatArray, dt_s: float) -> FloatArray:
    """How much of the way to the new value a first-order low-pass goes in one step."""
    return np.asarray(1.0 / (1.0 + 1.0 / (2 * np.pi * cutoff_hz * dt_s)))


def steadied(keypoints_m: FloatArray, side: str, time_s: FloatArray, how: Steadiness = STEADINESS) -> FloatArray:
    """A whole track (T, 21, 3), filtered forwards and backwards and averaged, so that it is not late.

    The answer is in the wrist's frame. Raises ValueError for times that do not rise.
    """
    check_times(time_s, len(keypoints_m))
    points = seen_from_wrist(keypoints_m, side)
    step = np.diff(time_s, prepend=time_s[:1] - 1.0)  # the first frame has nothing before it
    ahead = _swept(points, step, how)
    back = _swept(points[::-1], np.concatenate([step[:1], step[:0:-1]]), how)[::-1]
    return (ahead + back) / 2


def _swept(points: FloatArray, step_s: FloatArray, how: Steadiness) -> FloatArray:
    out, memory = np.empty_like(points), nothing_seen()
    for k, now in enumerate(points):
        out[k], memory = steady_step(now, float(step_s[k]), memory, how)
    return out
