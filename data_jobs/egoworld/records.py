"""The nouns of the job: a probed video, a clip of it, a window of decoded frames.

Written by manifest.py and splitters.py, read by everything after. Frames are identified by their integer
presentation time (pts); `frame_index` (0-based, in display order, counted over the whole VIDEO) and
`timestamp_s = pts × time_base` derive from it, so variable frame rates and B-frames cannot shift a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from actors.messages import frozen


@dataclass(frozen=True, slots=True)
class Video:
    """One readable video file and the display-ordered times of all its frames."""

    video_id: str  # first 16 hex digits of content_sha256
    content_sha256: str
    path: str  # absolute path it is read from
    name: str  # path relative to the input it was found under, POSIX style
    size_bytes: int
    width: int  # as shown, after rotation
    height: int
    rotation_deg: int  # 0, 90, 180 or 270: clockwise turn from stored to shown
    codec: str
    pixel_format: str
    time_base: Fraction  # seconds per pts unit
    pts: np.ndarray  # (frames,) int64, strictly increasing
    has_audio: bool

    def __post_init__(self) -> None:
        """Check the shape once and make the array read-only."""
        object.__setattr__(self, "pts", frozen(self.pts, np.int64, (None,), "pts"))

    @property
    def frame_count(self) -> int:
        """Frames that a decoder will show."""
        return len(self.pts)

    @property
    def duration_s(self) -> float:
        """First to last presentation time plus one median frame interval."""
        if len(self.pts) < 2:
            return 0.0
        span = int(self.pts[-1] - self.pts[0]) + float(np.median(np.diff(self.pts)))
        return float(span * self.time_base)

    @property
    def fps(self) -> float:
        """Average frames per second over the presentation times; 0 for a single frame."""
        return self.frame_count / self.duration_s if self.duration_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Clip:
    """A run of consecutive frames of one video: the unit of work, of retry and of publication."""

    clip_id: str  # {video_id}-{frame_start:09d}-{frame_end:09d}-{8 hex}
    video_id: str
    content_sha256: str
    path: str
    name: str
    frame_start: int  # index of the first frame in the video
    frame_end: int  # one past the last
    start_pts: int  # of the first frame
    end_pts: int  # of the LAST frame (inclusive)
    time_base: Fraction
    width: int  # as shown
    height: int
    rotation_deg: int
    splitter: str  # name and version, e.g. "fixed_stride/1"
    overlap_s: float
    scenedetect_failed: bool

    @property
    def frame_count(self) -> int:
        """Frames in the clip."""
        return self.frame_end - self.frame_start

    @property
    def start_s(self) -> float:
        """Presentation time of the first frame in seconds."""
        return float(self.start_pts * self.time_base)

    @property
    def end_s(self) -> float:
        """Presentation time of the last frame in seconds."""
        return float(self.end_pts * self.time_base)


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive decoded frames of one clip."""

    images: np.ndarray  # (T, H, W, 3) uint8 RGB, upright as shown
    pts: np.ndarray  # (T,) int64
    frame_index: np.ndarray  # (T,) int64, counted over the whole video
    timestamp_s: np.ndarray  # (T,) float64

    def __post_init__(self) -> None:
        """Check shapes once and make the arrays read-only."""
        set_, n = object.__setattr__, len(self.images)
        set_(self, "images", frozen(self.images, np.uint8, (None, None, None, 3), "images"))
        set_(self, "pts", frozen(self.pts, np.int64, (n,), "pts"))
        set_(self, "frame_index", frozen(self.frame_index, np.int64, (n,), "frame_index"))
        set_(self, "timestamp_s", frozen(self.timestamp_s, np.float64, (n,), "timestamp_s"))
