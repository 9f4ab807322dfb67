"""What Ray itself keeps of an actor call in the process that makes it: a part of `serve_soak`'s growth.

    python -m benchmarks.ray_calls [--calls 15000] [--rounds 4]

One actor calls another with 200 bytes, awaits the answer and drops it, nothing else. After each round its private
memory is read. The first round fills buffers and is not counted; single rounds scatter widely, so their mean is told.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Annotated

import ray
import typer
from rich.console import Console


@ray.remote(num_cpus=0)
class Echo:
    """Answers with what it is given."""

    def echo(self, data: bytes) -> bytes:
        """The same bytes."""
        return data


@ray.remote(num_cpus=0)
class Caller:
    """Makes the calls, and knows its own memory."""

    async def call(self, other: ray.actor.ActorHandle, count: int) -> int:
        """`count` calls, one after the other; returns this process's private bytes."""
        for _ in range(count):
            await other.echo.remote(b"x" * 200)
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def main(
    calls: Annotated[int, typer.Option(min=100, help="per round")] = 15_000,
    rounds: Annotated[int, typer.Option(min=2)] = 4,
) -> None:
    """Run it."""
    console = Console(soft_wrap=True)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        caller, echo = Caller.remote(), Echo.remote()
        held = [ray.get(caller.call.remote(echo, calls)) for _ in range(rounds)]
    finally:
        ray.shutdown()
    each = [(after - before) / calls for before, after in pairwise(held)]
    console.print(f"mean {fmean(each):.0f} bytes kept per call")
    console.print(f"bytes kept per call, round by round after the first: {', '.join(f'{kept:.0f}' for kept in each)}")


if __name__ == "__main__":
    typer.run(main)
