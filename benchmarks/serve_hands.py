"""How long a hand camera's picture takes to become robot joints, through the running service and without it.

    python -m benchmarks.serve_hands VIDEO [--frames 200]

The same JPEGs (640 pixels wide) go by turns through `WS /v1/hands` of a real service and to the same actor class called
directly in a process of its own kind. Numbers are round trips in milliseconds, decoding, both networks and the solver
included; what the service adds is the difference. Loads of the machine are printed beside.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np
import yaml
from websockets.sync.client import connect

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from actors.hand_follower import HandFollower
from actors.hand_records import HandRig
from robot import wire
from tests.serve.running import Service

ROOT = Path(__file__).resolve().parents[1]
WIDTH_PX, STEP_NS = 640, 33_000_000
# A camera a metre above the table, half a metre in front of the robot, looking down; what its pictures are taken for.
ABOVE = [0.0, -1.0, 0.0, 0.45, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
INTRINSICS = [600.0, 600.0, 320.0, 180.0]
WARM = 10


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


def main() -> None:
    """Both ways by turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=200)
    options = parser.parse_args()
    pictures = jpegs(options.video, options.frames + WARM)
    config = yaml.safe_load((ROOT / "configs" / "serve_hands.yaml").read_text())
    hands = config["applications"][0]["args"]["models"]["hands"]
    direct = HandFollower(**hands["arguments"])
    direct.load()
    rig, state = HandRig("right", "ur5e", tuple(INTRINSICS), tuple(ABOVE)), None
    with tempfile.TemporaryDirectory() as folder:
        settings = {"models": {"hands": hands}, "tracking": {"backend": "tests.serve.colour:backend"}}
        service = Service(folder, {**settings, "targets_dir": f"{folder}/targets"})
        try:
            service.wait()
            ways: dict[str, list[float]] = {"service": [], "direct": []}
            stages: dict[str, list[float]] = {}
            seen = 0
            with connect(f"{service.ws}/v1/hands", compression=None, max_size=None) as socket:
                hello = {"type": "hello", "protocol": 1, "side": "right", "arm": "ur5e", "intrinsics": INTRINSICS,
                         "base_from_camera": ABOVE}  # fmt: skip
                socket.send(wire.pack(hello))
                wire.unpack(socket.recv())
                for number, jpeg in enumerate(pictures):
                    at_ns = (number + 1) * STEP_NS
                    begun = time.perf_counter()
                    message = {"type": "frame", "id": number, "captured_ns": at_ns, "seen": number - 1, "jpeg": jpeg}
                    socket.send(wire.pack(message))
                    told = wire.unpack(socket.recv())
                    through = time.perf_counter()
                    command, state = direct.follow(jpeg, at_ns, rig, state)
                    done = time.perf_counter()
                    assert np.array_equal(told["hand_rad"], command.hand_rad), "both ways give the same joints"
                    if number < WARM:
                        continue
                    ways["service"].append(1e3 * (through - begun))
                    ways["direct"].append(1e3 * (done - through))
                    seen += told["seen"]
                    for stage, spent in told["ms"].items():
                        stages.setdefault(stage, []).append(spent)
        finally:
            service.stop()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    sys.stdout.write(
        f"{len(ways['service'])} pictures, a right hand in {seen}; load {load} on {os.cpu_count()} cores\n\n"
    )
    sys.stdout.write("| way | median, ms | p95 | p99 |\n|---|---|---|---|\n")
    for name, values in (*ways.items(), *((f"in the service: {stage}", spent) for stage, spent in stages.items())):
        sys.stdout.write(row(name, values))


if __name__ == "__main__":
    main()
