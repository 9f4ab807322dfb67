"""Frames at a regular interval of real time. Called by the operators that do not look at every frame."""

from __future__ import annotations

import numpy as np

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.records import Clip

# Forgives the rounding of timestamps that fall exactly on an interval.
ROUNDING_S = 5e-7


def frames_every(clip: Clip, reader: ClipReader, interval_s: float, most: int | None = None) -> list[int]:
    """Frame indices: the first frame, then the first one at or after each interval; every frame for 0."""
    if interval_s == 0:
        return list(range(clip.frame_start, clip.frame_end))[:most]
    times_s = reader.times_s()
    wanted_s = np.arange(times_s[0], times_s[-1] + 1e-9, interval_s)[:most]
    positions = np.unique(np.searchsorted(times_s, wanted_s - ROUNDING_S))
    return [clip.frame_start + int(i) for i in positions if i < len(times_s)]
