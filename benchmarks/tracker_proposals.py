"""Automatic masks: ours against SAM2AutomaticMaskGenerator, same weights, same points, same thresholds, same pictures.

Run: `python -m benchmarks.tracker_proposals [--points 16] [--pictures 1]`. Needs the SAM 2 tiny image weights and the
LM-O pictures of ../shared (skips without). Each side runs in a process of its own: the peak of its resident memory
above what it held with the model loaded, and its processor time, which other programs do not change.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console

from actors.tracker.backend import mask_iou
from benchmarks.paired import REPEATS, Comparison
from models.proposals import Profile, propose
from models.sam2.automatic import Sam2Points
from models.sam2.build import load
from models.sam2.stream import StreamingSam2

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights/sam2_hiera_tiny_image_fp16.safetensors"
POINTS = 16  # per side
STOCK_BATCH, OUR_BATCH = 64, 16  # its default; our edge profile


def ours(network: Any, points: int) -> Any:
    """A picture → its masks."""
    stream = StreamingSam2(network)
    profile = Profile(points_per_side=points, points_per_batch=OUR_BATCH)
    return lambda picture: propose(Sam2Points(network, stream.encode(picture)), profile).masks


def stock(network: Any, points: int) -> Any:
    """The same by the package."""
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    # Its defaults: 0.8 and 0.95, as ours.
    generator = SAM2AutomaticMaskGenerator(network, points_per_side=points, points_per_batch=STOCK_BATCH)
    return lambda picture: [each["segmentation"] for each in generator.generate(picture)]


def measure(side: str, points: int, paths: list[Path], answers: Any) -> None:
    """In a process of its own: put (masks per picture, seconds, bytes at the peak)."""
    torch.set_num_threads(1)
    network = load(WEIGHTS, "sam2_hiera_tiny", parts="image")
    run = (ours if side == "ours" else stock)(network, points)
    network.forward_image(torch.zeros(1, 3, 1024, 1024))  # the backbone's own peak belongs to both
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, found = time.process_time(), []
    for path in paths:
        picture = cv2.imread(str(path))
        assert picture is not None
        found.append([np.packbits(mask) for mask in run(np.ascontiguousarray(picture[:, :, ::-1]))])
    seconds = (time.process_time() - start) / len(paths)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    answers.put((found, seconds, peak))


def apart(side: str, points: int, paths: list[Path]) -> tuple[list, float, int]:
    """`measure` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=measure, args=(side, points, paths, answers))
    process.start()
    answer = answers.get()
    process.join()
    return answer


def comparisons() -> Iterator[Comparison]:
    """Processor time and peak memory on one picture, in pairs; nothing without the weights and the pictures."""
    if not WEIGHTS.is_file():
        return
    paths = sorted((SHARED / "data/lmo/rgb").glob("*.jpg"))[:1]
    pairs = [(apart("ours", POINTS, paths)[1:], apart("stock", POINTS, paths)[1:]) for _ in range(REPEATS)]
    peer, command = "SAM2AutomaticMaskGenerator", "python -m benchmarks proposals"
    for which, (what, unit, scale) in enumerate(
        (("processor time", "s", 1.0), ("peak memory above the model", "MiB", 2.0**20))
    ):
        mine, theirs = (tuple(pair[side][which] / scale for pair in pairs) for side in (0, 1))
        yield Comparison(f"SAM 2 automatic masks, {what}", peer, unit, "less", mine, theirs, command)


def main() -> None:
    """Print one line per quantity."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--points", type=int, default=POINTS, help="per side")
    arguments.add_argument("--pictures", type=int, default=1)
    given = arguments.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    if not WEIGHTS.is_file():
        console.print(f"skipped: {WEIGHTS} is not here")
        return
    paths = sorted((SHARED / "data/lmo/rgb").glob("*.jpg"))[: given.pictures]
    (theirs, their_s, their_peak), (mine, my_s, my_peak) = (
        apart(side, given.points, paths) for side in ("stock", "ours")
    )
    matched = []
    for one, other in zip(mine, theirs, strict=True):
        masks, stock_masks = ([np.unpackbits(bits).astype(bool) for bits in each] for each in (one, other))
        matched += [max((mask_iou(mask, each) for each in masks), default=0.0) for mask in stock_masks]
    console.print(f"{given.points}² points, {len(paths)} pictures of 640×480, 1024 px input, float32, one thread")
    console.print(f"masks: stock {sum(map(len, theirs))}, ours {sum(map(len, mine))}; IoU least {min(matched):.4f}")
    console.print(f"processor time: stock {their_s:.1f} s, ours {my_s:.1f} s, ratio {my_s / their_s:.2f}")
    console.print(
        f"peak memory above the model: stock {their_peak / 2**20:.0f} MiB, ours {my_peak / 2**20:.0f} MiB, "
        f"ratio {my_peak / their_peak:.2f}"
    )


if __name__ == "__main__":
    main()
