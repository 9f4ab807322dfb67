"""How the run machinery's own cost grows with the number of clips: planning a million, working off tens of thousands.

Run: python -m benchmarks.egoworld_scale plan [CLIPS] [PUBLISHED], or … work [CLIPS …]. The operator costs nothing
(tests/faults/operator.py with healthy_ms=0 on one-frame clips), so all that is measured is listing, Ray, guard,
ledger, sandbox and publication. `work` draws docs/figures/egoworld_scale.svg. Everything else lies in a temporary
folder.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console

from data_jobs.egoworld.__main__ import job_of, read_config
from data_jobs.egoworld.listing import MANIFESTS, open_listing
from data_jobs.egoworld.manifest import Manifest, clips_of
from data_jobs.egoworld.manifest_files import write_manifest
from data_jobs.egoworld.records import Video
from data_jobs.egoworld.run import fill_ledger, left_to_do
from data_jobs.egoworld.splitters import FixedStride
from data_jobs.runs.engine import blocks
from data_jobs.runs.ledger import Ledger
from tests.e2e.egoworld import stub_config
from tests.faults.videos import write_video

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "docs" / "figures" / "egoworld_scale.svg"
CLIPS_PER_VIDEO = 500
FRAMES_PER_S = 10
OUT = Console(highlight=False)


# --- planning -----------------------------------------------------------------------------------------------------


def synthetic_manifest(clips: int) -> Manifest:
    """A manifest of one-second clips, `CLIPS_PER_VIDEO` to a video, as if the videos had been probed."""
    splitter = FixedStride(clip_length_s=1.0)
    frames = CLIPS_PER_VIDEO * FRAMES_PER_S
    videos = [
        Video(
            video_id=f"{i:016x}",
            content_sha256=f"{i:016x}" * 4,
            path=f"/videos/participant_{i // 100:04d}/recording_{i:06d}.mp4",
            name=f"participant_{i // 100:04d}/recording_{i:06d}.mp4",
            size_bytes=10**9,
            width=1920,
            height=1080,
            rotation_deg=0,
            codec="h264",
            pixel_format="yuv420p",
            time_base=Fraction(1, FRAMES_PER_S),
            pts=np.arange(frames),
            has_audio=False,
        )
        for i in range(clips // CLIPS_PER_VIDEO)
    ]
    split = splitter.split(videos[0])  # all alike
    table = pa.concat_tables([clips_of(video, split, splitter) for video in videos]).unify_dictionaries()
    return Manifest(tuple(videos), (0,) * len(videos), table.combine_chunks(), (), (), "train")


def prepare_plan(folder: Path, clips: int, published: int) -> None:
    """A run folder as a kill would leave it: manifest written, `published` clips done."""
    manifest = synthetic_manifest(clips)
    job = job_of(read_config(stub_config(folder)), str(folder), "r")
    job.store.prepare()
    write_manifest(manifest, job.run_folder / MANIFESTS)
    for row in manifest.clip_table.select(["video_id", "clip_id"]).slice(0, published).to_pylist():
        (folder / job.clip_folder(row)).mkdir(parents=True)


def plan(folder: Path) -> None:
    """What a resumed run does before its first clip; prints JSON: seconds by step, peak memory, clips left."""
    job = job_of(read_config(folder / "stub.yaml"), str(folder), "r")
    marks = [time.perf_counter()]
    listing = open_listing(job.run_folder)
    marks.append(time.perf_counter())
    todo = left_to_do(listing.clips, job)
    marks.append(time.perf_counter())
    ledger = Ledger(str(job.run_folder / "ledger.sqlite"))
    ledger.begin("r", "local", "{}")
    fill_ledger(ledger, listing, job)
    marks.append(time.perf_counter())
    size = sum(block.nbytes for block in blocks(todo, workers=2))
    marks.append(time.perf_counter())
    names = ("read manifest", "list what is left", "fill ledger", "make blocks")
    seconds = dict(zip(names, np.diff(marks).round(2).tolist(), strict=True))
    sys.stdout.write(json.dumps({"seconds": seconds, "peak": peak_bytes(), "left": len(todo), "blocks": size}))


def peak_bytes() -> int:
    """Peak resident memory of this process since its start (Linux: VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure_plan(clips: int, published: int) -> None:
    """Plan in a fresh process and print what it cost."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare_plan(folder, clips, published)
        ours = [sys.executable, "-m", "benchmarks.egoworld_scale", "planning", place]
        found = json.loads(subprocess.run(ours, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    total = sum(found["seconds"].values())
    steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found["seconds"].items())
    OUT.print(f"{clips:,} clips, {published:,} published: {found['left']:,} left; {total:.1f} s ({steps})")
    OUT.print(f"peak memory {found['peak'] / 2**30:.2f} GiB; rows for the workers {found['blocks'] / 2**20:.0f} MiB")


# --- working ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """What a whole run of clips that cost nothing took."""

    clips: int
    whole_s: float  # of the process
    before_s: float  # from the epoch's begin to the first attempt
    clips_s: float  # first attempt to last
    cpu_s: float  # of every process of the run
    load: float  # of the machine before the run, in runnable processes


def work(clips: int) -> Cost:
    """One run on Ray, in its own process."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_video(folder / "videos" / "a.mp4", clips, rate=FRAMES_PER_S)
        config = stub_config(folder, clip_length_s=1 / FRAMES_PER_S, healthy_ms=0.0)
        command = [sys.executable, "-m", "data_jobs.egoworld", "run", "--run-id", "r", "--config", str(config)]
        load, begun = os.getloadavg()[0], time.perf_counter()
        run = subprocess.Popen(
            [*command, "--input", place + "/videos", "--output", place],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        cpu_s = _cpu_until_the_end(run)
        whole_s = time.perf_counter() - begun
        record = json.loads((folder / "run_id=r" / "run_manifest.json").read_text())
        assert record["totals"]["done"] == clips, record["totals"]
        with sqlite3.connect(folder / "run_id=r" / "ledger.sqlite") as db:
            [begin_ns] = db.execute("SELECT started_ns FROM runs").fetchone()
            first_ns, last_ns = db.execute("SELECT MIN(started_ns), MAX(ended_ns) FROM attempts").fetchone()
    return Cost(clips, whole_s, (first_ns - begin_ns) / 1e9, (last_ns - first_ns) / 1e9, cpu_s, load)


def _cpu_until_the_end(run: subprocess.Popen[bytes]) -> float:
    """Processor seconds of a process and all that descend from it, looked at every second until it ends."""
    spent: dict[int, float] = {}
    while run.poll() is None:
        family = {run.pid}
        for pid, parent, seconds in sorted(_processes()):
            if parent in family or pid in family:
                family.add(pid)
                spent[pid] = seconds
        time.sleep(1.0)
    return sum(spent.values())


def _processes() -> list[tuple[int, int, float]]:
    """(pid, parent, processor seconds) of every process of this machine."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        ticks = int(fields[11]) + int(fields[12])
        found.append((int(stat.parent.name), int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")))
    return found


def measure_work(sizes: list[int]) -> None:
    """Run each size once, print the costs, and draw them with the straight line through them."""
    costs = []
    for clips in sizes:
        cost = work(clips)
        costs.append(cost)
        OUT.print(
            f"{clips:,} clips: {cost.whole_s:.1f} s in all = {cost.whole_s / clips * 1e3:.2f} ms a clip; first to last "
            f"attempt {cost.clips_s:.1f} s = {cost.clips_s / clips * 1e3:.2f} ms a clip; {cost.before_s:.1f} s from "
            f"ledger to first attempt; processor {cost.cpu_s:.0f} s; load before {cost.load:.1f}"
        )
        if len(costs) > 1:
            slope, fixed = np.polyfit([cost.clips for cost in costs], [cost.whole_s for cost in costs], 1)
            OUT.print(f"straight line: {fixed:.1f} s + {slope * 1e3:.2f} ms a clip")
            FIGURE.parent.mkdir(parents=True, exist_ok=True)
            FIGURE.write_text(svg(costs, slope, fixed), encoding="utf-8")


def svg(costs: list[Cost], slope: float, fixed: float) -> str:
    """The whole run's seconds over clips, with the fitted line."""
    width, height, left, bottom = 640, 360, 70, 50
    most_clips = max(cost.clips for cost in costs)
    most_s = max(*(cost.whole_s for cost in costs), fixed + slope * most_clips) * 1.08

    def at(clips: float, seconds: float) -> tuple[float, float]:
        x = left + clips / most_clips * (width - left - 30)
        return x, height - bottom - seconds / most_s * (height - bottom - 30)

    (x0, y0), (x1, y1) = at(0, fixed), at(most_clips, fixed + slope * most_clips)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{left} 30V{height - bottom}H{width - 30}" fill="none" stroke="#444"/>',
        f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="#0072b2" stroke-width="1.5"/>',
        f'<text x="{left}" y="20">whole run in seconds; line: {fixed:.0f} s + {slope * 1e3:.2f} ms per clip</text>',
        f'<text x="{width / 2}" y="{height - 10}" text-anchor="middle">clips (operator that costs nothing)</text>',
    ]
    for cost in costs:
        x, y = at(cost.clips, cost.whole_s)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#d55e00"/>')
        parts.append(f'<text x="{x:.1f}" y="{y - 9:.1f}" text-anchor="end">{cost.whole_s:.0f} s</text>')
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle">{cost.clips:,}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main(words: list[str]) -> None:
    """plan [CLIPS] [PUBLISHED] | work [CLIPS …] | nothing: both, with the sizes of the documentation."""
    what, numbers = (words[0], words[1:]) if words else ("", [])
    if what == "planning":  # the fresh process of measure_plan
        plan(Path(numbers[0]))
        return
    if what in ("", "plan"):
        clips, published = ([int(n) for n in numbers] + [1_000_000, 100_000][len(numbers) :])[:2]
        measure_plan(clips, published)
    if what in ("", "work"):
        measure_work([int(n) for n in numbers] or [1_000, 5_000, 20_000])


if __name__ == "__main__":
    main(sys.argv[1:])
