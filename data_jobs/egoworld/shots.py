"""Where camera shots begin, found by PySceneDetect's adaptive detector on our own decoded frames.

In: Video. Out: frame indices. Called by splitters.py. Finds hard cuts, to the frame; dissolves and fades are
no cuts to it. A flash (two cuts within FLASH_S that lead back to the same picture) is taken out here: the
detector's own filter can only drop the second of the two, and with it real cuts between short shots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from data_jobs.egoworld.decode import Decoder
from data_jobs.egoworld.pixels import RgbConverter
from data_jobs.egoworld.records import Video
from data_jobs.runs.errors import InputError

# Pictures are compared at this width: the size that scenedetect scales to and tuned its thresholds at
# (scenedetect.scene_manager, DEFAULT_MIN_WIDTH).
DETECTION_WIDTH_PX = 256
# A camera flash or a bright reflection lasts a few frames; a shot that short cannot be told from one anyway.
FLASH_S = Fraction(1, 4)
# The detector reports a cut this many frames after it, once it has seen what follows (its `window_width`
# default).
_DETECTION_DELAY = 2


@dataclass(frozen=True, slots=True)
class _Cut:
    pts: int
    before: np.ndarray  # thumbnail of the last frame of the old shot
    after: np.ndarray  # and of the first of the new one


def shot_starts(video: Video, min_scene_len_s: float) -> list[int]:
    """Index of the first frame of every shot but the first, each at least `min_scene_len_s` from the next and
    the ends.

    Raises InputError when a picture is damaged or the frames are not those that were probed.
    """
    cuts = _without_flashes(list(_cuts(video)), FLASH_S / video.time_base)
    shortest = Fraction(str(min_scene_len_s)) / video.time_base
    kept = [int(video.pts[0])]
    for cut in cuts:
        if cut.pts - kept[-1] >= shortest:
            kept.append(cut.pts)
    if len(kept) > 1 and int(video.pts[-1]) - kept[-1] < shortest:
        kept.pop()
    return [int(np.searchsorted(video.pts, pts)) for pts in kept[1:]]


def _cuts(video: Video) -> Iterator[_Cut]:
    """Every jump between neighbouring frames that the detector calls a cut."""
    from scenedetect.common import FrameTimecode, Timecode  # only this splitter pays for the import
    from scenedetect.detectors import AdaptiveDetector

    origin = int(video.pts[0])
    detector = AdaptiveDetector(min_scene_len=0, window_width=_DETECTION_DELAY)
    recent: deque[tuple[int, np.ndarray]] = deque(maxlen=_DETECTION_DELAY + 2)
    for pts, image in _small_pictures(video):
        recent.append((pts, image[::4, ::4].astype(np.int16)))
        code = FrameTimecode(Timecode(pts=pts - origin, time_base=video.time_base), fps=max(video.fps, 1.0))
        for found in detector.process_frame(code, image):
            at = next(i for i, (seen, _) in enumerate(recent) if seen == origin + found.pts)
            yield _Cut(recent[at][0], recent[at - 1][1], recent[at][1])


def _without_flashes(cuts: list[_Cut], longest: Fraction) -> list[_Cut]:
    """Drop neighbouring cuts that lead away from a picture and, soon after, back to it."""
    kept: list[_Cut] = []
    for cut in cuts:
        if kept and cut.pts - kept[-1].pts <= longest and _returns(kept[-1], cut):
            kept.pop()
        else:
            kept.append(cut)
    return kept


def _returns(out: _Cut, back: _Cut) -> bool:
    """Whether the picture after `back` is far nearer to the one before `out` than either jump was wide."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a - b).mean())

    jump = min(distance(out.before, out.after), distance(back.before, back.after))
    return distance(out.before, back.after) < jump / 2


def _small_pictures(video: Video) -> Iterator[tuple[int, np.ndarray]]:
    """Time and small BGR picture of every frame, as stored (a turned picture has the same cuts)."""
    convert, seen = RgbConverter(0), 0
    with Decoder(video.path, video.name) as decoder:
        for pts, frame in decoder.frames_from(int(video.pts[0])):
            if seen >= video.frame_count or pts != video.pts[seen]:
                raise InputError(f"{video.name}: frame {seen} came at pts {pts}, not where it was listed")
            width = min(frame.width, DETECTION_WIDTH_PX)
            height = max(1, round(frame.height * width / frame.width))
            yield pts, np.ascontiguousarray(convert.stored(frame, width, height)[:, :, ::-1])
            seen += 1
    if seen < video.frame_count:
        raise InputError(f"{video.name}: expected {video.frame_count} frames, decoded {seen}")
