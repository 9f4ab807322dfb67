"""What a client may upload as a target: a zip of template views, or a mesh. Checked before anything believes it.

In: bytes from the network and the limits. Out: decoded views, or bounded mesh bytes with their kind. Called in the
process of the target store, never in the gateway. Nothing is unpacked to disk, no name from an archive becomes a path,
sizes are read from headers before anything is decoded, and what a header claims is not trusted either.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from serve.errors import BadUpload, TooLarge
from serve.settings import Limits

Kind = Literal["archive", "stl", "ply", "obj"]
# SAM-6D's template folders, in the archive's root or in one folder: rgb_0.png, mask_0.png, and optionally xyz_0.npy.
VIEW = re.compile(r"(?:[^/\\]+/)?(rgb|mask)_(\d{1,5})\.png")
IGNORED = re.compile(r"(?:[^/\\]+/)?(xyz_\d{1,5}\.npy|\.DS_Store|README\S*)|__MACOSX/.*|[^/\\]+/")
# PNG packs a flat picture 1:1000 honestly; more is a bomb.
MAX_RATIO = 1000
UNIX_LINK = 0o120000
# What the zip reader and its unpackers throw at damaged input; found by fuzzing (tests/serve/test_uploads.py).
UNREADABLE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    IndexError,
    NotImplementedError,
    RuntimeError,
)
# Lines by which a mesh names other files (materials, textures): a reader would follow them.
OTHER_FILES = re.compile(rb"(?mi)^(?:mtllib|usemtl|comment\s+texturefile)\b[^\n]*\n")


@dataclass(frozen=True, slots=True)
class View:
    """One template."""

    rgb: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (H, W) bool


def kind_of(data: bytes) -> Kind:
    """What was uploaded, by its content and not by its name. Raises BadUpload."""
    head = data[:512]
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "archive"
    if head.startswith(b"ply"):
        return "ply"
    if len(data) >= 84 and 84 + 50 * struct.unpack_from("<I", data, 80)[0] == len(data):
        return "stl"
    if head.lstrip().startswith(b"solid") and b"facet" in data[:2000]:
        return "stl"
    if re.search(rb"(?m)^v\s+[-+\d.]", data[:100_000]):
        return "obj"
    raise BadUpload("this is neither a zip of rgb_N.png and mask_N.png nor an STL, PLY or OBJ mesh")


def views_of(data: bytes, limits: Limits) -> list[View]:
    """The template views of an archive, in the order of their numbers. Raises BadUpload or TooLarge."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = _listed(archive, limits)
            numbers = sorted({number for part, number in files if part == "rgb"})
            lonely = sorted({number for _, number in files} - {n for n in numbers if ("mask", n) in files})
            if lonely or not numbers:
                which = f"view {lonely[0]} lacks its rgb or its mask" if lonely else "there is no rgb_0.png"
                raise BadUpload(f"an archive holds rgb_N.png and mask_N.png in pairs; {which}")
            return [_view(archive, files, number, limits) for number in numbers]
    except UNREADABLE as error:
        raise BadUpload(f"the archive cannot be read: {error}") from error


def _listed(archive: zipfile.ZipFile, limits: Limits) -> dict[tuple[str, int], zipfile.ZipInfo]:
    """Views by part and number. Every entry is judged, also those that are not read."""
    entries = archive.infolist()
    if len(entries) > 4 * limits.max_views:
        raise TooLarge(f"the archive has {len(entries)} entries; {4 * limits.max_views} are allowed")
    if sum(entry.file_size for entry in entries) > limits.max_unpacked_bytes:
        raise TooLarge(f"the archive unpacks to more than {limits.max_unpacked_bytes} bytes")
    files: dict[tuple[str, int], zipfile.ZipInfo] = {}
    for entry in entries:
        _judge(entry)
        match = VIEW.fullmatch(entry.filename)
        if match:
            key = (match[1], int(match[2]))
            if key in files:
                raise BadUpload(f"the archive holds {match[1]}_{match[2]}.png twice")
            files[key] = entry
        elif not IGNORED.fullmatch(entry.filename):
            raise BadUpload(f"the archive holds {entry.filename[:80]!r}; only rgb_N.png and mask_N.png belong in it")
    if len(files) > 2 * limits.max_views:
        raise TooLarge(f"the archive has {len(files) // 2} views; {limits.max_views} are allowed")
    return files


