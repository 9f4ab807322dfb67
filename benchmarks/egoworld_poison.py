"""What poison costs: the same run with 1 % of its clips bad in each way, and without; prints a Markdown table.

    python -m benchmarks.egoworld_poison --clips 2000 --healthy-ms 10 --share 0.01

Both runs use Ray and the fault-injecting operator of the tests. The arithmetic under the table says where the added
time goes: a fault costs its attempts × what each one takes, spread over the workers.
"""

import argparse
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

from tests.e2e.egoworld import letters, start, stub_config
from tests.faults.operator import CAUSE_OF, FAULTS, Params, fault_of
from tests.faults.videos import write_video

FRAMES_PER_CLIP = 10


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--healthy-ms", type=float, default=10.0)
    parser.add_argument("--share", type=float, default=0.01, help="of each fault")
    parser.add_argument("--timeout-s", type=float, default=2.0)
    parser.add_argument("--faults", default=",".join(FAULTS))
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(4):
            frames = arguments.clips // 4 * FRAMES_PER_CLIP
            write_video(folder / "videos" / f"{number}.mp4", frames, seed=number)
        clean_s, _ = measure(folder, "clean", {}, arguments)
        share = dict.fromkeys(arguments.faults.split(","), arguments.share)
        poisoned_s, counts = measure(folder, "poisoned", share, arguments)
    console.print("| clips | healthy clip | clean | poisoned | added | dead letters |\n|---|---|---|---|---|---|")
    console.print(
        f"| {arguments.clips} | {arguments.healthy_ms:g} ms | {clean_s:.1f} s | {poisoned_s:.1f} s "
        f"| {poisoned_s / clean_s - 1:+.1%} | {dict(counts)} |"
    )


def measure(folder: Path, name: str, share: dict[str, float], arguments: argparse.Namespace) -> tuple[float, Counter]:
    """Seconds of one whole run, start of Ray included, and its dead letters by fault; checks every one of them."""
    place = folder / name
    place.mkdir()
    # Slow clips must still be healthy ones: well within the time-out, on a busy machine too.
    slow_ms = min(arguments.healthy_ms * 20, arguments.timeout_s * 1000 / 3)
    params = {"share_of": share, "healthy_ms": arguments.healthy_ms, "slow_ms": slow_ms}
    config = stub_config(place, memory_gib=0.75, timeout_s=arguments.timeout_s, **params)
    command = ("--input", folder / "videos", "--config", config, "--output", place, "--run-id", "r")
    begun = time.monotonic()
    process = start("run", *command, "--engine", "ray")
    text, _ = process.communicate()
    seconds = time.monotonic() - begun
    if process.returncode != 0 or not re.search(r"tree sha256 [0-9a-f]{64}", text):
        raise SystemExit(text)
    return seconds, checked(place / "run_id=r", Params(**params))


def checked(run: Path, params: Params) -> Counter:
    """Dead letters by fault; SystemExit if one is missing, unjust or wrong about its cause."""
    counts: Counter = Counter()
    for letter in letters(run):
        fault = fault_of(letter["clip_id"], params)
        if fault is None or letter["cause"] != CAUSE_OF[fault] or letter["attempts"] > 3:
            raise SystemExit(f"unjust dead letter ({fault}): {letter}")
        counts[fault] += 1
    done = [path.name.partition("=")[2] for path in run.glob("video_id=*/clip_id=*")]
    if escaped := [clip for clip in done if CAUSE_OF.get(fault_of(clip, params) or "slow") is not None]:
        raise SystemExit(f"published although poisoned: {escaped}")
    return counts


if __name__ == "__main__":
    main()
