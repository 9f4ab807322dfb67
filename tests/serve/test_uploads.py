"""What may be uploaded: every hostile archive, picture and mesh is refused with its reason, without a service."""

import stat
import struct
import zipfile
import zlib

import numpy as np
import pytest

from serve.errors import BadUpload, ServiceError, TooLarge
from serve.settings import Limits
from serve.uploads import checked_mesh, kind_of, views_of
from tests.serve import scene

LIMITS = Limits(max_views=20, max_template_pixels=256 * 256, max_unpacked_bytes=4_000_000, max_triangles=100)


def stl(faces):
    return b"\0" * 80 + struct.pack("<I", faces) + b"\0" * 50 * faces


def test_a_good_archive_gives_its_views():
    views = views_of(scene.archive(views=3), LIMITS)
    assert len(views) == 3 and views[1].rgb.shape == (64, 64, 3) and views[1].mask.dtype == bool
    centre = views[0].rgb[30, 30]
    assert tuple(centre) == scene.COLOUR and views[0].mask[30, 30] and not views[0].mask[0, 0]


def with_entry(name, data=b"x", attributes=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = attributes << 16
    rgb, mask = scene.template()
    return scene.zipped({"rgb_0.png": scene.png(rgb), "mask_0.png": scene.png(mask), info: data})


def png_of(width, height):
    """A PNG whose header claims a size that nothing behind it has."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


HOSTILE = {
    "zip slip": (with_entry("../../etc/cron.d/x"), BadUpload, "leaves its folder"),
    "zip slip backwards": (with_entry("..\\..\\x.png"), BadUpload, "leaves its folder"),
    "absolute": (with_entry("/etc/passwd"), BadUpload, "leaves its folder"),
    "drive": (with_entry("C:\\x"), BadUpload, "leaves its folder"),
    "link": (with_entry("rgb_9.png", b"/etc/passwd", stat.S_IFLNK | 0o777), BadUpload, "link"),
    "foreign": (with_entry("run.sh"), BadUpload, "only rgb_N.png"),
    "twice": (with_entry("a/rgb_0.png"), BadUpload, "twice"),
    "lonely": (with_entry("rgb_3.png"), BadUpload, "lacks its rgb or its mask"),
    "bomb": (scene.zipped({"rgb_0.png": b"\0" * 3_900_000, "mask_0.png": b""}), TooLarge, "unpacks to"),
    "large": (scene.zipped({f"xyz_{i}.npy": b"ab" * 600_000 for i in range(4)}), TooLarge, "unpacks to more"),
    "many": (scene.zipped({f"xyz_{i}.npy": b"" for i in range(200)}), TooLarge, "entries"),
    "image bomb": (
        scene.zipped({"rgb_0.png": png_of(60_000, 60_000), "mask_0.png": b""}), TooLarge, "pixels are allowed"
    ),
    "not a picture": (scene.zipped({"rgb_0.png": b"GIF89a", "mask_0.png": b""}), BadUpload, "not a PNG"),
    "damaged": (scene.zipped({"rgb_0.png": png_of(8, 8), "mask_0.png": b""}), BadUpload, "damaged|not a PNG"),
    "empty": (scene.zipped({}), BadUpload, "no rgb_0.png"),
    "cut": (scene.archive()[:-60], BadUpload, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(name):
    data, error, reason = HOSTILE[name]
    with pytest.raises(error, match=reason):
        views_of(data, LIMITS)


def test_an_encrypted_archive_is_refused():
    data = bytearray(scene.archive())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = 0
        while (at := data.find(signature, at)) >= 0:
            data[at + offset] |= 1
            at += 4
    with pytest.raises(BadUpload, match="encrypted"):
        views_of(bytes(data), LIMITS)


def test_an_empty_mask_is_told():
    rgb, mask = scene.template()
    with pytest.raises(BadUpload, match="view 0: its mask is empty"):
        views_of(scene.zipped({"rgb_0.png": scene.png(rgb), "mask_0.png": scene.png(np.zeros_like(mask))}), LIMITS)


@pytest.mark.parametrize(
    "data, kind",
    [
        (scene.archive(), "archive"),
        (stl(2), "stl"),
        (b"solid x\n facet normal 0 0 1\n", "stl"),
        (b"ply\nformat ascii 1.0\n", "ply"),
        (b"# cube\nv 0 0 1\nf 1 2 3\n", "obj"),
    ],
)
def test_the_content_says_what_it_is(data, kind):
    assert kind_of(data) == kind


@pytest.mark.parametrize("data", [b"", b"\x7fELF" + b"\0" * 200, b"<html>", b"solid"])
def test_what_is_nothing_is_refused(data):
    with pytest.raises(BadUpload):
        kind_of(data)


def test_meshes_are_bounded_by_their_own_count_before_they_are_parsed():
    assert checked_mesh(stl(100), "stl", LIMITS)
    with pytest.raises(TooLarge, match="101 triangles"):
        checked_mesh(stl(101), "stl", LIMITS)
    with pytest.raises(TooLarge):
        checked_mesh(b"ply\nelement face 999999999\nend_header\n", "ply", LIMITS)
    with pytest.raises(BadUpload):
        checked_mesh(b"ply\nno header ends", "ply", LIMITS)
    with pytest.raises(BadUpload, match="no triangles"):
        checked_mesh(stl(0), "stl", LIMITS)


def test_a_mesh_cannot_name_other_files():
    sent = b"mtllib ../../secret.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl x\nf 1 2 3\n"
    assert checked_mesh(sent, "obj", LIMITS) == b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    ply = b"ply\ncomment TextureFile /etc/passwd\nelement face 1\nend_header\n"
    assert b"passwd" not in checked_mesh(ply, "ply", LIMITS)


def test_an_archive_with_random_bytes_is_refused_or_as_it_was():
    rng = np.random.default_rng(0)
    good = scene.archive()
    views, refused = views_of(good, LIMITS), 0
    for _ in range(300):
        data = bytearray(good)
        for at in rng.integers(0, len(data), 12):
            data[at] = rng.integers(256)
        try:
            found = views_of(bytes(data), LIMITS)
        except ServiceError:
            refused += 1
            continue
        for ours, theirs in zip(views, found, strict=True):  # only what nobody reads was hit: a date, a version
            assert np.array_equal(ours.rgb, theirs.rgb) and np.array_equal(ours.mask, theirs.mask)
    assert refused > 250