def _judge(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name or "\0" in entry.orig_filename:
        raise BadUpload(f"the archive holds the path {name[:80]!r}, which leaves its folder")
    if entry.external_attr >> 16 & 0o170000 == UNIX_LINK:
        raise BadUpload(f"the archive holds the link {name[:80]!r}")
    if entry.flag_bits & 1:
        raise BadUpload("the archive is encrypted")
    if entry.file_size > MAX_RATIO * max(1, entry.compress_size):
        raise TooLarge(f"{name[:80]!r} unpacks to {entry.file_size} bytes from {entry.compress_size}")


def _view(archive: zipfile.ZipFile, files: dict[tuple[str, int], zipfile.ZipInfo], number: int, limits: Limits) -> View:
    rgb = _png(archive, files["rgb", number], limits)
    mask = _png(archive, files["mask", number], limits)
    if rgb.ndim == 2:
        rgb = np.repeat(rgb[..., None], 3, axis=2)
    mask = mask if mask.ndim == 2 else mask.max(axis=2)
    if rgb.shape[:2] != mask.shape:
        raise BadUpload(
            f"view {number}: rgb is {rgb.shape[1]}x{rgb.shape[0]}, its mask {mask.shape[1]}x{mask.shape[0]}"
        )
    if not mask.any():
        raise BadUpload(f"view {number}: its mask is empty; nothing could be learnt from it")
    return View(rgb, mask > 127 if mask.max() > 1 else mask > 0)


def _png(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: Limits) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8."""
    most = limits.max_template_pixels * 8
    with archive.open(entry) as file:
        data = file.read(most + 1)  # not file_size: a header may lie
    if len(data) > most:
        raise TooLarge(f"{entry.filename[:80]!r} unpacks to more than {most} bytes")
    checked_size(data, ("PNG",), limits.max_template_pixels, entry.filename[:80])
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None:
        raise BadUpload(f"{entry.filename[:80]!r} is a damaged picture")
    if decoded.dtype != np.uint8:
        raise BadUpload(f"{entry.filename[:80]!r} has {decoded.dtype} pixels; 8 bits per channel are expected")
    if decoded.ndim == 3:
        decoded = cv2.cvtColor(decoded[..., :3], cv2.COLOR_BGR2RGB)
    return decoded


def checked_size(data: bytes, formats: tuple[str, ...], most_pixels: int, name: str) -> tuple[int, int]:
    """(height, width) from the header alone. Raises BadUpload or TooLarge before a pixel is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{name!r} is too large a picture; {most_pixels} pixels are allowed") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadUpload(f"{name!r} is not a {' or '.join(formats)} picture") from error
    if width * height > most_pixels or not width * height:
        raise TooLarge(f"{name!r} is {width}x{height}; {most_pixels} pixels are allowed")
    return height, width


def checked_mesh(data: bytes, kind: Kind, limits: Limits) -> bytes:
    """The mesh as it came, once its own count of triangles is within the limit. Raises BadUpload or TooLarge."""
    faces = _claimed_faces(data, kind)
    if faces > limits.max_triangles:
        raise TooLarge(f"the mesh has {faces} triangles; {limits.max_triangles} are allowed, decimate it first")
    if faces == 0:
        raise BadUpload("the mesh has no triangles")
    return OTHER_FILES.sub(b"", data) if kind in ("obj", "ply") else data


def _claimed_faces(data: bytes, kind: Kind) -> int:
    if kind == "ply":
        header, separator, _ = data[:65536].partition(b"end_header")
        match = re.search(rb"element face (\d{1,12})", header)
        if not separator or not match:
            raise BadUpload("the PLY file has no header with an `element face` line")
        return int(match[1])
    if kind == "obj":
        return len(re.findall(rb"(?m)^f\s", data))
    if 84 + 50 * struct.unpack_from("<I", data, 80)[0] == len(data):
        return int(struct.unpack_from("<I", data, 80)[0])
    return data.count(b"facet normal")
