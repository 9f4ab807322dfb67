"""What a frame costs in memory and time: our SAM 2 stream, the official predictor, transformers' session.

Run: `python -m benchmarks.tracker_memory [--side 1024] [--frames 24]`. Real architecture (hiera tiny), seeded RANDOM
weights: bytes and time do not depend on them. Four frames are encoded once and shown in turn, so the time is that of
following alone, the same frames for both; processor time, rounds interleaved, the best of each.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console

from benchmarks.paired import REPEATS, Comparison, Fact, in_turns
from models.sam2.build import build
from models.sam2.picture import prepare
from models.sam2.stream import StreamingSam2

WARM_UP = 17  # frames until the memory is full: 15 pointers, and the prompted frame
PEER_FRAMES = 4
MIB = 2**20


def held_bytes(thing: Any, seen: set[int]) -> int:
    """Bytes of all tensors below `thing`, each storage once; networks do not count."""
    if isinstance(thing, torch.Tensor):
        storage = thing.untyped_storage()
        new = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return storage.nbytes() * new
    if isinstance(thing, torch.nn.Module):
        return 0
    if isinstance(thing, dict):
        parts = list(thing.values())
    elif isinstance(thing, list | tuple | set):
        parts = list(thing)
    else:
        names = getattr(type(thing), "__slots__", None) or getattr(thing, "__dict__", {})
        parts = [getattr(thing, name, None) for name in names]
    return sum(held_bytes(part, seen) for part in parts)


class Ours:
    """The stream over the same few frames again and again, encoded once unless `encode_first` is False."""

    def __init__(self, network: Any, pictures: list[np.ndarray], encode_first: bool = True) -> None:
        self.stream = StreamingSam2(network, "exact")
        self.seen = [self.stream.encode(picture) for picture in pictures] if encode_first else pictures

    def step(self, mask: np.ndarray) -> None:
        """One frame; the first is prompted."""
        self.stream.see(self.seen[(self.stream.frame + 1) % len(self.seen)])
        if self.stream.frame == 0:
            self.stream.prompt("it", mask=mask)
        self.stream.propagate()

    def bytes_held(self) -> int:
        """Of the state, the canned frames left out (they are there whatever happens)."""
        seen: set[int] = set()
        held_bytes(self.seen, seen)
        return held_bytes(vars(self.stream), seen)


class Official:
    """The package's predictor on as many frames; it holds all of their pixels from the start."""

    def __init__(self, network: Any, images: torch.Tensor, size: tuple[int, int], canned: list[Any] | None) -> None:
        with patch("sam2.sam2_video_predictor.load_video_frames", return_value=(images, *size)):
            self.state = network.init_state("canned")
        self.network, self.canned, self.frame = network, canned, -1

    def step(self, mask: np.ndarray) -> None:
        """One frame, its features taken from the canned ones if there are any."""
        self.frame += 1
        if self.canned is not None:
            image, out = self.canned[self.frame % len(self.canned)]
            self.state["cached_features"] = {self.frame: (image, out)}
        if self.frame == 0:
            self.network.add_new_mask(self.state, 0, "it", mask)
        next(iter(self.network.propagate_in_video(self.state, self.frame, 0)))

    def bytes_held(self) -> int:
        """Pixels of the frames so far, and what was computed of them."""
        own = {key: value for key, value in self.state.items() if key not in ("images", "cached_features")}
        frame = self.state["images"][0]
        return held_bytes(own, set()) + (self.frame + 1) * frame.numel() * frame.element_size()


@torch.inference_mode()
def sides(network: Any, pictures: list[np.ndarray], side: int, frames: int) -> tuple[Ours, Official]:
    """Both over the same encoded pictures, the official one for so many frames."""
    squares = [prepare(picture, side, "cpu", torch.float32) for picture in pictures]
    canned = [(square, network.forward_image(square)) for square in squares]
    official = Official(network, squares[0].expand(frames, -1, -1, -1), pictures[0].shape[:2], canned)
    return Ours(network, pictures), official


def scene() -> tuple[list[np.ndarray], np.ndarray]:
    """Two pictures of noise, and a mask in them."""
    rng = np.random.default_rng(0)
    mask = np.zeros((480, 640), bool)
    mask[100:200, 200:320] = True
    return [rng.integers(0, 255, (480, 640, 3), dtype=np.uint8) for _ in range(2)], mask


