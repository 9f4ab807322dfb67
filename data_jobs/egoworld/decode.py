"""Exact seeking: every shown frame from a given presentation time on, wherever the keyframes lie.

In: a path and times in stream units. Out: av.VideoFrame in display order, or the packet times of a span.
Called by probe.py, clip.py and shots.py. Knows nothing of clips, windows or RGB. One thread at a time may use a
Decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from types import TracebackType
from typing import Any, NamedTuple, Self

import av

from data_jobs.egoworld.container import open_container, picture_stream, read_failure
from data_jobs.runs.errors import InputError

# A seek goes by the container's index, which may count decoding times, list open GOPs as entry points or be
# wrong. When it lands late, step back by this much and twice as much each time after; in the end, start from
# the beginning.
_FIRST_STEP_BACK_S = 1.0


_INTRA = 1  # AV_PICTURE_TYPE_I (libavutil/avutil.h)
# Presentation time in stream units, and the av.VideoFrame (which has no stub that mypy could use).
TimedFrame = tuple[int, Any]


class PacketTime(NamedTuple):
    """When a stored packet is to be shown, and whether decoding can begin there."""

    pts: int
    is_keyframe: bool


class Decoder:
    """One open video file. A context manager; `close` may be called twice."""

    def __init__(self, path: str, name: str, threads: int = 1) -> None:
        """Open the file.

        Args:
            path: where to read it.
            name: what messages call it.
            threads: decoding threads inside FFmpeg; pixels do not depend on it, latency and memory do.

        Raises:
            InputError, TransientError: see container.py.
        """
        self._path, self._name, self._threads = path, name, threads
        # Of a packet that would not decode, until the frames after it have been judged by it.
        self._failed_pts: int | None = None
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; safe to repeat."""
        self._container.close()

    def frames_from(self, start_pts: int) -> Iterator[TimedFrame]:
        """Shown frames with time ≥ start_pts, each once, in display order.

        Raises InputError at the first frame that is damaged, or that may be because decoding failed before it
        and no keyframe came since. Frames that are missing altogether are the caller's to count.
        """
        damaged = False
        for pts, frame in self._positioned(start_pts):
            if self._failed_pts is not None and pts >= self._failed_pts:
                self._refuse_loss(start_pts)
                damaged, self._failed_pts = True, None
            damaged = frame.is_corrupt or (damaged and not frame.key_frame)
            if pts < start_pts:
                continue
            if damaged:
                raise InputError(f"{self._name} is damaged: the picture at pts {pts} cannot be decoded whole")
            yield pts, frame
        self._refuse_loss(start_pts)

    def _refuse_loss(self, start_pts: int) -> None:
        if self._failed_pts is not None and self._failed_pts >= start_pts:
            raise InputError(f"{self._name} is damaged: the picture at pts {self._failed_pts} cannot be decoded")

    def packets_between(self, start_pts: int, end_pts: int, expected: int) -> list[PacketTime] | None:
        """Times of the packets shown in [start_pts, end_pts], sorted; None if they are not `expected` many."""
        for target in self._seek_targets(start_pts):
            self._seek(target)
            inside = sorted(self._packets_inside(start_pts, end_pts))
            if len(inside) == expected and (inside[0].pts, inside[-1].pts) == (start_pts, end_pts):
                return inside
        return None

    def _open(self) -> None:
        self._container = open_container(self._path, self._name)
        self._stream = picture_stream(self._container, self._name)
        self._stream.codec_context.thread_count = self._threads
        self._stream.thread_type = "FRAME" if self._threads > 1 else "NONE"
        self._failed_pts = None

    def _packets_inside(self, start_pts: int, end_pts: int) -> Iterator[PacketTime]:
        for packet in self._container.demux(self._stream):
            if packet.dts is not None and packet.dts > end_pts:
                return  # no packet is shown before it is decoded: nothing of the span can follow
            if packet.pts is not None and start_pts <= packet.pts <= end_pts and not packet.is_discard:
                yield PacketTime(packet.pts, packet.is_keyframe)

    def _positioned(self, start_pts: int) -> Iterator[TimedFrame]:
        """Frames from the latest entry point that shows nothing later than start_pts first, or from the start."""
        for target in self._seek_targets(start_pts):
            self._seek(target)
            frames = self._decoded()
            first = next(frames, None)
            if first is not None and (target is None or (first[0] <= start_pts and _stands_alone(first[1]))):
                return chain([first], frames)
        return iter(())

    def _seek_targets(self, start_pts: int) -> Iterator[int | None]:
        """Times to seek to, each further back than the one before; None for the very beginning."""
        step = max(1, int(_FIRST_STEP_BACK_S / self._stream.time_base))
        target = start_pts
        while target > (self._stream.start_time or 0):
            yield target
            target, step = start_pts - step, step * 2
        yield None

    def _seek(self, target: int | None) -> None:
        """Go to an entry point that the container thinks right for `target`; None opens the file anew."""
        if target is None:
            self.close()
            self._open()
            return
        self._failed_pts = None
        try:
            self._container.seek(target, stream=self._stream, backward=True)
        except av.FFmpegError:  # a container without an index, or none that reaches back so far
            self._seek(None)

    def _decoded(self) -> Iterator[TimedFrame]:
        """Frames after a seek; packets before the first keyframe are skipped, as some decoders show them grey."""
        begun = False
        try:
            for packet in self._container.demux(self._stream):
                begun = begun or packet.is_keyframe
                if begun:
                    yield from self._frames_of(packet)
        except av.FFmpegError as error:
            raise read_failure(error, f"{self._name} is damaged: reading stops with {error.strerror}") from error

    def _frames_of(self, packet: Any) -> list[TimedFrame]:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            # The next frames may build on the lost one: frames_from() judges them by its time.
            failed = packet.pts if packet.pts is not None else packet.dts
            if failed is not None:
                self._failed_pts = failed if self._failed_pts is None else min(failed, self._failed_pts)
            return []
        return [(pts, frame) for frame in frames if (pts := _time_of(frame)) is not None]


def _stands_alone(frame: Any) -> bool:
    """Whether a frame is an intra picture; a stream with gradual refresh has entry points that are not.

    Decoders show frames before such a refresh is complete, so the pixels would depend on where reading began.
    """
    return int(frame.pict_type) == _INTRA


def _time_of(frame: Any) -> int | None:
    """What identifies a frame, in stream units: its pts, or where the container has none (AVI) its dts."""
    return frame.pts if frame.pts is not None else frame.dts
