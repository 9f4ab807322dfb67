"""Time from a frame to an action: perception and policy in this process, beside the same policy behind a websocket.

    python -m benchmarks.robot_decide [--snapshot … --segmenter … --contract …] [--frames 100] [--url ws://…]

The shipped networks unless others are named. Depth comes with the frame. The server is a bare websocket in a second
process on this machine, or, with --url, one that runs already with the same policy (`serve`:
ws://127.0.0.1:8000/v1/policy). Beside the wall clock stands the thread's own processor time, which a busy machine
disturbs less. benchmarks/skills.py takes the road in process from here.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from actors.so101_policy import So101Policy
from actors.so101_segmenter import So101Segmenter
from models.shipped import SO101_POLICY, SO101_SEGMENTER
from models.so101_seg import load_checkpoint, normalise
from robot import wire
from robot.client import RemotePolicy
from robot.contract import PolicyContract, PolicyOffer, load_contract
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
                connection.send(wire.pack({"type": "actions", "id": message["id"], "actions": action[None]}))

    with serve_websocket(handle, "127.0.0.1", 0, compression=None) as server:
        ports.put(server.socket.getsockname()[1])
        server.serve_forever()


def scenes(count: int, size: tuple[int, int] = (480, 640)) -> list[Observation]:
    """Frames of noise with planes, (height, width); the networks' time does not depend on what is seen."""
    rng = np.random.default_rng(0)
    joints = Joints(np.zeros(6), np.zeros(6), 1)
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
    """(count, 2): wall and processor time of each call after five to warm up."""
    times = []
    for index in range(count + 5):
        started, worked = time.perf_counter(), time.thread_time()
        work(frames[index % len(frames)])
        times.append((time.perf_counter() - started, time.thread_time() - worked))
    return np.array(times[5:]) * 1e3


def as_trained(path: Path, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """The segmenter's network as it was trained, with an arg-max over all planes."""
    trained = load_checkpoint(path).network.to(device)

    @torch.inference_mode()
    def plain(rgb: np.ndarray) -> np.ndarray:
        batch = torch.tensor(rgb, device=device).permute(2, 0, 1)[None]
        return trained(normalise(batch))[0].argmax(0).to(torch.uint8).cpu().numpy()

    return plain


def segmentation(path: Path, network: So101Segmenter) -> dict[str, Callable[[Observation], Any]]:
    """The network as it was trained, and as the actor runs it."""
    trained = as_trained(path)

    def plain(observation: Observation) -> np.ndarray:
        assert observation.frame is not None
        return trained(observation.frame.rgb)

    def folded(observation: Observation) -> np.ndarray:
        assert observation.frame is not None
        return network.segment(observation.frame.rgb)

    return {"segmentation, network as trained": plain, "segmentation, as the actor runs it": folded}


def road(contract: PolicyContract, network: So101Segmenter, policy: Policy) -> Callable[[Observation], Any]:
    """Frame to action: segmentation, pipeline, policy."""
    pipeline = ObservationPipeline(contract, NetworkPerception(network, None, 1e-3))
    return lambda observation: policy.decide(pipeline.push(observation)[0])


def loaded(snapshot: Path, segmenter: Path) -> tuple[NetworkPolicy, So101Segmenter]:
    """Both networks, in this process."""
    actor, network = So101Policy(snapshot), So101Segmenter(segmenter)
    actor.load()
    network.load()
    return NetworkPolicy(actor), network


def main(
    snapshot: Annotated[Path, typer.Option(help="*_snapshot.pt, or shipped weights")] = SO101_POLICY,
    segmenter: Annotated[Path, typer.Option(help="best.ckpt, or shipped weights")] = SO101_SEGMENTER,
    contract: Annotated[str, typer.Option(help="configs/contracts/NAME")] = "so101_lift",
    frames: Annotated[int, typer.Option(help="how many to time")] = 100,
    url: Annotated[str, typer.Option(help="a running policy server, instead of one of this benchmark")] = "",
) -> None:
    """Time the parts and both roads."""
    terms = load_contract(contract)
    local, network = loaded(snapshot, segmenter)
    server = None
    if not url:
        context = multiprocessing.get_context("spawn")
        ports = context.Queue()
        server = context.Process(target=serve, args=(snapshot, ports), daemon=True)
        server.start()
        url = f"ws://127.0.0.1:{ports.get(timeout=120)}"
    remote = RemotePolicy(url, terms, deadline_s=5.0)
    remote.offer()
    seen = scenes(8)
    pipeline = ObservationPipeline(terms, NetworkPerception(network, None, 1e-3))
    roads = {
        "perception and pipeline": pipeline.push,
        "frame to action, in process": road(terms, network, local),
        "frame to action, policy served": road(terms, network, remote),
        **segmentation(segmenter, network),
    }
    rows = {name: milliseconds(work, seen, frames) for name, work in roads.items()}
    if server is not None:
        server.terminate()
    _tell(rows, frames)


def _tell(rows: dict[str, np.ndarray], frames: int) -> None:
    table = Table("part", "p50 ms", "p99 ms", "processor p50", title=f"{frames} frames of 640×480, one torch thread")
    for name, times in rows.items():
        cells = (*np.percentile(times[:, 0], (50, 99)), np.median(times[:, 1]))
        table.add_row(name, *(f"{cell:.2f}" for cell in cells))
    console = Console()
    console.print(table)
    wall = {name: np.median(times[:, 0]) for name, times in rows.items()}
    here, served = wall["frame to action, in process"], wall["frame to action, policy served"]
    console.print(f"the wire costs {served - here:.2f} ms a frame; served takes {served / here:.2f} times as long")
    trained, ours = (np.median(times[:, 1]) for times in list(rows.values())[3:])
    console.print(f"the actor's segmentation takes {ours / trained:.2f} of the processor time of the plain network")


if __name__ == "__main__":
    typer.run(main)
