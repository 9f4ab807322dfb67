"""From one file to a `Video`: content hash, size as shown, and the time of every frame that a decoder will
show.

In: a path. Out: Video, or InputError whose one sentence names the file and what is wrong with it.
Called by manifest.py. Reads packets, not pictures, wherever packets can be trusted to tell the times; holds 8
bytes per frame. Damage inside a picture whose packet is whole shows only when it is decoded: clip.py reports
it.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any

import av
import numpy as np

from data_jobs.egoworld.container import (
    check_file,
    missing_bytes,
    open_container,
    picture_stream,
    read_failure,
)
from data_jobs.egoworld.decode import Decoder
from data_jobs.egoworld.pixels import clockwise_turn_deg
from data_jobs.egoworld.records import Video
from data_jobs.runs.errors import InputError, TransientError

# In these pairs one packet is one shown frame and carries its time. Elsewhere packets may be hidden frames
# (VP8), single fields (MPEG-2), placeholders (AVI) or may carry no time at all, so the frames are counted by
# decoding.
_TIMED_FORMATS = frozenset({"mov", "matroska", "webm"})
_TIMED_CODECS = frozenset({"h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "prores", "dnxhd", "ffv1"})
# The start is decoded to verify the packet times: past the reorder depth of H.264 and HEVC (16 pictures).
_VERIFIED_FRAMES = 20
# Earlier than any frame; half of the range, so that adding to it cannot overflow.
_BEFORE_ALL = -(1 << 62)


def probe(path: str, name: str) -> Video:
    """Read everything but the pixels of one video.

    Args:
        path: where to read it.
        name: what messages call it, and `Video.name`.

    Raises:
        InputError: not a regular file, empty, not a video, no picture, truncated, damaged, or without usable
            times.
        TransientError: the storage failed while reading.
    """
    before = check_file(path, name)
    headers = _read_headers(path, name)
    if headers.damaged or missing_bytes(path):
        raise InputError(_truncated(name, headers))
    first, head = _first_frames(path, name)
    pts = _verified(headers.packet_pts, head)
    if pts is None:
        pts = _decoded_times(path, name)
    _check_times(pts, name)
    digest = _content_hash(path, name)
    after = check_file(path, name)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise InputError(f"{name} was changed while it was being read; wait until it is completely written")
    turn_deg = clockwise_turn_deg(first, name)
    width, height = (first.height, first.width) if turn_deg in (90, 270) else (first.width, first.height)
    return Video(
        video_id=digest[:16],
        content_sha256=digest,
        path=path,
        name=name,
        size_bytes=after.st_size,
        width=width,
        height=height,
        rotation_deg=turn_deg,
        codec=headers.codec,
        pixel_format=first.format.name,
        time_base=headers.time_base,
        pts=pts,
        has_audio=headers.has_audio,
    )


@dataclass(frozen=True, slots=True)
class _Headers:
    """What can be known without decoding."""

    codec: str
    time_base: Fraction
    has_audio: bool
    promised_frames: int  # by the index; 0 where the container makes no promise
    packet_pts: np.ndarray | None  # sorted times of all packets to be shown; None where they cannot be trusted
    damaged: bool  # a packet is incomplete, or reading broke off


def _read_headers(path: str, name: str) -> _Headers:
    with open_container(path, name) as container:
        stream = picture_stream(container, name)
        codec = stream.codec_context.name
        trusted = codec in _TIMED_CODECS and not _TIMED_FORMATS.isdisjoint(container.format.name.split(","))
        packet_pts, damaged = _packet_times(container, stream, name)
        return _Headers(
            codec=codec,
            time_base=stream.time_base,
            has_audio=bool(container.streams.audio),
            promised_frames=stream.frames,
            packet_pts=packet_pts if trusted or damaged else None,
            damaged=damaged,
        )


def _packet_times(container: Any, stream: Any, name: str) -> tuple[np.ndarray | None, bool]:
    """Sorted times of the whole packets, None where one has no time; and whether one is incomplete."""
    times, untimed, damaged = array("q"), False, False
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:  # the flush packet at the end; what an edit list cuts away
                continue
            if packet.is_corrupt:
                damaged = True
            elif packet.pts is None:
                untimed = True
            else:
                times.append(packet.pts)
    except av.FFmpegError as error:
        failure = read_failure(error, f"{name}: reading stops with {error.strerror}")
        if isinstance(failure, TransientError):
            raise failure from error
        damaged = True
    return None if untimed else np.sort(_as_pts(times)), damaged


def _truncated(name: str, headers: _Headers) -> str:
    whole = 0 if headers.packet_pts is None else len(headers.packet_pts)
    if headers.promised_frames > whole:
        promised = headers.promised_frames
        return f"{name} is truncated or damaged: its index promises {promised} frames, {whole} are there"
    return f"{name} is truncated or damaged: the data ends or breaks after {whole} frames"


def _first_frames(path: str, name: str) -> tuple[Any, list[int]]:
    """The first frame that decodes, and the times of the first few."""
    with Decoder(path, name) as decoder:
        frames = list(islice(decoder.frames_from(_BEFORE_ALL), _VERIFIED_FRAMES))
    if not frames:
        raise InputError(f"{name} has a picture stream, but none of its pictures can be decoded")
    return frames[0][1], [pts for pts, _ in frames]


def _verified(packet_pts: np.ndarray | None, head: list[int]) -> np.ndarray | None:
    """Packet times from the first shown frame on, if they are unique and begin as decoding does; else None.

    Packets before the first shown frame lead into a picture that the file does not hold (cut at an open GOP).
    """
    if packet_pts is None:
        return None
    pts = packet_pts[np.searchsorted(packet_pts, head[0]) :]
    agree = list(pts[: len(head)]) == head and bool((np.diff(pts) > 0).all())
    return pts if agree else None


def _decoded_times(path: str, name: str) -> np.ndarray:
    """Times of all frames by decoding them one after the other."""
    with Decoder(path, name) as decoder:
        return _as_pts(array("q", (pts for pts, _ in decoder.frames_from(_BEFORE_ALL))))


def _as_pts(times: array[int]) -> np.ndarray:
    return np.frombuffer(times, np.int64) if times else np.empty(0, np.int64)


def _check_times(pts: np.ndarray, name: str) -> None:
    wrong = np.flatnonzero(np.diff(pts) <= 0)
    if len(wrong):
        at = int(wrong[0])
        raise InputError(
            f"{name}: frames {at} and {at + 1} are to be shown at {pts[at]} and {pts[at + 1]}; "
            "times must increase from frame to frame"
        )


def _content_hash(path: str, name: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise read_failure(error, f"{name} cannot be read to its end: {error.strerror}") from error
