"""Films for tests: every picture carries its own number, so that a reader is checked without a second reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_jobs.egoworld.manifest import clips, clips_of
from data_jobs.egoworld.records import Clip, Video
from data_jobs.egoworld.splitters import FixedStride, Split

CELL = 16  # pixels: a macroblock, so that coarse quantisation cannot blur one bit into the next
BITS = 12
TIME_BASE = Fraction(1, 30_000)


def picture(number: int, height: int = 96, width: int = 128) -> np.ndarray:
    """(H, W, 3) uint8: `number` as black and white cells, six to a row."""
    image = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, 6)
        image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 255 * (number >> bit & 1)
    image[3 * CELL :, :, number % 3] = (number * 37) % 256  # something that moves and has colour
    return image


def number_of(image: np.ndarray) -> int:
    """The number that `picture` drew."""
    middles = [divmod(bit, 6) for bit in range(BITS)]
    return sum(
        int(image[row * CELL + 4 : row * CELL + 12, column * CELL + 4 : column * CELL + 12].mean() > 128) << bit
        for bit, (row, column) in enumerate(middles)
    )


def write_film(
    path: Path,
    times: Iterable[int],
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (96, 128),
    container_options: Mapping[str, str] | None = None,
    rate: int = 30,
    time_base: Fraction = TIME_BASE,
) -> Path:
    """Write one numbered picture per time (in `time_base` units) and give the path back."""
    height, width = size
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = time_base
        stream.codec_context.thread_count = 1
        for number, pts in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            frame.pts, frame.time_base = pts, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_pictures(path: Path, pictures: Iterable[np.ndarray], rate: int = 10) -> Path:
    """Write (H, W, 3) uint8 pictures without loss: what is read is what was drawn."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        for image in pictures:
            stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "bgr0"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    return path


def even(frames: int, step: int = 1000) -> range:
    """Times of a constant rate: 30 frames per second at the default step."""
    return range(0, frames * step, step)


def clip_of(video: Video, start: int = 0, end: int | None = None) -> Clip:
    """The clip of frames [start, end) of a video."""
    table = clips_of(video, Split(((start, video.frame_count if end is None else end),)), FixedStride())
    return next(clips(table))
