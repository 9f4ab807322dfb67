"""What becomes of clips when drivers are killed and clips are bad: plain Ray Data, with its checkpoints, and egoworld.

Run: python -m benchmarks.egoworld_vs_ray_data [--clips 200] [--kills 2] [--patience-s 60]; prints two Markdown tables.
All systems get the same clips, the same operator (tests/faults/operator.py, 10 ms and ten rows a clip) and the same
schedule: the driver is SIGKILLed each time another share of the clips lies in its output, then started again on the
same output until it ends by itself. Rows are counted per clip against what the clip must give.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from data_jobs.egoworld.config import EgoworldConfig
from data_jobs.egoworld.manifest import build_manifest, clip_from_row
from tests.e2e.egoworld import letters, stub_config
from tests.faults.operator import FaultyHands, Params
from tests.faults.videos import write_video

ROOT = Path(__file__).resolve().parents[1]
OUT = Console(highlight=False, soft_wrap=True)
FRAMES_PER_CLIP = 10
CLIPS_PER_BLOCK = 8  # small enough that output appears while a run goes on
WORKERS = 2
START_S = 300.0  # no clip for this long after a start counts as never starting; Ray takes a minute on a loaded machine

# How a user of Ray Data writes it; the first word says where the list of clips comes from.
PEERS = {
    "parquet": "Ray Data: read_parquet, map_batches, write_parquet",
    "parquet-checkpoint": "the same with CheckpointConfig",
    "items-checkpoint": "from_items, map_batches, write_parquet with CheckpointConfig",
    "overwrite-checkpoint": "read_parquet …, mode=OVERWRITE, with CheckpointConfig",
}


@dataclass(frozen=True)
class Place:
    """Where one system works: its clips, config and output."""

    folder: Path

    @property
    def videos(self) -> Path:
        """The video files."""
        return self.folder / "videos"

    @property
    def clips(self) -> Path:
        """The table of clips."""
        return self.folder / "clips.parquet"

    @property
    def output(self) -> Path:
        """What the system writes."""
        return self.folder / "output"


# --- the peer, in a process of its own ----------------------------------------------------------------------------


class Operator:
    """The actor that a user of Ray Data would write around the same operator."""

    def __init__(self, params: Params) -> None:
        self._operator = FaultyHands(params)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of every clip of the batch, each with its clip's id."""
        found = []
        for row in batch.to_pylist():
            table = self._operator.run(clip_from_row(row), {}, 16)
            found.append(table.append_column("clip_id", pa.array([row["clip_id"]] * len(table))))
        return pa.concat_tables(found)


