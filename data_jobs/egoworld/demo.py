"""Two short clips to try the job on: a real kitchen, and the same kitchen with two RENDERED hands in front of it.

In: the real clip (CC BY 4.0), by its name in the catalogue. Out: two MP4 files in a folder. Called by hand
(`python -m data_jobs.egoworld.demo --output DIR`), the Makefile and the end-to-end tests.

The real clip shows a robot arm and no human hand. No freely licensed clip with hands can be had from a package index,
so the second one is computed: a skinned hand mesh over the real frames, the same picture on every run. It shows that
the pipeline finds and follows hands; it is no evidence of how well it does so on real ones.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import cv2
import numpy as np
import typer
from rich.console import Console

from data_jobs.egoworld.demo_scene import DURATION_S, board, surfaces_at
from models import weights
from models.rendering.hand_mesh import load_hand
from models.rendering.raster import compose, draw_layer

REAL_CLIP = "demo_kitchen"
REAL_NAME = "kitchen.mp4"
RENDERED_NAME = "rendered_hands.mp4"
WIDTH_PX, HEIGHT_PX = 640, 480
FOCAL_PX = 520.0  # 63 degrees across, a head-mounted camera's narrow setting
RATE_HZ = 30
RENDER_THREADS = 2  # numpy and OpenCV leave Python's lock for most of a frame
# Visually lossless for this picture, and small; one thread, so that the file does not depend on the machine's cores.
ENCODER_OPTIONS = {"crf": "18", "preset": "fast", "threads": "1"}


def write_demo(output: Path) -> list[Path]:
    """Put both clips into `output`, fetching the real one if the cache lacks it; returns their paths."""
    source = weights.fetch([REAL_CLIP])[REAL_CLIP]
    output.mkdir(parents=True, exist_ok=True)
    real, rendered = output / REAL_NAME, output / RENDERED_NAME
    shutil.copyfile(source, real)
    credit = (
        f"RENDERED hands over frames of: {weights.entry(REAL_CLIP).attribution} ({weights.entry(REAL_CLIP).licence})"
    )
    write_rendered(rendered, backgrounds(source), round(DURATION_S * RATE_HZ), credit)
    return [real, rendered]


def backgrounds(video: Path) -> Iterator[np.ndarray]:
    """Frames of a video at the demo's size, (480, 640, 3) uint8 RGB."""
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format="rgb24")
            yield cv2.resize(image, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA)


def render_hands(behind: Iterable[np.ndarray], frame_count: int) -> Iterator[np.ndarray]:
    """At most `frame_count` frames of the scene over the given backgrounds, the same for the same backgrounds."""
    mesh = load_hand()
    table = draw_layer(board(), HEIGHT_PX, WIDTH_PX, FOCAL_PX)

    def drawn(index: int, background: np.ndarray) -> np.ndarray:
        hands = draw_layer(surfaces_at(mesh, index / RATE_HZ), HEIGHT_PX, WIDTH_PX, FOCAL_PX)
        return compose(background, [table, hands])

    with ThreadPoolExecutor(RENDER_THREADS) as pool:
        for batch in itertools.batched(enumerate(itertools.islice(behind, frame_count)), 4 * RENDER_THREADS):
            yield from pool.map(lambda numbered: drawn(*numbered), batch)


def write_rendered(path: Path, behind: Iterable[np.ndarray], frame_count: int, credit: str) -> None:
    """Encode the rendered clip as H.264, `credit` in its comment; the name appears only when the file is whole."""
    unfinished = path.with_name(f".{path.name}.part")
    with av.open(str(unfinished), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = credit
        stream = container.add_stream("libx264", rate=RATE_HZ, options=ENCODER_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE_HZ)
        for index, image in enumerate(render_hands(behind, frame_count)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    unfinished.replace(path)


def main(
    output: Annotated[Path, typer.Option(help="folder that gets the two clips; made if absent")],
) -> None:
    """Write the demo's two clips: one real, one rendered."""
    real, rendered = write_demo(output)
    lines = (
        f"{real}: real, a robot arm in a kitchen; no human hand in it",
        f"{rendered}: RENDERED, two computed hands over the same kitchen",
        f"The kitchen: {weights.entry(REAL_CLIP).attribution}, {weights.entry(REAL_CLIP).licence}",
    )
    for line in lines:
        Console().print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
