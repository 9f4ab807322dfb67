"""The whole of trainval's size, synthetic: seconds and memory of reading the tables and converting all
scenes.

    python -m benchmarks.nuscenes_scale /tmp/scale --workers 2      # makes 1.6 GB of tables on first use

850 scenes, 34,149 samples and about 1.17 million boxes, as v1.0-trainval has; six cameras at 12 Hz. The
target is ten minutes on two cores. Peak memory is the sum over this process and all its children, sampled
twice a second.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
import time
from pathlib import Path

from data_jobs.nuscenes.convert import ConvertRequest, convert
from data_jobs.nuscenes.scene_index import open_index
from data_jobs.nuscenes.synthetic import scene_pool, write_database
from data_jobs.nuscenes.synthetic_world import WorldSpec
from data_jobs.nuscenes.tables import open_tables
from data_jobs.runs.sandbox import resident_bytes

SCENES, SAMPLES = 850, 34_149
VERSION = "v1.0-synthetic"

# Objects per scene that give trainval's 34.3 boxes per sample with the default annotation range.
OBJECTS = 82


class Memory(threading.Thread):
    """Watches the resident memory of a process tree."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes, self.stopped = 0, False

    def run(self) -> None:
        """Sample until stopped."""
        while not self.stopped:
            self.peak_bytes = max(self.peak_bytes, sum(resident_bytes(pid) for pid in family(os.getpid())))
            time.sleep(0.5)


def family(pid: int) -> list[int]:
    """A process and all its descendants (Linux: /proc)."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it ended meanwhile
    members = {pid}
    while grown := {child for child, parent in parents.items() if parent in members} - members:
        members |= grown
    return sorted(members)


def main() -> None:
    """Make the tables once, then read and convert them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", choices=["ray", "local"], default="ray")
    parser.add_argument("--scenes", type=int, default=SCENES)
    options = parser.parse_args()
    data = options.work / f"data-{options.scenes}"
    if not (data / "made").is_file():
        samples = SAMPLES * options.scenes // SCENES
        start = time.perf_counter()
        names = scene_pool(options.scenes, None)
        write_database(data, VERSION, WorldSpec(objects=OBJECTS), 5, names, samples, with_truth=False)
        (data / "made").write_text("")
        sys.stdout.write(f"made {options.scenes} scenes in {time.perf_counter() - start:.0f} s\n")
    out, cache = options.work / "out", options.work / "cache"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(cache, ignore_errors=True)
    memory = Memory()
    memory.start()
    start = time.perf_counter()
    index = open_index(open_tables(data, VERSION, cache))
    read_s, read_peak = time.perf_counter() - start, memory.peak_bytes
    request = ConvertRequest(data, VERSION, out, cache, None, "12", "native", options.engine, options.workers)
    result = convert(request)
    total_s = time.perf_counter() - start
    memory.stopped = True
    boxes = sum(split["boxes"] for split in result.stats["splits"].values())
    projections = sum(split["keyframe_projections"] for split in result.stats["splits"].values())
    sys.stdout.write(
        f"{len(index.scenes())} scenes, {projections // 6} annotations → {boxes} boxes; {result.proof.sentence()}\n"
        f"tables {read_s:.0f} s (peak {read_peak / 2**30:.1f} GiB), everything {total_s:.0f} s = "
        f"{total_s / 60:.1f} min with {options.workers} workers, peak {memory.peak_bytes / 2**30:.1f} GiB, "
        f"target 10 min: ratio {600 / total_s:.1f}\n"
    )


if __name__ == "__main__":
    main()
