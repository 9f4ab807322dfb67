"""How long a hand camera's picture takes to become robot joints, through the running service and without it.

    python -m benchmarks.serve_hands VIDEO [--frames 200] [--without-ray]

The same JPEGs (640 pixels wide) by turns: to the follower itself, through the websocket route in one process, and
through a real service, where the follower is an actor of its own. Numbers are round trips in milliseconds, decoding,
both networks and the solver for hand and arm included. The machine's load is printed beside.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import uvicorn
import yaml
from websockets.sync.client import ClientConnection, connect

from actors.hand_follower import HandFollower
from actors.hand_records import HandRig
from robot import wire
from serve.gateway import Services, build_api
from serve.metrics import Metrics
from serve.settings import Settings, settings_of
from tests.serve.running import Service, free_port

ROOT = Path(__file__).resolve().parents[1]
WIDTH_PX, STEP_NS = 640, 33_000_000
# A camera a metre above the table, half a metre in front of the robot, looking down; what its pictures are taken for.
ABOVE = [0.0, -1.0, 0.0, 0.45, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
INTRINSICS = [600.0, 600.0, 320.0, 180.0]
WARM = 10
HELLO = {"type": "hello", "protocol": 1, "side": "right", "arm": "ur5e", "intrinsics": INTRINSICS,
         "base_from_camera": ABOVE}  # fmt: skip


def jpegs(video: Path, frames: int) -> list[bytes]:
    """The first frames, as a camera's client would send them."""
    found = []
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format="bgr24")
            image = cv2.resize(image, (WIDTH_PX, round(image.shape[0] * WIDTH_PX / image.shape[1])))
            found.append(cv2.imencode(".jpg", image)[1].tobytes())
            if len(found) == frames:
                break
    return found


def row(name: str, values_ms: list[float]) -> str:
    """Percentiles of one way."""
    cells = (f"{np.percentile(values_ms, share):.1f}" for share in (50, 95, 99))
    return f"| {name} | {' | '.join(cells)} |\n"


async def nobody(method: str, *args: Any) -> Any:
    """The rest of the service, which is not asked here."""
    raise NotImplementedError(method)


@contextmanager
def one_process(follower: HandFollower, settings: Settings) -> Iterator[str]:
    """The service's routes with the follower behind them, in a thread of this process, without Ray: its address."""

    async def ask(method: str, *args: Any) -> Any:
        return await asyncio.to_thread(getattr(follower, method), *args)

    services = Services(settings, None, nobody, nobody, ask, nobody, nobody, Metrics())
    config = uvicorn.Config(build_api(services), port=(port := free_port()), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"ws://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@contextmanager
def ray_service(arguments: dict[str, Any]) -> Iterator[str]:
    """A whole service with Ray Serve and the follower as its actor: its address."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"models": arguments, "tracking": {"backend": "tests.serve.colour:backend"}}
        service = Service(folder, {**settings, "targets_dir": f"{folder}/targets"})
        try:
            yield service.wait().ws
        finally:
            service.stop()


def asked(socket: ClientConnection, number: int, jpeg: bytes) -> dict[str, Any]:
    """The answer to one picture."""
    message = {"type": "frame", "id": number, "captured_ns": (number + 1) * STEP_NS, "seen": number - 1, "jpeg": jpeg}
    socket.send(wire.pack(message))
    return wire.unpack(socket.recv())


def main() -> None:
    """All ways by turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--without-ray", action="store_true", help="leave out the way through Ray Serve")
    options = parser.parse_args()
    pictures = jpegs(options.video, options.frames + WARM)
    config = yaml.safe_load((ROOT / "configs" / "serve_hands.yaml").read_text())
    settings = settings_of(config["applications"][0]["args"])
    direct = HandFollower(**settings.models["hands"].arguments)
    direct.load()
    rig, state = HandRig("right", "ur5e", tuple(INTRINSICS), tuple(ABOVE)), None
    ms: dict[str, list[float]] = defaultdict(list)
    seen = 0
    with ExitStack() as stack:
        ways = {"routes without Ray": stack.enter_context(one_process(direct, settings))}
        if not options.without_ray:
            hands = {"hands": settings.models["hands"].model_dump()}
            ways["service"] = stack.enter_context(ray_service(hands))
        sockets = {}
        for name, address in ways.items():
            sockets[name] = stack.enter_context(connect(f"{address}/v1/hands", compression=None, max_size=None))
            sockets[name].send(wire.pack(HELLO))
            wire.unpack(sockets[name].recv())
        for number, jpeg in enumerate(pictures):
            begun = time.perf_counter()
            command, state = direct.follow(jpeg, (number + 1) * STEP_NS, rig, state)
            spent = {"direct": time.perf_counter() - begun}
            for name, socket in sockets.items():
                begun = time.perf_counter()
                told = asked(socket, number, jpeg)
                spent[name] = time.perf_counter() - begun
                assert np.array_equal(told["hand_rad"], command.hand_rad), "every way gives the same joints"
            if number >= WARM:
                seen += command.seen
                stages = {f"of which {stage}": value / 1e3 for stage, value in command.ms.items()}
                for name, seconds in {**spent, **stages}.items():
                    ms[name].append(1e3 * seconds)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    told = f"{options.frames} pictures, a right hand in {seen}; load {load} on {os.cpu_count()} cores"
    sys.stdout.write(f"{told}\n\n| way | median, ms | p95 | p99 |\n|---|---|---|---|\n")
    for name, values in ms.items():
        sys.stdout.write(row(name, values))


if __name__ == "__main__":
    main()
