"""Joint tracks over time: flags per frame, holding what is missing, and never faster than the joints can move.

In and out: NumPy angles (T, J) with times. Called by hand.py and arm.py.
"""

from __future__ import annotations

from enum import IntFlag

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class Flag(IntFlag):
    """What was done to a frame; 0 is an ordinary frame."""

    TIP_MISSING = 1  # a finger tip was not seen: its finger keeps its last angles
    HELD = 2  # no usable hand or no wrist pose: all joints keep their last angles
    SLOWED = 4  # the track jumped: a joint moved as fast as it can and is not there yet
    UNREACHABLE = 8  # the wrist is outside the arm's workspace: the closest pose under the same orientation


def held(angles_rad: FloatArray, known: BoolArray, first: FloatArray) -> FloatArray:
    """Angles (T, J) where rows that are not known (T,) or (T, J) repeat the last known value, or `first` (J,)."""
    known = np.broadcast_to(known if known.ndim == 2 else known[:, None], angles_rad.shape)
    last = np.maximum.accumulate(np.where(known, np.arange(1, len(known) + 1)[:, None], 0), axis=0)
    return np.take_along_axis(np.concatenate([first[None], angles_rad]), last, axis=0)


def limited(
    angles_rad: FloatArray, time_s: FloatArray, speed_rad_s: FloatArray, start: FloatArray | None
) -> tuple[FloatArray, BoolArray]:
    """Follow angles (T, J) without exceeding `speed_rad_s` (J,); which frames were slowed (T,).

    `start` (J,) is where the joints are before the first frame, one first interval earlier; None: at the first frame.
    """
    out, slowed = angles_rad.copy(), np.zeros(len(angles_rad), dtype=bool)
    step = np.diff(time_s, prepend=time_s[:1] - (time_s[1:2] - time_s[:1] if len(time_s) > 1 else 0.0))
    at = angles_rad[0] if start is None else start
    # A hair below the limit, so that rounding of the sum does not exceed it.
    reach = step[:, None] * speed_rad_s * (1 - 1e-9)
    # Only frames in or after a jump need the loop: where nothing is too far, the track is its own answer.
    far = (np.abs(np.diff(angles_rad, axis=0, prepend=at[None])) > reach).any(axis=1)
    if not far.any():
        return out, slowed
    for k in range(int(np.argmax(far)), len(out)):
        before = out[k - 1] if k else at
        move = np.clip(angles_rad[k] - before, -reach[k], reach[k])
        out[k] = before + move
        slowed[k] = bool((np.abs(angles_rad[k] - out[k]) > 1e-9).any())
        out[k] = out[k] if slowed[k] else angles_rad[k]
    return out, slowed


def check_times(time_s: FloatArray, frames: int) -> None:
    """Raise ValueError unless there is one finite, increasing time per frame."""
    if time_s.shape != (frames,) or not np.isfinite(time_s).all() or (np.diff(time_s) <= 0).any():
        raise ValueError(f"times must be {frames} finite, increasing seconds, one per frame")
