"""What `sam2:sam2` costs over its networks alone, and a run that uses it over a bare loop: part of `make bench-gpu`.

Run: `python -m benchmarks.gpu operator egoworld [--device cuda]`. The clip is the demo's with rendered hands: they are
the prompts. First the operator works on the clip and every call of its streams is written down; then the same calls are
made again on pictures that already lie in memory: the bare loop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from actors.video_segmenter import FrameStream
from benchmarks.on_device import ARCHITECTURE, Setting, sam2_checkpoint
from benchmarks.paired import Comparison, Fact, in_turns
from data_jobs.egoworld.demo import RATE_HZ, REAL_CLIP, RENDERED_NAME, backgrounds, write_rendered
from data_jobs.egoworld.demo_scene import DURATION_S
from data_jobs.egoworld.manifest import clips, clips_of
from data_jobs.egoworld.operators.mediapipe_hands import MediapipeHands
from data_jobs.egoworld.operators.sam2_video import Sam2VideoMasks
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.splitters import FixedStride, Split
from models.weights import path_of

Call = tuple[int, str, tuple[Any, ...]]  # number of the stream, verb, what it was given

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "make bench-gpu"
WINDOW_FRAMES = 16
SECONDS = 3.0  # of the clip; its pictures are held in memory


class Recorded:
    """A FrameStream that writes down what it is asked."""

    def __init__(self, stream: FrameStream, number: int, calls: list[Call]) -> None:
        self._stream, self._number, self._calls = stream, number, calls

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def asked(*given: Any) -> Any:
            self._calls.append((self._number, verb, given))
            return getattr(self._stream, verb)(*given)

        return asked


def comparisons(setting: Setting) -> Iterator[Comparison | Fact]:
    """Operator and bare loop, in turns."""
    with tempfile.TemporaryDirectory() as name:
        params, note = _params(setting, Path(name))
        clip, frames = _clip(_film(Path(name), 0.5 if setting.small else SECONDS))
        hands = MediapipeHands(MediapipeHands.Params())
        hands.load()
        upstream = {"hamer": hands.run(clip, {}, WINDOW_FRAMES)}
        operator = Sam2VideoMasks(Sam2VideoMasks.Params.model_validate(params))
        operator.load()
        segmenter = operator._segmenter
        assert segmenter is not None
        calls: list[Call] = []
        opened, open_stream = iter(range(frames)), segmenter.open_stream
        segmenter.open_stream = lambda: Recorded(open_stream(), next(opened), calls)  # type: ignore[method-assign,assignment,return-value]
        operator.run(clip, upstream, WINDOW_FRAMES)
        segmenter.open_stream = open_stream  # type: ignore[method-assign]
        samples = in_turns(
            lambda: frames / setting.seconds(lambda: operator.run(clip, upstream, WINDOW_FRAMES)),
            lambda: frames / setting.seconds(lambda: _again(open_stream, calls)),
        )
        what = f"sam2:sam2 in a run, {ARCHITECTURE}{note}, {len(calls)} calls"
        yield Comparison(what, "its networks in a bare loop", "frames/s", "more", *samples, COMMAND)
        peak = setting.peak(lambda: operator.run(clip, upstream, WINDOW_FRAMES))
        yield Fact(f"{what}: peak of memory", peak, COMMAND)


def speed_of_light(setting: Setting) -> Iterator[Fact]:
    """The ratio that a whole run finds at its end, hands and masks of the demo's clip with hands."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        params, note = _params(setting, folder)
        config = {"operators": {"sam2": {"backend": "sam2", "params": params}}, "metrics": {"empty_mask_rate_max": 1.0}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        film = _film(folder, 0.5 if setting.small else DURATION_S)
        words = f"run --input {film} --config config.yaml --output out --run-id speed".split()
        command = [sys.executable, "-m", "data_jobs.egoworld", *words, "--engine", "local" if setting.small else "ray"]
        subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.DEVNULL
        )
        told = json.loads((folder / "out/run_id=speed/run_manifest.json").read_text(encoding="utf-8"))["speed_of_light"]
    found = f"{told['ratio']:.2f} ({told['frames_per_s']:.2f} against {told['bare_frames_per_s']:.2f} frames/s)"
    yield Fact(f"run with {ARCHITECTURE}{note} against a bare loop over the same models", found, COMMAND)


def _params(setting: Setting, folder: Path) -> tuple[dict[str, Any], str]:
    checkpoint, note = sam2_checkpoint(setting, folder)
    prompting = {"source": "hands", "prompt_interval_s": 0.5}
    where = {"checkpoint": str(checkpoint), "config": ARCHITECTURE, "image_size": setting.side_px}
    return where | {"device": setting.device, "prompting": prompting}, note


def _film(folder: Path, seconds: float) -> Path:
    """Rendered hands over the demo's kitchen. Raises MissingWeight."""
    path = folder / RENDERED_NAME
    write_rendered(path, backgrounds(path_of(REAL_CLIP)), round(seconds * RATE_HZ), "")
    return path


def _clip(path: Path) -> tuple[Clip, int]:
    """A video as one clip, and its frames."""
    video = probe(str(path), path.name)
    return next(clips(clips_of(video, Split(((0, video.frame_count),)), FixedStride()))), video.frame_count


def _again(open_stream: Callable[[], FrameStream], calls: list[Call]) -> None:
    streams: dict[int, FrameStream] = {}
    for number, verb, given in calls:
        if number not in streams:
            streams[number] = open_stream()
        getattr(streams[number], verb)(*given)
