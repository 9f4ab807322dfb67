"""How long a session is away when its replica is killed: 20 kills of the very process that holds it.

    python -m benchmarks.serve_failover [--kills 20]

A client sends frames of a moving disc without a pause; every few seconds its replica gets SIGKILL. Counted is the time
from the kill to the next answer, whether the tracker still knows its target in it, and the `resumed` messages. Ray
Serve alone gives a session's next answer after about 8 s, from a replica that knows nothing (measured on Ray 2.60).
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from robot.tracking_client import TrackClient, add_target
from tests.serve import scene
from tests.serve.running import Service

SETTLE_S = 12.0  # so that the killed replica has come back before the next kill: two are needed


def main(kills: Annotated[int, typer.Option(min=1)] = 20, settle: float = SETTLE_S) -> None:
    """Run it."""
    away_ms, kept, lost = [], 0, []
    with tempfile.TemporaryDirectory() as folder:
        settings = {"models": {}, "tracking": {"backend": "tests.serve.colour:backend"}, "targets_dir": f"{folder}/t"}
        service = Service(Path(folder), settings)
        try:
            service.wait()
            target = add_target(service.http, "disc", scene.archive())
            with TrackClient(f"{service.ws}/v1/track", [target], 60.0) as client:
                index = 0
                for kill in range(kills):
                    until_s = time.monotonic() + (3.0 if kill == 0 else settle)
                    while time.monotonic() < until_s:
                        before = client.track(scene.jpeg(scene.frame(index)), index)
                        index += 1
                    os.kill(client.conversation.replica_pid, signal.SIGKILL)
                    began_s = time.monotonic()
                    after = client.track(scene.jpeg(scene.frame(index)), index)
                    away_ms.append((time.monotonic() - began_s) * 1e3)
                    index += 1
                    kept += after.objects[0]["phase"] == "track" and after.resumed
                    lost.append(before.objects[0]["frame_index"] + 1 - after.objects[0]["frame_index"])
                resumed = client.conversation.resumptions
        finally:
            service.stop()
    p50, p90, worst = np.percentile(away_ms, [50, 90, 100])
    console = Console()
    console.print(f"{kills} kills · load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    console.print(f"away p50 {p50:.0f} ms · p90 {p90:.0f} ms · worst {worst:.0f} ms")
    console.print(f"target still known in {kept} of {kills} · {resumed} resumed messages · frames lost: {lost}")


if __name__ == "__main__":
    typer.run(main)
