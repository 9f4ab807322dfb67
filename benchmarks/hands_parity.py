"""Our MediaPipe Hands against MediaPipe's own: do they find the same hands, and at what cost per frame?

In: the reference pictures and outputs in the shared data folder beside the repository, and one of its clips.
Out: a table. Run: `python -m benchmarks.hands_parity [--mediapipe-python PYTHON]`, where PYTHON is an
interpreter that has mediapipe==0.10.21 (it needs Python ≤ 3.12 and numpy < 2, hence its own environment);
with it, the peer is timed in the same run on the same frames and the ratio printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from actors.hand_finder import HandFinder, Variant
from actors.messages import Hand
from benchmarks.paired import Fact
from models import weights

SHARED = Path(__file__).resolve().parents[2] / "shared"
CLIP, CLIP_FRAMES = "blocks.mp4", 120  # two hands sorting blocks, 1280×720
VARIANTS: tuple[Variant, ...] = ("full", "lite")

# Run by the peer's interpreter: median milliseconds per frame, static and following.
PEER = """
import sys, time, numpy, mediapipe
frames = numpy.load(sys.argv[1])
for static in (True, False):
    settings = dict(static_image_mode=static, max_num_hands=2, model_complexity=int(sys.argv[2]))
    with mediapipe.solutions.hands.Hands(**settings) as hands:
        times = []
        for frame in frames:
            start = time.perf_counter()
            hands.process(frame)
            times.append(time.perf_counter() - start)
        print(numpy.median(times) * 1e3)
"""


def main() -> None:
    """Print agreement and cost for both variants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mediapipe-python", type=Path, help="interpreter with mediapipe==0.10.21")
    peer = parser.parse_args().mediapipe_python
    console = Console()
    if not SHARED.is_dir():
        console.print(f"nothing to compare with: the reference data is not in {SHARED}")
        return
    frames = clip_frames()
    table = Table(title=f"hands: {len(frames)} frames of {CLIP}, 1 thread")
    table.add_column("")
    columns = [agreement(variant) | cost(variant, frames, peer) for variant in VARIANTS]
    for variant in VARIANTS:
        table.add_column(variant, justify="right")
    for row in columns[0]:
        table.add_row(row, *(column[row] for column in columns))
    console.print(table)


def comparisons() -> Iterator[Fact]:
    """Agreement of the default variant; none without the reference data."""
    if SHARED.is_dir():
        found = agreement("full")
        pictures, sides = found["pictures with a hand: found / reference"], found["same side"]
        apart = found["landmark distance, mean, % of the hand's box diagonal"]
        told = (
            f"pictures with a hand {pictures}, sides {sides}, {found["hands beyond the reference's"]} hands more, "
            f"landmarks {apart} % of the box diagonal apart"
        )
        yield Fact("hands against MediaPipe's own outputs", told, "python -m benchmarks.hands_parity")


def agreement(variant: Variant) -> dict[str, str]:
    """What is found in the reference pictures, beside what MediaPipe 0.10.21 found."""
    folder = SHARED / "data" / "hands"
    reference = json.loads((folder / f"mediapipe_{variant}.json").read_text())
    finder = ready(variant)
    hit = with_hands = invented = same_side = 0
    distances: list[float] = []
    for name, expected in reference.items():
        image = np.asarray(cv2.imread(str(folder / "frames" / name)))[:, :, ::-1]
        found = finder.find(image)
        with_hands += bool(expected["hands"])
        hit += bool(expected["hands"]) and bool(found)
        invented += max(0, len(found) - len(expected["hands"]))
        for other in expected["hands"] if found else []:
            points = np.array(other["landmarks"])[:, :2] * (image.shape[1], image.shape[0])
            hand, distance = nearest(found, points)
            distances.append(distance)
            # MediaPipe labels as if the picture were mirrored.
            same_side += hand.side == {"Left": "right", "Right": "left"}[other["handedness"]]
    return {
        "pictures with a hand: found / reference": f"{hit} / {with_hands}",
        "hands beyond the reference's": str(invented),
        "landmark distance, mean, % of the hand's box diagonal": f"{np.mean(distances):.4f}",
        "landmark distance, largest": f"{np.max(distances):.4f}",
        "same side": f"{same_side} / {len(distances)}",
    }


def nearest(hands: list[Hand], points_px: np.ndarray) -> tuple[Hand, float]:
    """The hand closest to 21 points, and its mean landmark distance in % of their box's diagonal."""
    diagonal = np.linalg.norm(np.ptp(points_px, axis=0))
    apart = [np.linalg.norm(hand.landmarks_px[:, :2] - points_px, axis=1).mean() for hand in hands]
    best = int(np.argmin(apart))
    return hands[best], float(apart[best] / diagonal * 100)


def cost(variant: Variant, frames: np.ndarray, peer: Path | None) -> dict[str, str]:
    """Milliseconds per frame, and the ratio to MediaPipe's own when its interpreter is given."""
    finder = ready(variant)
    ours = [per_frame_ms(finder.find, frames), per_frame_ms(finder.open_stream().next, frames)]
    names = ("every picture anew, ms per frame", "following a stream, ms per frame")
    rows = {name: f"{value:.1f}" for name, value in zip(names, ours, strict=True)}
    if peer is not None:
        for name, value, theirs in zip(names, ours, peer_ms(peer, variant, frames), strict=True):
            rows[name.replace("ms per frame", "MediaPipe's own")] = f"{theirs:.1f}"
            rows[name.replace("ms per frame", "ours ÷ MediaPipe's")] = f"{value / theirs:.2f}"
    return rows


def per_frame_ms(work: Callable[[np.ndarray], list[Hand]], frames: np.ndarray) -> float:
    """Median wall time of `work`: a machine that is busy for a moment does not change it."""
    times = []
    for frame in frames:
        start = time.perf_counter()
        work(frame)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def peer_ms(python: Path, variant: Variant, frames: np.ndarray) -> list[float]:
    """MediaPipe's own milliseconds per frame on the same frames: static, following."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frames.npy"
        np.save(file, frames)
        command = [str(python), "-c", PEER, str(file), {"full": "1", "lite": "0"}[variant]]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def ready(variant: Variant) -> HandFinder:
    """A warm finder on one thread."""
    finder = HandFinder(variant)
    weights.fetch(finder.weight_names)
    finder.warm_up()
    return finder


def clip_frames() -> np.ndarray:
    """The clip's first frames: (CLIP_FRAMES, 720, 1280, 3) uint8 RGB."""
    video = cv2.VideoCapture(str(SHARED / "data" / "videos" / CLIP))
    return np.stack([video.read()[1][:, :, ::-1] for _ in range(CLIP_FRAMES)])


if __name__ == "__main__":
    main()
