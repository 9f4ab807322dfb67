"""From a probed video to the frame ranges of its clips.

In: Video. Out: Split (ranges of frame indices), later made into clips by manifest.py. Cuts fall on the real
times of frames, never on an average rate. Each class is also its block of the configuration, told apart by `method`
(config.py); add a way to split by adding a class here and there.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from data_jobs.egoworld.hand_speed import hand_speed, slow_moments, spaced, wrist_tracks
from data_jobs.egoworld.records import Video
from data_jobs.egoworld.shots import shot_starts
from data_jobs.runs.errors import InputError
from data_jobs.runs.strict import Strict
from models import weights


@dataclass(frozen=True, slots=True)
class Split:
    """How one video is cut."""

    ranges: tuple[tuple[int, int], ...]  # (first frame, one past the last), ascending, no empty range
    scenedetect_failed: bool = False


class Splitter(Protocol):
    """Cuts a video into clips that together hold every frame."""

    @property
    def overlap_s(self) -> float:
        """Seconds that a clip shares with the one before."""

    @property
    def label(self) -> str:
        """Name and version, e.g. "fixed_stride/1"; the version changes whenever the same parameters cut
        differently."""

    def params(self) -> dict[str, Any]:
        """Everything that decides the cuts, in plain JSON values: part of the clip's identity."""

    def split(self, video: Video) -> Split:
        """The frame ranges; raises InputError when the video cannot be split."""


class _Block(Strict):
    """What all splitter configurations share."""

    def params(self) -> dict[str, Any]:
        """Every field as plain JSON values."""
        return self.model_dump(mode="json")


class FixedStride(_Block):
    """Clips of equal length by the clock, laid end to end or overlapping. The default: head-mounted footage
    is one take."""

    method: Literal["fixed_stride"] = "fixed_stride"
    clip_length_s: float = Field(default=10.0, gt=0, allow_inf_nan=False, description="seconds of video per clip")
    overlap_s: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="seconds that a clip shares with the one before"
    )
    min_clip_s: float = Field(
        default=1.0, ge=0, allow_inf_nan=False, description="a shorter remainder joins the clip before it"
    )

    @model_validator(mode="after")
    def _overlap_leaves_a_step(self) -> FixedStride:
        if self.overlap_s >= self.clip_length_s:
            raise ValueError(f"overlap_s {self.overlap_s} must be below clip_length_s {self.clip_length_s}")
        return self

    @property
    def label(self) -> str:
        """Name and version."""
        return "fixed_stride/1"

    def split(self, video: Video) -> Split:
        """Cut at start + k·(clip length − overlap); a time without frames makes no clip, nor one inside another."""
        origin, length = int(video.pts[0]), _in_pts(self.clip_length_s, video)
        stride = length - _in_pts(self.overlap_s, video)
        cells: list[int] = []
        ranges: list[tuple[int, int]] = []
        start = end = 0
        while end < video.frame_count:  # from frame to frame, not from k to k: a gap of years costs one step
            k = (int(video.pts[start]) - origin) // stride
            end = _first_at(video.pts, origin + k * stride + length)
            if not ranges or end > ranges[-1][1]:
                ranges.append((start, end))
                cells.append(k)
            start = _first_at(video.pts, origin + (k + 1) * stride)
        follows_at_once = len(cells) > 1 and cells[-1] == cells[-2] + 1  # else a gap would lie within the clip
        if follows_at_once and _seconds(video, *ranges[-1]) < self.min_clip_s:
            ranges[-2:] = [(ranges[-2][0], ranges[-1][1])]
        return Split(tuple(ranges))


class SceneDetect(_Block):
    """Clips are camera shots, found by PySceneDetect on our own decoded frames. `method: none` keeps the
    video whole."""

    method: Literal["scenedetect", "none"] = "scenedetect"
    min_scene_len_s: float = Field(
        default=1.0, ge=0, allow_inf_nan=False, description="no shot is shorter; a cut too near is dropped"
    )
    fallback_full_clip: bool = Field(
        default=True, description="where detection fails: one clip of the whole video, marked so"
    )
    overlap_s: float = Field(
        default=1.0, ge=0, allow_inf_nan=False, description="a clip begins this much before its cut"
    )

    @model_validator(mode="after")
    def _makes_clips(self) -> SceneDetect:
        if self.method == "none" and not self.fallback_full_clip:
            raise ValueError("method none needs fallback_full_clip: true, without it no clip is made")
        return self

    @property
    def label(self) -> str:
        """Name and version; the detector's own version belongs to it, because its scores decide the cuts."""
        return "none/1" if self.method == "none" else f"scenedetect/1+{version('scenedetect-headless')}"

    def split(self, video: Video) -> Split:
        """Cut at the first frame of each shot; overlap, if any, reaches back from there.

        Raises InputError when pictures cannot be decoded and there is no fallback.
        """
        whole = ((0, video.frame_count),)
        if self.method == "none":
            return Split(whole)
        try:
            cuts = shot_starts(video, self.min_scene_len_s)
        except InputError:
            if not self.fallback_full_clip:
                raise
            return Split(whole, scenedetect_failed=True)
        edges = [0, *cuts, video.frame_count]
        overlap = _in_pts(self.overlap_s, video)
        starts = [0] + [_first_at(video.pts, int(video.pts[cut]) - overlap) for cut in cuts]
        return Split(tuple(zip(starts, edges[1:], strict=True)))


