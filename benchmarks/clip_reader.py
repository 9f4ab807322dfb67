"""How fast the clip reader is beside a bare PyAV loop that keeps the same windows: prints the ratio of their rates.

Run: python -m benchmarks.clip_reader [VIDEO]; without one, the demo's kitchen clip. Both decode with one FFmpeg thread
and end with RGB windows of 16 frames in memory; the reader also seeks, checks every time, honours colour tags and
reads ahead.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import av
import numpy as np
from rich.console import Console

from benchmarks.paired import Comparison
from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.manifest import clips, clips_of
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.splitters import SceneDetect
from models import weights

WINDOW_FRAMES = 16
# Odd, so that the median is a measurement; the two are run alternately, so that other load falls on both.
ROUNDS = 7


def bare(path: str) -> int:
    """Frames decoded by the shortest loop that packs RGB windows."""
    count = 0
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for frame in container.decode(stream):
            if count % WINDOW_FRAMES == 0:
                window = np.empty((WINDOW_FRAMES, frame.height, frame.width, 3), np.uint8)
            window[count % WINDOW_FRAMES] = frame.to_ndarray(format="rgb24")
            count += 1
    return count


def rate(work: Callable[[], int]) -> tuple[float, float]:
    """Frames per second of wall time and of processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    frames = work()
    return frames / (time.perf_counter() - wall), frames / (time.process_time() - cpu)


def measure(path: Path) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Rates of the bare loop and of the reader, alternately: `ROUNDS` pairs of (wall, processor)."""
    video, whole = probe(str(path), path.name), SceneDetect(method="none")
    clip = next(clips(clips_of(video, whole.split(video), whole)))
    return [
        (
            rate(lambda: bare(str(path))),
            rate(lambda: sum(len(window.images) for window in ClipReader(clip, WINDOW_FRAMES).windows())),
        )
        for _ in range(ROUNDS)
    ]


def comparisons() -> Iterator[Comparison]:
    """Wall time, on the demo's clip."""
    rounds = measure(weights.fetch(["demo_kitchen"])["demo_kitchen"])
    theirs, ours = zip(*((bare_[0], reader[0]) for bare_, reader in rounds), strict=True)
    yield Comparison(
        "exact clip reader", "bare PyAV loop", "frames/s", "more", ours, theirs, "python -m benchmarks clip_reader"
    )


def main(path: Path) -> None:
    """Measure and print medians."""
    rounds = measure(path)
    for kind, name in enumerate(("wall time", "processor time")):
        theirs, ours = median(r[0][kind] for r in rounds), median(r[1][kind] for r in rounds)
        Console().print(f"{name}: reader {ours:.0f} frames/s, bare loop {theirs:.0f}, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else weights.fetch(["demo_kitchen"])["demo_kitchen"])
