"""Colours follow the frame's tags, the picture stands upright, and odd formats become RGB."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.pixels import RgbConverter
from data_jobs.egoworld.probe import probe
from data_jobs.runs.errors import InputError
from tests.data_jobs.egoworld.film import clip_of, even, number_of, write_film

BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)
AV_BT709, AV_UNSPECIFIED, AV_SMPTE170M = 1, 2, 6


def flat_frame(
    y: int, u: int, v: int, colorspace: int, full: bool = False, pixel_format: str = "yuv444p"
) -> av.VideoFrame:
    frame = av.VideoFrame(64, 32, pixel_format)
    for plane, value in zip(frame.planes, (y, u, v), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.colorspace, frame.color_range = colorspace, 2 if full else 1
    return frame


def rgb_of(y: float, u: float, v: float, weights: tuple[float, float], full: bool) -> np.ndarray:
    """ITU-T H.273 §8.3, equations for non-constant luminance."""
    k_red, k_blue = weights
    luma = y if full else (y - 16) * 255 / 219
    chroma = 1 if full else 255 / 224
    red = luma + 2 * (1 - k_red) * (v - 128) * chroma
    blue = luma + 2 * (1 - k_blue) * (u - 128) * chroma
    return np.clip([red, (luma - k_red * red - k_blue * blue) / (1 - k_red - k_blue), blue], 0, 255)


@pytest.mark.parametrize("colour", [(120, 90, 170), (60, 150, 110), (200, 128, 128)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("tag", "weights"), [(AV_BT709, BT709), (AV_SMPTE170M, BT601), (AV_UNSPECIFIED, BT601)])
def test_colours_follow_matrix_and_range_of_the_frame(colour, full, tag, weights):
    image = RgbConverter(0).stored(flat_frame(*colour, tag, full))
    assert np.abs(image[16, 32] - rgb_of(*colour, weights, full)).max() <= 2.5


def test_a_change_of_tags_does_not_stick_to_later_frames():
    convert, colour = RgbConverter(0), (120, 90, 170)
    plain = convert.stored(flat_frame(*colour, AV_UNSPECIFIED)).copy()
    convert.stored(flat_frame(*colour, AV_BT709, full=True))
    np.testing.assert_array_equal(convert.stored(flat_frame(*colour, AV_UNSPECIFIED)), plain)


def test_the_picture_stands_as_a_player_shows_it(shared_dir):
    folder = shared_dir / "data/videos_bad"
    shown = cv2.imread(str(folder / "rotate_90_first_frame_as_shown.png"))[:, :, ::-1]
    video = probe(str(folder / "rotate_90.mp4"), "rotate_90.mp4")
    image = next(ClipReader(clip_of(video), 1).windows()).images[0]
    assert np.abs(image.astype(float) - shown).mean() < 4  # the other three turns differ by 100 and more


def turned(film: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The film with a, b, c, d of its track header's matrix replaced (ISO/IEC 14496-12 §8.3.2, 16.16 fixed point)."""
    data = bytearray(film.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    for place, value in zip((0, 1, 3, 4), matrix, strict=True):
        data[at + 4 * place : at + 4 * place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    film.write_bytes(data)
    return film


@pytest.mark.parametrize(
    ("matrix", "clockwise_deg"), [((1, 0, 0, 1), 0), ((0, 1, -1, 0), 90), ((-1, 0, 0, -1), 180), ((0, -1, 1, 0), 270)]
)
def test_quarter_turns_are_undone(tmp_path, matrix, clockwise_deg):
    video = probe(str(turned(write_film(tmp_path / "a.mp4", even(4)), matrix)), "a.mp4")
    assert video.rotation_deg == clockwise_deg
    assert (video.width, video.height) == ((96, 128) if clockwise_deg % 180 else (128, 96))
    (window,) = ClipReader(clip_of(video), 4).windows()
    assert window.images.shape == (4, video.height, video.width, 3)
    stored = np.rot90(window.images, clockwise_deg // 90, axes=(1, 2))
    assert [number_of(image) for image in stored] == [0, 1, 2, 3]


def test_a_mirrored_picture_is_refused_because_it_swaps_hands(tmp_path):
    film = turned(write_film(tmp_path / "a.mp4", even(4)), (-1, 0, 0, 1))
    with pytest.raises(InputError, match=r"a\.mp4 is marked to be shown mirrored"):
        probe(str(film), "a.mp4")


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "size"),
    [
        ("a.mp4", "libx264", "yuv420p10le", (96, 128)),
        ("a.mp4", "libx265", "yuv420p10le", (96, 128)),
        ("a.mp4", "libx264", "yuv444p", (97, 129)),
        ("a.mp4", "libx264", "gray", (96, 128)),
        ("a.mov", "mjpeg", "yuvj420p", (97, 129)),
        ("a.mov", "prores_ks", "yuv422p10le", (96, 128)),
        ("a.mkv", "ffv1", "gray", (97, 129)),
        ("a.mkv", "ffv1", "bgr0", (97, 129)),
        ("a.webm", "libvpx-vp9", "yuv420p", (97, 129)),
    ],
)
def test_any_pixel_format_becomes_rgb(tmp_path, name, codec, pixel_format, size):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    film = write_film(tmp_path / name, range(6), codec, options, pixel_format, size, time_base=Fraction(1, 30))
    (window,) = ClipReader(clip_of(probe(str(film), name)), 6).windows()
    assert window.images.shape == (6, *size, 3)
    assert [number_of(image) for image in window.images] == list(range(6))
