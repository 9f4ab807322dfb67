"""Whether memory and speed depend on how long a video is: a worker's peak memory, its rate, bytes in Ray's store.

Run: python -m benchmarks.egoworld_bounds. Two comparisons, every clip through the real guard, sandbox and ClipReader:
a 10 s against a 10 min clip (reading only, and with hamer:mediapipe), and a 5 h 1080p video against 30 s files on Ray.
The 5 h video is one encoded stretch of pictures stored again and again with later times; of its 600 clips only
`SAMPLED` are worked on, spread evenly from the first to the last. Everything lies in a temporary folder.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import av
import numpy as np
import pyarrow as pa
from rich.console import Console

from benchmarks.paired import Fact
from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.config import EgoworldConfig
from data_jobs.egoworld.demo import write_rendered
from data_jobs.egoworld.manifest import build_manifest
from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.plan import make_plan
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import schema_of
from data_jobs.egoworld.task import EgoworldJob, host_of
from data_jobs.runs.engine import run_ray
from data_jobs.runs.guard import Row, StageCall
from data_jobs.runs.strict import Strict
from models import weights

FRAMES_PER_S = 30
LONG_S, SHORT_S, STRETCH_S = 5 * 3600, 30, 10
SAMPLED = 6
# Hands are rendered at 30 frames/s; shown 7 times as long, 40 of them last 9.3 s, and 10 min are 2,400 frames.
SLOW_FRAMES, SLOWER = 40, 7
OUT = Console(highlight=False)


class Params(Strict):
    """Where the reader leaves what each clip cost it."""

    costs: str


class ReadEveryFrame:
    """An operator that decodes every frame, touches it, finds nothing, and notes its own time and peak memory."""

    Params = Params
    FOREIGN: ClassVar[tuple[str, ...]] = ("costs",)
    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="hamer",
        backend="read",
        version=1,
        table="hand_pose",
        licence="Apache-2.0",
        upstream=(),
        preload=("benchmarks.egoworld_bounds",),
    )

    def __init__(self, params: Params) -> None:
        self.params = params

    @staticmethod
    def weights(params: Params) -> tuple[str, ...]:
        """None."""
        return ()

    def load(self) -> None:
        """Nothing to load."""

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """Read the clip; returns an empty table."""
        wall_s, cpu_s, frames = time.perf_counter(), time.process_time(), 0
        for window in ClipReader(clip, window_frames).windows():
            frames += len(window.images)
            window.images[:, ::8, ::8].sum()
        cost = {
            "clip": clip.clip_id,
            "frames": frames,
            "wall_s": time.perf_counter() - wall_s,
            "cpu_s": time.process_time() - cpu_s,
            "peak": peak_bytes(os.getpid()),
        }
        with Path(self.params.costs).open("a") as file:
            file.write(json.dumps(cost) + "\n")
        return schema_of("hand_pose").empty_table()

    def close(self) -> None:
        """Nothing to free."""


def peak_bytes(pid: int) -> int:
    """Peak resident memory of a process so far (Linux: VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


# --- videos -------------------------------------------------------------------------------------------------------


def write_stretch(path: Path, width: int, height: int, rate: int, seconds: int) -> None:
    """A drifting pattern as H.264: cheap to make, every frame different."""
    y, x = np.mgrid[:height, :width]
    pattern = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=rate, options={"preset": "ultrafast", "crf": "35", "g": str(rate)}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        for i in range(rate * seconds):
            frame = av.VideoFrame.from_ndarray(np.roll(pattern, 8 * i, axis=1), format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def repeat(source: Path, target: Path, times: int, title: str = "", slower: int = 1) -> None:
    """The encoded pictures of `source` stored `times` times, each time later, each shown `slower` times as long.

    `title` makes equal videos differ.
    """
    with av.open(str(source)) as given, av.open(str(target), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream_from_template(given.streams.video[0])
        packets = [(bytes(p), p.pts, p.dts, p.duration, p.is_keyframe) for p in given.demux(video=0) if p.size]
        length = slower * sum(duration for *_, duration, _ in packets)
        for round_ in range(times):
            for data, pts, dts, duration, is_keyframe in packets:
                packet = av.Packet(data)
                packet.pts, packet.dts = slower * pts + round_ * length, slower * dts + round_ * length
                packet.duration, packet.time_base = slower * duration, given.streams.video[0].time_base
                packet.is_keyframe, packet.stream = is_keyframe, stream
                container.mux(packet)


# --- one worker, clips of different length ------------------------------------------------------------------------


def job_of(folder: Path, operator: dict[str, Any], clip_length_s: float) -> EgoworldJob:
    """A job with one operator under `hamer` and one worker."""
    settings = {
        "splitter": {"method": "fixed_stride", "clip_length_s": clip_length_s, "min_clip_s": 0.0},
        "operators": {"sam2": {"enabled": False}, "hamer": operator},
        "guard": {"timeout_s": 3600, "memory_gib": 16.0},
        "backpressure": {"max_in_flight_cpu": 1},
    }
    plan, _ = make_plan(EgoworldConfig.model_validate(settings), weights.sha256_of)
    job = EgoworldJob(plan, folder, "r")
    job.store.prepare()
    return job


def peak_of_worker(job: EgoworldJob, row: Row) -> int:
    """Peak memory of a fresh sandbox that runs the operator on one clip."""
    sandbox = host_of(job).sandbox()
    sandbox.start()
    try:
        answer = sandbox.call(StageCall(row, "hamer", 0), 3600)
        if not isinstance(answer, str):
            raise SystemExit(f"the operator failed: {answer}")
        return peak_bytes(sandbox._child.pid)
    finally:
        sandbox.close()


def compare_lengths(folder: Path, stretch: Path, name: str, operator: dict[str, Any], slower: int = 1) -> list[float]:
    """A clip of about 10 s and one 60 times as long, from the same pictures; MiB at the peak of each."""
    peaks, frames = [], []
    for times in (1, 60):
        video, job = folder / f"{name}-{times}.mp4", job_of(folder / f"{name}-out{times}", operator, 3600)
        repeat(stretch, video, times, slower=slower)
        [row] = build_manifest([video], job.plan.config.chosen_splitter()).clip_table.to_pylist()
        peaks.append(peak_of_worker(job, row) / 2**20)
        frames.append(job.frames(row))
    OUT.print(
        f"{name}, {row['width']}x{row['height']}: peak {peaks[0]:.0f} MiB for {frames[0]} frames (10 s), "
        f"{peaks[1]:.0f} MiB for {frames[1]} frames (10 min): ratio {peaks[1] / peaks[0]:.3f}"
    )
    return peaks


def compare_reading(folder: Path) -> None:
    """Reading only: what the windows cost."""
    write_stretch(folder / "pattern.mp4", 320, 180, FRAMES_PER_S, STRETCH_S)
    params = {"costs": str(folder / "costs.jsonl")}
    reader = {"backend": "benchmarks.egoworld_bounds:ReadEveryFrame", "params": params}
    compare_lengths(folder, folder / "pattern.mp4", "reading", reader)


def compare_hands(folder: Path) -> list[float]:
    """The real operator on rendered hands, which it finds, so that its rows grow with the clip; about 4 frames/s."""
    grey = np.full((480, 640, 3), 110, np.uint8)
    write_rendered(folder / "rendered.mp4", [grey] * SLOW_FRAMES, SLOW_FRAMES, "made by a benchmark")
    return compare_lengths(folder, folder / "rendered.mp4", "hamer:mediapipe", {"backend": "mediapipe"}, SLOWER)


def comparisons() -> Iterator[Fact]:
    """Of the worker with the real operator."""
    with tempfile.TemporaryDirectory() as folder:
        short, long = compare_hands(Path(folder))
    found = f"{long / short:.2f} × ({long:.0f} and {short:.0f} MiB)"
    yield Fact("memory of a worker, clip of 10 min against 10 s", found, "python -m benchmarks.egoworld_bounds hands")


# --- five hours against thirty seconds, on Ray --------------------------------------------------------------------


def compare_on_ray(folder: Path) -> None:
    """The same number of 30 s clips from one 5 h video and from 30 s files, one worker each, 1080p."""
    from data_jobs.runs.cluster import ray_cluster

    write_stretch(folder / "stretch.mp4", 1920, 1080, FRAMES_PER_S, STRETCH_S)
    (folder / "long").mkdir()
    (folder / "short").mkdir()
    repeat(folder / "stretch.mp4", folder / "long" / "5h.mp4", LONG_S // STRETCH_S, "5 h")
    for i in range(SAMPLED):
        repeat(folder / "stretch.mp4", folder / "short" / f"{i}.mp4", SHORT_S // STRETCH_S, f"{i}")
    with ray_cluster():
        # In turns, so that other load falls on both; each turn has a worker of its own.
        turns = [(kind, clips_on_ray(folder, kind, turn)) for turn in range(2) for kind in ("long", "short")]
        store = object_store()
    figures = {}
    for kind in ("long", "short"):
        costs = [cost for name, found in turns if name == kind for cost in found]
        figures[kind] = [
            median(cost["frames"] / cost["wall_s"] for cost in costs),
            median(cost["frames"] / cost["cpu_s"] for cost in costs),
            max(cost["peak"] for cost in costs) / 2**20,
        ]
    for i, what in enumerate(("frames/s of wall time", "frames/s of processor time", "MiB peak of a worker")):
        long, short = figures["long"][i], figures["short"][i]
        OUT.print(f"{what}: 5 h video {long:.0f}, 30 s files {short:.0f}, ratio {long / short:.3f}")
    OUT.print(f"object store: {store}")


def clips_on_ray(folder: Path, kind: str, turn: int) -> list[dict[str, Any]]:
    """Work `SAMPLED` clips of a folder on Ray; what each cost."""
    from data_jobs.runs.cluster import remote_ledger

    costs, out = folder / f"{kind}{turn}.jsonl", folder / f"out-{kind}{turn}"
    operator = {"backend": "benchmarks.egoworld_bounds:ReadEveryFrame", "params": {"costs": str(costs)}}
    job = job_of(out, operator, SHORT_S)
    table = build_manifest([folder / kind], job.plan.config.chosen_splitter()).clip_table
    chosen = table.take(np.linspace(0, len(table) - 1, SAMPLED).round().astype(int))
    job.run_folder.mkdir()
    ledger = remote_ledger(str(job.run_folder / "ledger.sqlite"), "egoworld", f"{kind}{turn}")
    results = [outcome.result for outcome in run_ray(host_of(job), chosen, ledger, ledger.begin("r", "ray", "{}"))]
    if results != ["done"] * SAMPLED:
        raise SystemExit(f"clips failed: {results}")
    return [json.loads(line) for line in costs.read_text().splitlines()]


def object_store() -> str:
    """What ever went into the object store of this node, and what was spilled from it."""
    import ray
    from ray._private.internal_api import node_stats

    [node] = ray.nodes()
    stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats
    created = stats.cumulative_created_bytes / 2**20
    return f"{stats.spilled_bytes_total} bytes spilled, {created:.2f} MiB ever created"


def main(words: list[str]) -> None:
    """Everything, or only one of: reading, hands, ray."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        chosen = words or ["reading", "hands", "ray"]
        if "reading" in chosen:
            compare_reading(folder)
        if "hands" in chosen:
            compare_hands(folder)
        if "ray" in chosen:
            compare_on_ray(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
