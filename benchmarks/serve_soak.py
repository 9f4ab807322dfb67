"""Many sessions at once, for long: nobody starves and nothing grows.

    python -m benchmarks.serve_soak [--sessions 8] [--frames 10000]

Sessions with the dummy tracker send frames as fast as they are answered. Counted are answers per session (fairness is
the fewest by the most) and the resident memory of every process of the service, at a tenth and at the end of the run.
108,000 frames are an hour at 30 Hz: `--frames 108000`.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from robot.tracking_client import TrackClient, add_target
from tests.serve import scene
from tests.serve.running import Service

MIB = 1024 * 1024
OURS = ("Gateway", "Tracker", "Control", "Models", "ProxyActor", "TargetStore", "SessionStore", "ServedPolicy")


def memory(service: Service) -> dict[str, float]:
    """MiB of private memory by process of the service."""
    found = {}
    for pid, (name, private) in service.processes().items():
        # Ray shows in a process's title what it is doing: `Tracker.step`.
        name = name.removeprefix("ray::").removeprefix("ServeReplica:reafference:").partition(".")[0]
        if name in OURS:
            found[f"{name} {pid}"] = private / MIB
    return found


def main(
    sessions: Annotated[int, typer.Option(min=1)] = 8, frames: Annotated[int, typer.Option(min=100)] = 10_000
) -> None:
    """Run it."""
    jpegs = [scene.jpeg(scene.frame(index)) for index in range(100)]
    counts, spans = np.zeros(sessions, int), [[] for _ in range(sessions)]
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"models": {}, "tracking": {"backend": "tests.serve.colour:backend"}, "targets_dir": f"{folder}/t"}
        service = Service(Path(folder), settings)
        try:
            service.wait()
            target = add_target(service.http, "disc", scene.archive())

            def run(number: int) -> None:
                with TrackClient(f"{service.ws}/v1/track", [target], 60.0) as client:
                    while not over.is_set():
                        begun_s = time.perf_counter()
                        client.track(jpegs[counts[number] % 100])
                        spans[number].append(time.perf_counter() - begun_s)
                        counts[number] += 1

            threads = [threading.Thread(target=run, args=(number,)) for number in range(sessions)]
            for thread in threads:
                thread.start()
            begun_s = time.monotonic()
            while counts.sum() < frames / 10:
                time.sleep(0.1)
            early = memory(service)
            while counts.sum() < frames:
                time.sleep(0.1)
            late, took_s = memory(service), time.monotonic() - begun_s
            over.set()
            for thread in threads:
                thread.join()
        finally:
            over.set()
            service.stop()
    console, every = Console(), np.concatenate(spans) * 1e3
    console.print(f"{sessions} sessions · {counts.sum()} frames in {took_s:.0f} s · load {os.getloadavg()[0]:.1f}")
    console.print(f"answers per session {counts.tolist()} · fewest/most {counts.min() / counts.max():.3f}")
    console.print(f"round trip p50 {np.percentile(every, 50):.1f} ms · p99 {np.percentile(every, 99):.1f} ms")
    table = Table("process", "MiB at a tenth", "MiB at the end", "growth")
    for name in sorted(set(early) & set(late)):
        table.add_row(name, f"{early[name]:.1f}", f"{late[name]:.1f}", f"{late[name] - early[name]:+.1f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
