"""Where hands slow down: between reaching for a thing and moving it, a wrist is slowest. Good places to cut.

In: Video. Out: frame indices. Called by splitters.py. The rule is that of VITRA (arXiv 2510.21571, appendix: speed of
the wrist, smoothed, cut at minima within a fixed window) and of Data-Juicer's hand-motion segmentation; theirs is
measured in metres after a 3-D reconstruction, ours in palm lengths per second, which needs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from data_jobs.egoworld.decode import Decoder, TimedFrame
from data_jobs.egoworld.pixels import RgbConverter
from data_jobs.egoworld.records import Video
from data_jobs.runs.errors import InputError

WRIST, MIDDLE_KNUCKLE = 0, 9
SIDES = ("left", "right")

# A hand that was not seen for longer than this is not joined across the gap: nothing is known of it there.
LONGEST_GAP_S = 0.5

# Palm lengths per second (about 2.5 cm/s): below it a hand rests, and its slowest moment is noise.
MOVING = 0.25


def wrist_tracks(video: Video, sample_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Times (T,) s and wrists (T, 2, 3): x, y and palm length in pixels of the left and the right hand, NaN unseen.

    Looks at about `sample_hz` frames a second, every frame at most. Raises InputError for damaged pictures,
    MissingWeight when the hand models are not there.
    """
    from actors.hand_finder import HandFinder  # only this splitter pays for the import

    finder = HandFinder("lite", max_hands=2)
    finder.load()
    stream, convert = finder.open_stream(), RgbConverter(video.rotation_deg)
    times: list[float] = []
    wrists: list[np.ndarray] = []
    picture = np.empty((video.height, video.width, 3), np.uint8)
    for index, (pts, frame) in enumerate(_frames(video)):
        time_s = float(pts * video.time_base)
        # Half an interval of grace: 30 frames a second sampled at 10 Hz gives every third.
        if times and time_s - times[-1] < 1 / sample_hz - 0.5 / max(video.fps, 1.0):
            continue
        if not convert.into(frame, picture):
            raise InputError(f"{video.name}: frame {index} has another size than the video")
        row = np.full((2, 3), np.nan)
        for hand in stream.next(picture.copy()):
            wrist, knuckle = hand.landmarks_px[WRIST, :2], hand.landmarks_px[MIDDLE_KNUCKLE, :2]
            row[SIDES.index(hand.side)] = (*wrist, np.linalg.norm(knuckle - wrist))
        times.append(time_s)
        wrists.append(row)
    finder.close()
    return np.array(times), np.array(wrists).reshape(-1, 2, 3)


def _frames(video: Video) -> Iterator[TimedFrame]:
    """Every frame, each checked to be the one that was listed."""
    with Decoder(video.path, video.name) as decoder:
        for seen, (pts, frame) in enumerate(decoder.frames_from(int(video.pts[0]))):
            if seen >= video.frame_count:
                return
            if pts != video.pts[seen]:
                raise InputError(f"{video.name}: frame {seen} came at pts {pts}, not where it was listed")
            yield pts, frame


def hand_speed(times_s: np.ndarray, wrists: np.ndarray, smooth_s: float) -> np.ndarray:
    """(T,) palm lengths per second of the faster hand, smoothed by a Gaussian; NaN where no hand is followed."""
    if len(times_s) < 2:
        return np.full(len(times_s), np.nan)
    speeds = []
    for side in range(wrists.shape[1]):
        seen = np.isfinite(wrists[:, side, 0])
        if seen.sum() < 2:
            continue
        t, track = times_s[seen], wrists[seen, side]
        # Of each stretch between two sightings; the palm's median keeps a misread hand from changing the unit.
        step_s = np.diff(t)
        palm = max(float(np.median(track[:, 2])), 1.0)
        of_stretch = np.linalg.norm(np.diff(track[:, :2], axis=0), axis=1) / step_s / palm
        of_stretch[step_s > LONGEST_GAP_S] = np.nan
        place = np.clip(np.searchsorted(t, times_s, side="right") - 1, 0, len(of_stretch) - 1)
        speeds.append(np.where((times_s >= t[0]) & (times_s <= t[-1]), of_stretch[place], np.nan))
    if not speeds:
        return np.full(len(times_s), np.nan)
    stacked = np.stack(speeds)
    known = np.isfinite(stacked).any(axis=0)
    fastest = np.where(known, np.max(np.where(np.isfinite(stacked), stacked, -np.inf), axis=0), 0.0)
    weight = np.exp(-0.5 * ((times_s[:, None] - times_s[None]) / smooth_s) ** 2) * known
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, weight @ fastest / weight.sum(axis=1), np.nan)


def slow_moments(times_s: np.ndarray, speed: np.ndarray, window_s: float, depth: float) -> list[int]:
    """Positions that are slowest within ± `window_s`, and slower than `depth` × the fastest there, on both sides.

    Of equal neighbours the one in the middle. Times without a hand are no minima.
    """
    found: list[int] = []
    for i in np.flatnonzero(np.isfinite(speed)):
        near = np.flatnonzero(np.abs(times_s - times_s[i]) <= window_s)
        before, after = speed[near[near < i]], speed[near[near > i]]
        if not (np.isfinite(before).any() and np.isfinite(after).any()):
            continue
        around = min(np.nanmax(before), np.nanmax(after))
        if around < MOVING or speed[i] > min(np.nanmin(speed[near]), depth * around):
            continue
        equal = near[speed[near] == speed[i]]
        if i == equal[len(equal) // 2]:
            found.append(int(i))
    return found


def spaced(
    cuts_s: Sequence[float], speed: Sequence[float], start_s: float, end_s: float, least_s: float
) -> list[float]:
    """The slowest cuts first, as long as each is `least_s` from the ends and from those taken; ascending."""
    taken: list[float] = []
    for _, cut in sorted(zip(speed, cuts_s, strict=True)):
        if all(abs(cut - other) >= least_s for other in (start_s, end_s, *taken)):
            taken.append(cut)
    return sorted(taken)