class HandSpeed(_Block):
    """Clips end where hands are slowest, between one movement and the next. Needs the `lite` hand models."""

    method: Literal["hand_speed"] = "hand_speed"
    window_s: float = Field(default=0.5, gt=0, allow_inf_nan=False, description="slowest within this much either way")
    smooth_s: float = Field(default=0.1, gt=0, allow_inf_nan=False, description="deviation of the Gaussian over speed")
    depth: float = Field(default=0.5, gt=0, le=1, description="a minimum is slower than this share of its surroundings")
    sample_hz: float = Field(default=10.0, gt=0, le=240, description="pictures looked at per second of video")
    min_clip_s: float = Field(default=1.0, ge=0, allow_inf_nan=False, description="no clip is shorter")
    max_clip_s: float = Field(
        default=20.0, gt=0, allow_inf_nan=False, description="longer ones, without a slow moment, are cut evenly"
    )

    @model_validator(mode="after")
    def _clips_fit(self) -> HandSpeed:
        if self.max_clip_s < 2 * self.min_clip_s:
            raise ValueError(f"max_clip_s {self.max_clip_s} must be at least twice min_clip_s {self.min_clip_s}")
        return self

    @property
    def overlap_s(self) -> float:
        """None: a slow moment ends one movement and begins the next."""
        return 0.0

    @property
    def label(self) -> str:
        """Name and version; the networks decide the cuts, so their hashes belong to it."""
        networks = "".join(weights.sha256_of(name)[:4] for name in ("palm_detection_lite", "hand_landmark_lite"))
        return f"hand_speed/1+{networks}"

    def split(self, video: Video) -> Split:
        """Cut at the first frame at or after each slow moment. Raises InputError, or MissingWeight."""
        times_s, wrists = wrist_tracks(video, self.sample_hz)
        return Split(self.ranges(video, times_s, hand_speed(times_s, wrists, self.smooth_s)))

    def ranges(self, video: Video, times_s: np.ndarray, speed: np.ndarray) -> tuple[tuple[int, int], ...]:
        """The clips of a video whose hands move at `speed` at `times_s`."""
        slow = slow_moments(times_s, speed, self.window_s, self.depth)
        start_s, end_s = float(video.pts[0] * video.time_base), float(video.pts[-1] * video.time_base)
        cuts = spaced(times_s[slow].tolist(), speed[slow].tolist(), start_s, end_s, self.min_clip_s)
        cuts += [cut for pair in pairwise((start_s, *cuts, end_s)) for cut in self._even(*pair)]
        # A microsecond forgives the rounding of seconds: the cut must fall on the frame that was looked at.
        times = video.pts * float(video.time_base)
        edges = sorted({0, *(int(np.searchsorted(times, cut - 1e-6)) for cut in cuts), video.frame_count})
        return tuple(pairwise(edges))

    def _even(self, start_s: float, end_s: float) -> list[float]:
        parts = int(np.ceil((end_s - start_s) / self.max_clip_s))
        return np.linspace(start_s, end_s, parts + 1)[1:-1].tolist() if parts > 1 else []


def _in_pts(seconds: float, video: Video) -> Fraction:
    """Seconds as written in the configuration, exactly, in the stream's units."""
    return Fraction(str(seconds)) / video.time_base


def _first_at(pts: np.ndarray, time: Fraction | int) -> int:
    """Index of the first frame shown at `time` or later."""
    return int(np.searchsorted(pts, min(-(-time // 1), 2**63 - 1)))


def _seconds(video: Video, start: int, end: int) -> float:
    """How long frames [start, end) are shown; the last one for the median interval of the video."""
    interval = float(np.median(np.diff(video.pts))) if video.frame_count > 1 else 0.0
    return float((int(video.pts[end - 1]) - int(video.pts[start]) + interval) * video.time_base)
