"""What `sam2:sam2` costs over its networks alone: the same calls once inside the operator, once in a bare loop.

Run: `python -m benchmarks.sam2_operator VIDEO [--device cuda]` (`make bench-gpu VIDEO=…`). VIDEO must show hands: they
are the prompts. Weights as in a run: SAM 2.1 from the hub's cache, or --checkpoint. First the operator works on the
clip and every call of its streams is written down; then the same calls are made again on pictures that already lie in
memory. Prints frames per second of both and the operator's share of the bare rate.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from actors.video_segmenter import FrameStream
from data_jobs.egoworld.manifest import clips, clips_of
from data_jobs.egoworld.operators.mediapipe_hands import MediapipeHands
from data_jobs.egoworld.operators.sam2_video import Sam2VideoMasks
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.splitters import FixedStride, Split
from models.errors import MissingWeight

Call = tuple[int, str, tuple[Any, ...]]  # number of the stream, verb, what it was given


class Recorded:
    """A FrameStream that writes down what it is asked."""

    def __init__(self, stream: FrameStream, number: int, calls: list[Call]) -> None:
        self._stream, self._number, self._calls = stream, number, calls

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def asked(*given: Any) -> Any:
            self._calls.append((self._number, verb, given))
            return getattr(self._stream, verb)(*given)

        return asked


def main() -> None:
    """Operator, then bare loop, in turns; the ratio of the sums."""
    parser = argparse.ArgumentParser()
    parser.add_argument("video", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0, help="of the video; its pictures are held in memory")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint", help="default: the hub's cache")
    parser.add_argument("--config", default="sam2.1_hiera_small")
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    video = probe(str(options.video), options.video.name)
    frames = min(video.frame_count, round(options.seconds * float(video.fps)))
    clip = next(clips(clips_of(video, Split(((0, frames),)), FixedStride())))
    hands = MediapipeHands(MediapipeHands.Params())
    hands.load()
    upstream = {"hamer": hands.run(clip, {}, 16)}
    if not len(upstream["hamer"]):
        sys.exit(f"there are no hands in the first {options.seconds:g} s of {options.video}; give another video")
    params = {"checkpoint": options.checkpoint, "config": options.config, "image_size": options.image_size}
    params |= {"device": options.device, "prompting": {"source": "hands", "prompt_interval_s": 0.5}}
    operator = Sam2VideoMasks(Sam2VideoMasks.Params.model_validate(params))
    try:
        operator.load()
    except MissingWeight as error:
        sys.exit(str(error))
    segmenter = operator._segmenter
    assert segmenter is not None
    calls: list[Call] = []
    opened, open_stream = iter(range(frames)), segmenter.open_stream
    segmenter.open_stream = lambda: Recorded(open_stream(), next(opened), calls)  # type: ignore[method-assign,assignment,return-value]
    operator.run(clip, upstream, 16)  # warms up, too
    segmenter.open_stream = open_stream  # type: ignore[method-assign]
    inside, bare = 0.0, 0.0
    for _ in range(options.rounds):
        inside += _timed(lambda: operator.run(clip, upstream, 16), options.device)
        bare += _timed(lambda: _again(open_stream, calls), options.device)
    rates = [options.rounds * frames / spent for spent in (inside, bare)]
    sys.stdout.write(
        f"{frames} frames, {len(calls)} calls, {options.device}: operator {rates[0]:.2f} frames/s, "
        f"bare loop {rates[1]:.2f} frames/s, {rates[0] / rates[1]:.1%} of it\n"
    )


def _again(open_stream: Callable[[], FrameStream], calls: list[Call]) -> None:
    streams: dict[int, FrameStream] = {}
    for number, verb, given in calls:
        if number not in streams:
            streams[number] = open_stream()
        getattr(streams[number], verb)(*given)


def _timed(work: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
