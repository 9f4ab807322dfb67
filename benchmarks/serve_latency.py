"""What the service adds to a frame and to a decision, beside calling the worker directly and a plain websocket server.

    python -m benchmarks.serve_latency [--frames 400]

Same machine, same run, same JPEGs, same dummy tracker (it decodes, looks at colours, answers) and the same zero policy;
the ways take turns frame by frame, so that a busy moment meets all of them. `plain` is a websocket server of fifty
lines that does nothing else; `lerobot` is LeRobot's PolicyServer (serve_lerobot.py). Numbers are round trips in
milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

import numpy as np
import ray
import typer
from ray import serve as ray_serve
from rich.console import Console
from rich.table import Table

import serve
from benchmarks.paired import Comparison, blocks
from benchmarks.serve_lerobot import policy_server
from robot import wire
from robot.client import RemotePolicy
from robot.contract import load_contract
from robot.records import Joints, Observation, PolicyInput
from robot.tracking_client import TrackClient, add_target
from serve.backend import Backend
from serve.settings import Limits, TrackingSettings
from serve.tracking import TrackingHost
from tests.serve import colour, scene
from tests.serve.running import free_port, start_ray

SERVER = {"models": {}, "tracking": {"backend": "tests.serve.colour:backend"}}
TARGET = "0123456789abcdef"
Spans = dict[str, np.ndarray]


class Nowhere:
    """States that nobody keeps: the direct ways have no failover."""

    def get(self, session: str) -> bytes | None:
        """Nothing."""
        return None

    def tell(self, method: str, *args: Any) -> None:
        """Nothing."""


def worker() -> TrackingHost:
    """The tracker with one session, as every way uses it."""
    made: Backend = colour.backend()
    rgb, mask = scene.template()
    bank = made.bank_from_views("disc", [colour_view(rgb, mask)], lambda done, of: None)
    host = TrackingHost(TrackingSettings(), Limits(), lambda: made, Nowhere(), lambda target: ("disc", bank))
    host.open("session", [TARGET])
    return host


def colour_view(rgb: np.ndarray, mask: np.ndarray) -> Any:
    """One template."""
    from serve.uploads import View

    return View(rgb, mask > 0)


class DirectActor:
    """The worker as a bare Ray actor."""

    def __init__(self) -> None:
        self._host = worker()

    def step(self, jpeg: bytes, captured_ns: int) -> Any:
        """One frame."""
        return self._host.step("session", jpeg, captured_ns, "rle")

    def decide(self, image: np.ndarray, low_dim: np.ndarray) -> np.ndarray:
        """The zero action."""
        return np.zeros(4, np.float32)


def plain(ports: Any) -> None:
    """A websocket server and nothing else."""
    from websockets.sync.server import ServerConnection
    from websockets.sync.server import serve as serve_websocket

    host = worker()

    def handle(connection: ServerConnection) -> None:
        for data in connection:
            message = wire.unpack(data, 1 << 24)
            if message["type"] == "frame":
                answer = host.step("session", message["jpeg"], message["captured_ns"], "rle")
            else:
                answer = {"action": np.zeros(4, np.float32)}
            connection.send(wire.pack({"type": "answer", "answer": answer}))

    with serve_websocket(handle, "127.0.0.1", 0, compression=None) as server:
        ports.put(server.socket.getsockname()[1])
        server.serve_forever()


@contextmanager
def plain_server() -> Iterator[Callable[[dict[str, Any]], Any]]:
    """A call to the plain server, in a process of its own."""
    from websockets.sync.client import connect

    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    process = context.Process(target=plain, args=(ports,), daemon=True)
    process.start()
    with connect(f"ws://127.0.0.1:{ports.get(timeout=120)}", compression=None) as socket:

        def ask(message: dict[str, Any]) -> Any:
            socket.send(wire.pack(message))
            return wire.unpack(socket.recv(timeout=30), 1 << 24)["answer"]

        yield ask
    process.terminate()


def take_turns(ways: dict[str, Callable[[int], Any]], count: int) -> Spans:
    """Round trips in ms per way, one frame each in turn; the first tenth is warm-up and not counted."""
    spans: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(count + count // 10):
        for name, way in ways.items():
            begun_s = time.perf_counter()
            way(index)
            spans[name].append((time.perf_counter() - begun_s) * 1e3)
    return {name: np.array(values[-count:]) for name, values in spans.items()}


def show(console: Console, title: str, spans: Spans, base: str) -> None:
    """One table; `added` is against `base`."""
    table = Table(title=title)
    for column in ("way", "p50 ms", "p99 ms", f"added to {base}, p50", "p99"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, values in spans.items():
        p50, p99 = np.percentile(values, [50, 99])
        less50, less99 = np.percentile(spans[base], [50, 99])
        table.add_row(name, f"{p50:.2f}", f"{p99:.2f}", f"{p50 - less50:+.2f}", f"{p99 - less99:+.2f}")
    console.print(table)


def started(stack: ExitStack, settings: dict[str, Any]) -> str:
    """The service on a cluster that the bare actor shares; host and port."""
    port = free_port()
    start_ray()
    stack.callback(ray.shutdown)
    ray_serve.start(http_options={"host": "127.0.0.1", "port": port})
    stack.callback(ray_serve.shutdown)
    ray_serve.run(serve.app(settings), name="reafference", route_prefix="/")
    return f"127.0.0.1:{port}"


def measure(frames: int) -> tuple[Spans, Spans]:
    """Round trips in ms by way: of frames through the tracker, of observations through the policy."""
    jpegs = [scene.jpeg(scene.frame(index)) for index in range(50)]
    contract = load_contract("pick101_v19")
    image, low_dim = np.zeros((3, 2, 84, 84), np.float32), np.zeros((3, 18), np.float32)
    given = PolicyInput(image, low_dim, Observation(Joints(np.zeros(6), np.zeros(6), 1), None))
    bytes_ = image.astype(np.uint8)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        address = started(stack, {**SERVER, "targets_dir": f"{folder}/targets"})
        target = add_target(f"http://{address}", "disc", scene.archive())
        client = stack.enter_context(TrackClient(f"ws://{address}/v1/track", [target], 30.0))
        actor: Any = ray.remote(DirectActor).remote()
        ask = stack.enter_context(plain_server())
        tracked = take_turns(
            {
                "actor": lambda i: ray.get(actor.step.remote(jpegs[i % 50], i)),
                "plain": lambda i: ask({"type": "frame", "jpeg": jpegs[i % 50], "captured_ns": i}),
                "service": lambda i: client.track(jpegs[i % 50], i),
            },
            frames,
        )
        lerobot = stack.enter_context(policy_server())
        # Only now: the service ends connections that say nothing for a while.
        policy = RemotePolicy(f"ws://{address}/v1/policy", contract, 30.0)
        policy.offer()
        decided = take_turns(
            {
                "actor": lambda i: ray.get(actor.decide.remote(bytes_, low_dim)),
                "plain": lambda i: ask({"type": "decide", "image": bytes_, "low_dim": low_dim}),
                "lerobot": lerobot,
                "service": lambda i: policy.decide(given),
            },
            frames,
        )
        policy.close()
    return tracked, decided


def comparisons() -> Iterator[Comparison]:
    """Medians of five stretches of one run."""
    tracked, decided = measure(400)
    command = "python -m benchmarks serve"
    for what, spans, peers in (
        ("a frame through the service", tracked, {"actor": "bare Ray actor", "plain": "plain websocket server"}),
        ("a decision of the service", decided, {"actor": "bare Ray actor", "lerobot": "LeRobot's PolicyServer"}),
    ):
        ours = blocks(spans["service"], np.median)
        for key, peer in peers.items():
            yield Comparison(what, peer, "ms", "less", ours, blocks(spans[key], np.median), command)


def main(frames: Annotated[int, typer.Option(help="per way", min=20)] = 400) -> None:
    """Run it."""
    tracked, decided = measure(frames)
    console = Console()
    console.print(f"{frames} frames of {len(scene.jpeg(scene.frame(0))) / 1024:.0f} KiB each")
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    show(console, "a frame through the tracker", tracked, "actor")
    show(console, "an observation through the policy", decided, "actor")


if __name__ == "__main__":
    typer.run(main)