def run_peer(kind: str, place: Place, params: Params) -> None:
    """The pipeline as in Ray's documentation, on a cluster of its own."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext, SaveMode
    from ray.data.checkpoint import CheckpointConfig

    ray.init(address="local", num_cpus=WORKERS + 1, include_dashboard=False, object_store_memory=256 * 2**20)
    source, _, checkpoint = kind.partition("-")
    if checkpoint:
        DataContext.get_current().checkpoint_config = CheckpointConfig(
            id_column="clip_id", checkpoint_path=str(place.folder / "checkpoint"), delete_checkpoint_on_success=False
        )
    clips = ray.data.from_items(pq.read_table(place.clips).to_pylist()) if source == "items" else None
    clips = clips or ray.data.read_parquet(str(place.clips))
    rows = clips.repartition(target_num_rows_per_block=CLIPS_PER_BLOCK).map_batches(
        Operator,
        fn_constructor_args=(params,),
        batch_size=CLIPS_PER_BLOCK,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=WORKERS),
    )
    mode = SaveMode.OVERWRITE if source == "overwrite" else SaveMode.APPEND
    rows.write_parquet(str(place.output), mode=mode)


def rows_of_peer(place: Place) -> Counter:
    """Rows per clip in the files that a reader of the output would see."""
    counts: Counter = Counter()
    for path in place.output.glob("*.parquet"):
        try:
            counts.update(pq.read_table(path, columns=["clip_id"])["clip_id"].to_pylist())
        except (pa.ArrowInvalid, FileNotFoundError):
            continue  # half written, or removed while we look
    return counts


# --- ours ---------------------------------------------------------------------------------------------------------


def rows_of_ours(place: Place) -> Counter:
    """Rows per clip in the published folders."""
    counts: Counter = Counter()
    for path in place.output.glob("run_id=r/video_id=*/clip_id=*/hand_pose.parquet"):
        counts[path.parent.name.partition("=")[2]] += pq.ParquetFile(path).metadata.num_rows
    return counts


# --- one schedule for all -----------------------------------------------------------------------------------------


def start(kind: str, place: Place, params: dict[str, Any]) -> subprocess.Popen:
    """The driver of a system, in a session of its own."""
    if kind == "egoworld":
        config = stub_config(place.folder, timeout_s=5.0, **params)
        words = ["data_jobs.egoworld", "run", "--input", place.videos, "--config", config, "--output", place.output]
        words += ["--run-id", "r", "--engine", "ray"]
    else:
        words = ["benchmarks.egoworld_vs_ray_data", "--peer", kind, "--folder", place.folder]
        words += ["--params", Params(**params).model_dump_json()]
    log = (place.folder / "log.txt").open("a")
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, words)], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
    )


def end(driver: subprocess.Popen) -> None:
    """SIGKILL the driver; what it started ends with it."""
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()


def drive(kind: str, place: Place, params: dict[str, Any], kills_at: list[int], patience_s: float) -> tuple[bool, int]:
    """Run, kill at each count of clips, run on; whether the last driver ended well, and how often one was killed."""
    count: Callable[[Place], Counter] = rows_of_ours if kind == "egoworld" else rows_of_peer
    moments, killed = list(kills_at), 0
    while True:
        driver, changed = start(kind, place, params), time.monotonic()
        first = last = len(count(place))
        while driver.poll() is None:
            time.sleep(0.1)
            if (now := len(count(place))) != last:
                last, changed = now, time.monotonic()
            if time.monotonic() - changed > (START_S if now == first else patience_s):
                end(driver)
                return False, killed
            if moments and now >= moments[0]:
                moments.pop(0)
                killed += 1
                end(driver)
        if driver.returncode > 0 and "raylet failed to startup" in (place.folder / "log.txt").read_text()[-4000:]:
            continue  # Ray did not start on a machine that was too busy: nobody's fault
        if driver.returncode >= 0 or not kills_at:
            return driver.returncode == 0, killed


def make_place(folder: Path, clips: int) -> Place:
    """Videos and the table of their clips."""
    place = Place(folder)
    for number in range(4):
        write_video(place.videos / f"{number}.mp4", clips // 4 * FRAMES_PER_CLIP, seed=number)
    splitter = {"splitter": {"method": "fixed_stride", "clip_length_s": 1.0, "min_clip_s": 0.0}}
    config = EgoworldConfig.model_validate(splitter)
    table = build_manifest([place.videos], config.chosen_splitter()).clip_table
    plain = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in table.columns]
    pq.write_table(pa.table(plain, names=table.column_names), place.clips)
    return place


def judge(kind: str, place: Place) -> str:
    """Lost, duplicated and truncated clips, as cells of a table."""
    wanted = pq.read_table(place.clips, columns=["clip_id"])["clip_id"].to_pylist()
    found = rows_of_ours(place) if kind == "egoworld" else rows_of_peer(place)
    lost = sum(clip not in found for clip in wanted)
    doubled = sum(count > FRAMES_PER_CLIP for count in found.values())
    cut = sum(count % FRAMES_PER_CLIP != 0 for count in found.values())
    return f"{lost} | {doubled} | {cut}"


def compare_kills(clips: int, kills: int, patience_s: float) -> None:
    """The same kills for everybody."""
    moments = [clips * (2 * number + 1) // (2 * kills + 1) for number in range(kills)]
    OUT.print(f"\nThe driver killed at {' and '.join(map(str, moments))} of {clips} clips, then resumed:\n")
    OUT.print(
        "| system | ended well | lost | duplicated | truncated | undisturbed, whole run |\n|---|---|---|---|---|---|"
    )
    for kind in (*PEERS, "egoworld"):
        with tempfile.TemporaryDirectory() as calm, tempfile.TemporaryDirectory() as wild:
            begun = time.monotonic()
            place = make_place(Path(calm), clips)
            begun = time.monotonic()
            drive(kind, place, {}, [], patience_s)
            seconds = time.monotonic() - begun
            place = make_place(Path(wild), clips)
            ended, _ = drive(kind, place, {}, moments, patience_s)
            cells = judge(kind, place)
            last = (place.folder / "log.txt").read_text().strip().splitlines()[-1:]
        OUT.print(f"| {PEERS.get(kind, kind)} | {'yes' if ended else 'no'} | {cells} | {seconds:.0f} s |")
        if not ended:
            OUT.print(f"<!-- {last} -->")


def compare_poison(clips: int, patience_s: float) -> None:
    """Some clips kill the process that works on them; nothing else is disturbed."""
    params = {"share_of": {"sigkill": 0.05}, "seed": 3}
    OUT.print(f"\nAbout 5 % of {clips} clips kill their worker ({patience_s:g} s without a new clip count as never):\n")
    OUT.print("| system | ended | clips written | dead letters with cause |\n|---|---|---|---|")
    for kind in ("parquet", "parquet-checkpoint", "egoworld"):
        with tempfile.TemporaryDirectory() as folder:
            place = make_place(Path(folder), clips)
            ended, _ = drive(kind, place, params, [], patience_s)
            written = len(rows_of_ours(place) if kind == "egoworld" else rows_of_peer(place))
            told = len(letters(place.output / "run_id=r")) if kind == "egoworld" else 0
        OUT.print(f"| {PEERS.get(kind, kind)} | {'yes' if ended else 'never'} | {written} | {told} |")


def main() -> None:
    """Command line; `--peer` is what this file starts of itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--patience-s", type=float, default=60.0)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--params", default="{}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        run_peer(arguments.peer, Place(arguments.folder), Params.model_validate_json(arguments.params))
        return
    compare_kills(arguments.clips, arguments.kills, arguments.patience_s)
    compare_poison(40, arguments.patience_s)


if __name__ == "__main__":
    main()
