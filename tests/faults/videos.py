"""Tiny videos that make many clips: what counts in fault tests is the number of clips, not their content."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_video(path: Path, frames: int, seed: int = 0, size: int = 32, rate: int = 10) -> Path:
    """An H.264 video of `frames` small flickering pictures; different seeds give different bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "threads": "1"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        pictures = np.random.default_rng(seed).integers(0, 255, (16, size, size, 3), np.uint8)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(pictures[i % 16], format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
