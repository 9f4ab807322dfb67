"""Time from a frame to an action: perception and policy in this process, beside the same policy behind a websocket.

    python -m benchmarks.robot_decide --snapshot 1200000_snapshot.pt [--segmenter best.ckpt] [--frames 100]

Without --segmenter the class ids come with the frame (simulator). The server runs in a second process on this machine.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from actors.so101_policy import So101Policy
from actors.so101_segmenter import So101Segmenter
from robot import wire
from robot.client import RemotePolicy
from robot.contract import PolicyOffer, load_contract
from robot.networks import NetworkPerception, NetworkPolicy
from robot.observation import ObservationPipeline
from robot.policies import Policy
from robot.records import Frame, Joints, Observation


def serve(snapshot: Path, ports: Any) -> None:
    """A policy server of one connection at a time."""
    from websockets.sync.server import ServerConnection
    from websockets.sync.server import serve as serve_websocket

    actor = So101Policy(snapshot)
    actor.load()
    actor.warm_up()

    def handle(connection: ServerConnection) -> None:
        for data in connection:
            message = wire.unpack(data)
            if message["type"] == "hello":
                offer = dataclasses.asdict(PolicyOffer(**actor.describe()))
                connection.send(wire.pack({"type": "offer", "offer": offer}))
            elif message["type"] == "decide":
                action = actor.act(message["image"].astype(np.float32), message["low_dim"])
                connection.send(wire.pack({"type": "action", "id": message["id"], "action": action}))

    with serve_websocket(handle, "127.0.0.1", 0, compression=None) as server:
        ports.put(server.socket.getsockname()[1])
        server.serve_forever()


def scenes(count: int) -> list[Observation]:
    """Frames of noise with planes; the networks' time does not depend on what is seen."""
    rng = np.random.default_rng(0)
    joints = Joints(np.zeros(6), np.zeros(6), 1)
    size = (480, 640)
    return [
        Observation(
            joints,
            Frame(
                rng.integers(0, 255, (*size, 3), np.uint8),
                1,
                rng.uniform(0.05, 0.4, size).astype(np.float32),
                rng.integers(0, 6, size).astype(np.uint8),
            ),
        )
        for _ in range(count)
    ]


def milliseconds(work: Callable[[Observation], Any], frames: list[Observation], count: int) -> np.ndarray:
    """Time of each call after five to warm up."""
    times = []
    for index in range(count + 5):
        started = time.perf_counter()
        work(frames[index % len(frames)])
        times.append((time.perf_counter() - started) * 1e3)
    return np.array(times[5:])


def main(
    snapshot: Annotated[Path | None, typer.Option(help="*_snapshot.pt")] = None,
    segmenter: Annotated[Path | None, typer.Option(help="best.ckpt")] = None,
    frames: Annotated[int, typer.Option(help="how many to time")] = 100,
) -> None:
    """Time the parts and both roads."""
    if snapshot is None:
        Console().print("give a policy checkpoint with --snapshot; none ships with this version")
        return
    contract = load_contract("pick101_v19")
    network = None
    if segmenter is not None:
        network = So101Segmenter(segmenter)
        network.load()
    actor = So101Policy(snapshot)
    actor.load()
    local = NetworkPolicy(actor)
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    server = context.Process(target=serve, args=(snapshot, ports), daemon=True)
    server.start()
    remote = RemotePolicy(f"ws://127.0.0.1:{ports.get(timeout=120)}", contract, deadline_s=5.0)
    remote.offer()
    seen = scenes(8)

    def road(policy: Policy) -> Callable[[Observation], Any]:
        pipeline = ObservationPipeline(contract, NetworkPerception(network, None, 1e-3))
        return lambda observation: policy.decide(pipeline.push(observation)[0])

    pipeline = ObservationPipeline(contract, NetworkPerception(network, None, 1e-3))
    rows = {
        "perception and pipeline": milliseconds(lambda observation: pipeline.push(observation), seen, frames),
        "frame to action, in process": milliseconds(road(local), seen, frames),
        "frame to action, policy served": milliseconds(road(remote), seen, frames),
    }
    server.terminate()
    table = Table("part", "p50 ms", "p99 ms", title=f"{frames} frames of 640×480, one torch thread")
    for name, times in rows.items():
        table.add_row(name, f"{np.percentile(times, 50):.2f}", f"{np.percentile(times, 99):.2f}")
    console = Console()
    console.print(table)
    here, served = (np.median(rows[name]) for name in list(rows)[1:])
    console.print(f"the wire costs {served - here:.2f} ms a frame; served takes {served / here:.2f} times as long")


if __name__ == "__main__":
    typer.run(main)
