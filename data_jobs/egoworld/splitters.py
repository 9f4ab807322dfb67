"""From a probed video to the frame ranges of its clips.

In: Video. Out: Split (ranges of frame indices), later made into clips by manifest.py. Cuts fall on the real
times of frames, never on an average rate. `splitter_of` reads the configuration block; add a way to split by
adding a class here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from data_jobs.egoworld.records import Video
from data_jobs.egoworld.shots import shot_starts
from data_jobs.runs.errors import InputError, RunError
from data_jobs.runs.strict import Strict, parse


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
    clip_length_s: float = Field(10.0, gt=0, description="seconds of video per clip")
    overlap_s: float = Field(0.0, ge=0, description="seconds that a clip shares with the one before")
    min_clip_s: float = Field(1.0, ge=0, description="a shorter remainder joins the clip before it")

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
        """Cut at start + k·(clip length − overlap); a time without frames makes no clip."""
        stride = _in_pts(self.clip_length_s, video) - _in_pts(self.overlap_s, video)
        origin, starts, at = int(video.pts[0]), [], 0
        while at < video.frame_count:  # from frame to frame, not from k to k: a gap of years costs one step
            starts.append(at)
            k = (int(video.pts[at]) - origin) // stride + 1
            at = _first_at(video.pts, origin + k * stride)
        return Split(tuple(self._ranges(video, starts, stride)))

    def _ranges(self, video: Video, starts: list[int], stride: Fraction) -> Iterator[tuple[int, int]]:
        if len(starts) > 1 and _seconds(video, starts[-1], video.frame_count) < self.min_clip_s:
            starts = starts[:-1]
        origin, length = int(video.pts[0]), _in_pts(self.clip_length_s, video)
        for start in starts[:-1]:
            k = (int(video.pts[start]) - origin) // stride
            yield start, _first_at(video.pts, origin + k * stride + length)
        yield starts[-1], video.frame_count


class SceneDetect(_Block):
    """Clips are camera shots, found by PySceneDetect on our own decoded frames. `method: none` keeps the
    video whole."""

    method: Literal["scenedetect", "none"] = "scenedetect"
    min_scene_len_s: float = Field(1.0, ge=0, description="no shot is shorter; a cut too near is dropped")
    fallback_full_clip: bool = Field(True, description="where detection fails: one clip of the whole video, marked so")
    overlap_s: float = Field(1.0, ge=0, description="a clip begins this much before its cut")

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


SPLITTERS: dict[str, type[FixedStride] | type[SceneDetect]] = {
    "fixed_stride": FixedStride,
    "scenedetect": SceneDetect,
    "none": SceneDetect,
}


def splitter_of(config: Mapping[str, Any]) -> FixedStride | SceneDetect:
    """The splitter that a configuration block names by `method` (default fixed_stride).

    Raises RunError that lists the choices for an unknown method, or the wrong fields of a known one.
    """
    method = config.get("method", "fixed_stride")
    if method not in SPLITTERS:
        raise RunError(f"unknown splitter {method!r}; choose one of {', '.join(SPLITTERS)}")
    return parse(SPLITTERS[method], dict(config), f"splitter {method}")


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
