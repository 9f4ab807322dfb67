"""Opening a video file safely, and asking its outer shell whether the file is whole.

In: a path. Out: an open PyAV container and its picture stream, or InputError with one plain sentence.
Called by probe.py and decode.py. Knows nothing of clips or pixels.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import av

from data_jobs.runs.errors import InputError, TransientError

# Containers only. Playlists, concat scripts and text renderers also "open" in FFmpeg: they can name other
# files or hosts, or turn a text file into a picture, so a hostile file must not reach them.
FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg,mxf"
# A local read that takes longer than this is a dead mount or a parser that runs in circles.
READ_TIMEOUT_S = 60.0
# 8192 x 8192: no camera of ours is larger, and one RGB frame is then 200 MB. Stops a forged header from
# taking all memory.
MAX_PIXELS = 1 << 26
_TRANSIENT = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENFILE, errno.EMFILE})
_ISO_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"free", b"skip", b"wide", b"sidx", b"uuid"})


def check_file(path: str, name: str) -> os.stat_result:
    """The status of a regular, readable, non-empty file; raises InputError for anything else, without opening
    it."""
    try:
        status = os.stat(path)  # noqa: PTH116 - paths are strings in the records
    except OSError as error:
        raise read_failure(error, f"{name} cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{name} is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name} is a pipe, socket or device, not a regular file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{name} cannot be read: no read permission")
    if status.st_size == 0:
        raise InputError(f"{name} is empty (0 bytes)")
    return status


def open_container(path: str, name: str) -> Any:
    """An open `av.container.InputContainer`; the caller closes it.

    Raises InputError (not a video, no index, no permission) or TransientError (the storage failed).
    """
    check_file(path, name)
    # Not `options=`: PyAV 15 sizes those for the streams known before probing and then reads past the end for
    # containers that announce streams late (MPEG program streams): a segmentation fault.
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{path}", container_options=options, timeout=READ_TIMEOUT_S, metadata_errors="replace")
    except av.FFmpegError as error:
        if error.errno not in _TRANSIENT and _lacks_index(path):
            raise InputError(f"{name} holds picture data but no index (moov): its recording was cut off") from error
        raise read_failure(error, f"{name} is not a video that can be opened: {error.strerror}") from error


def read_failure(error: OSError | av.FFmpegError, message: str) -> InputError | TransientError:
    """The error to raise for a failed read: the storage's fault may go away, the file's will not."""
    return TransientError(message) if error.errno in _TRANSIENT else InputError(message)


def picture_stream(container: Any, name: str) -> Any:
    """The first video stream that is no cover picture and has a decoder; raises InputError when there is
    none."""
    for stream in container.streams.video:
        if stream.disposition & stream.disposition.__class__.attached_pic:
            continue
        context = stream.codec_context
        if context is None:
            raise InputError(f"{name} has a picture stream in a codec that no decoder here knows")
        if context.width * context.height > MAX_PIXELS:
            raise InputError(
                f"{name} claims {context.width}x{context.height} pixels; {MAX_PIXELS} is the most accepted"
            )
        return stream
    raise InputError(f"{name} has no picture stream")


def missing_bytes(path: str) -> int:
    """How many bytes the outermost boxes promise beyond the end of the file; 0 for a whole or an open-ended
    file.

    Reads only box headers: ISO base media (ISO/IEC 14496-12 §4.2), RIFF, and Matroska (RFC 8794 §6.2, RFC
    9559).
    """
    with open(path, "rb") as file:  # noqa: PTH123
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        file.seek(0)
        if head[:4] == b"RIFF":
            end = max(_riff_ends(file), default=0)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            end = _matroska_end(file)
        else:
            end = max((box_end for _, box_end in _iso_boxes(file)), default=0)
    return max(0, end - size)


def _iso_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Type and end offset of each known top-level box; stops at an open-ended box or at trailing junk."""
    start = 0
    while len(header := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", header)
        if size == 1 and len(wide := file.read(8)) == 8:
            size = struct.unpack(">Q", wide)[0]
        if kind not in _ISO_BOXES:
            return
        if size < 8:  # 0: up to the end of the file; anything else is damage that FFmpeg will judge
            yield kind, start
            return
        start += size
        yield kind, start
        file.seek(min(start, 2**63 - 1))


def _riff_ends(file: BinaryIO) -> Iterator[int]:
    """End offset of each RIFF chunk; AVI files over 1 GB have several (OpenDML)."""
    start = 0
    while len(header := file.read(8)) == 8 and header[:4] == b"RIFF":
        size = struct.unpack("<I", header[4:])[0]
        if size in (
            0,
            0xFFFFFFFF,
        ):  # never filled in: the recorder did not come to its end, the data may still be whole
            return
        start += 8 + size + size % 2
        yield start - size % 2
        file.seek(start)


def _matroska_end(file: BinaryIO) -> int:
    """End offset of the segment; 0 where its size is marked unknown (live recordings)."""
    file.seek(4)
    header_size = _ebml_size(file)
    if header_size is None:
        return 0
    file.seek(header_size, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    segment_size = _ebml_size(file)
    return 0 if segment_size is None else file.tell() + segment_size


def _ebml_size(file: BinaryIO) -> int | None:
    """One variable-length size (RFC 8794 §4.4); None when all its bits are ones, which means unknown."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1)) & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value


def _lacks_index(path: str) -> bool:
    """Whether the file is ISO media with picture data (mdat) and no movie box (moov)."""
    with open(path, "rb") as file:  # noqa: PTH123
        kinds = {kind for kind, _ in _iso_boxes(file)}
    return b"mdat" in kinds and b"moov" not in kinds