def comparisons() -> Iterator[Comparison | Fact]:
    """Following at 256 px with the memory full: processor time, and bytes that one more frame adds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.environ["TQDM_DISABLE"] = "1"
    pictures, mask = scene()
    ours, official = sides(build("sam2.1_hiera_tiny", 256), pictures, 256, WARM_UP + REPEATS + 1)
    for _ in range(WARM_UP):
        ours.step(mask)
        official.step(mask)
    before = ours.bytes_held(), official.bytes_held()

    def spent(side: Ours | Official) -> float:
        start = time.process_time()
        side.step(mask)
        return 1e3 * (time.process_time() - start)

    samples = in_turns(lambda: spent(ours), lambda: spent(official))
    what, command = "SAM 2 following, a frame at 256 px, RANDOM weights", "python -m benchmarks following"
    yield Comparison(f"{what}, processor time", "the official predictor", "ms", "less", *samples, command)
    added = [
        (side.bytes_held() - was) / MIB / (REPEATS + 1) for side, was in zip((ours, official), before, strict=True)
    ]
    yield Fact(f"{what}, memory it adds", f"{added[0]:.3f} MiB, the official predictor {added[1]:.3f}", command)


def transformers_bytes(side: int, mask: np.ndarray) -> float:
    """Bytes that transformers' Sam2VideoInferenceSession gains per frame."""
    from transformers import Sam2VideoConfig, Sam2VideoModel
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    torch.manual_seed(0)
    config = Sam2VideoConfig()
    if side != 1024:
        raise ValueError("transformers' configuration is for 1024 px")
    model = Sam2VideoModel(config).eval()
    session = Sam2VideoInferenceSession(
        video_height=mask.shape[0],
        video_width=mask.shape[1],
        inference_device=torch.device("cpu"),
        inference_state_device=torch.device("cpu"),
        video_storage_device=torch.device("cpu"),
        dtype=torch.float32,
    )
    held = []
    with torch.inference_mode():
        for frame in range(PEER_FRAMES):
            pixels = torch.randn(1, 3, side, side)
            if frame == 0:
                session.add_new_frame(pixels[0], 0)
                session.obj_id_to_idx(1)
                session.add_mask_inputs(0, 0, torch.tensor(mask)[None, None].float())
                session.obj_with_new_inputs = [1]
                model(inference_session=session, frame_idx=0)
            else:
                model(inference_session=session, frame=pixels[0])
            held.append(held_bytes({k: v for k, v in vars(session).items() if k != "cache"}, set()))
    return (held[-1] - held[1]) / (len(held) - 2)


def main() -> None:
    """Print bytes per frame and the overhead."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--side", type=int, default=1024)
    arguments.add_argument("--frames", type=int, default=24)
    arguments.add_argument("--threads", type=int, default=1)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    os.environ["TQDM_DISABLE"] = "1"  # the official predictor's progress bar would cost it time
    console = Console(highlight=False, soft_wrap=True)
    torch.manual_seed(0)
    network = build("sam2.1_hiera_tiny", given.side)
    pictures, mask = scene()
    _versus_official(console, network, pictures, mask, given)
    if given.side == 1024:
        console.print(f"transformers' session: {transformers_bytes(given.side, mask) / MIB:.2f} MiB per frame")


@torch.inference_mode()
def _versus_official(
    console: Console, network: Any, pictures: list[np.ndarray], mask: np.ndarray, given: argparse.Namespace
) -> None:
    ours, official = sides(network, pictures, given.side, given.frames)
    times: dict[str, list[float]] = {"ours": [], "official": []}
    held: dict[str, list[int]] = {"ours": [], "official": []}
    for _ in range(given.frames):
        for name, side in (("ours", ours), ("official", official)):
            start = time.process_time()
            side.step(mask)  # type: ignore[attr-defined]
            times[name].append(time.process_time() - start)
            held[name].append(side.bytes_held())  # type: ignore[attr-defined]
    full = slice(WARM_UP, None)
    for name in held:
        grown = np.diff(held[name][full])
        console.print(
            f"{name}: {grown.mean() / MIB:.3f} MiB per frame after frame {WARM_UP} (largest {grown.max() / MIB:.3f}), "
            f"{held[name][-1] / MIB:.1f} MiB held at the end; {1e3 * min(times[name][full]):.1f} ms per frame at best, "
            f"{1e3 * np.median(times[name][full]):.1f} ms median"
        )
    medians = {name: float(np.median(times[name][full])) for name in times}
    bests = {name: min(times[name][full]) for name in times}
    overheads = [each["ours"] / each["official"] - 1 for each in (bests, medians)]
    console.print(
        f"overhead over the bare predictor: {overheads[0]:+.1%} of the best, {overheads[1]:+.1%} of the median"
    )


if __name__ == "__main__":
    main()
