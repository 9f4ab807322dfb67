"""`convert`: a nuScenes database → tracking sequences, one unit of work per scene, resumable, proven at the
end.

In: dataroot, version, output folder, split, rate, interpolation. Out: a Converted summary; sequences, joint
tables, `dataset_stats.json` and `run_manifest.json` under the output. Called by __main__.py and the
benchmarks. The guard, the ledger, the store, the engines and the proof are those of data_jobs/runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_jobs.nuscenes.job import STAGES, ConvertJob, ConvertTask
from data_jobs.nuscenes.label import Interpolation, Rate
from data_jobs.nuscenes.scene_index import open_index
from data_jobs.nuscenes.schema import CAMERAS
from data_jobs.nuscenes.splits import SPLITS, split_table
from data_jobs.nuscenes.tables import open_tables
from data_jobs.runs.engine import Engine, Host, open_ledger, run_local, run_ray
from data_jobs.runs.errors import RunError
from data_jobs.runs.guard import RetryPolicy
from data_jobs.runs.keys import pretty_json
from data_jobs.runs.outcome import DeadLetter, Failure
from data_jobs.runs.proof import Proof, prove, published_ids

MANIFEST, STATS = "run_manifest.json", "dataset_stats.json"

# A scene of nuScenes takes about 150 MB with its libraries; ten times that is a fault.
MEMORY_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class ConvertRequest:
    """What the command line asked for."""

    dataroot: Path
    version: str
    output: Path
    cache: Path
    split: str | None
    rate: Rate
    interpolation: Interpolation
    engine: Engine
    workers: int


@dataclass(frozen=True, slots=True)
class Converted:
    """How a conversion ended."""

    proof: Proof
    stats: dict[str, Any]
    letters: list[DeadLetter]
    seconds: float


def convert(request: ConvertRequest) -> Converted:
    """Convert or resume. Raises RunError when nothing can start; bad scenes become dead letters."""
    started = time.monotonic()
    check_split(request.split)
    index = open_index(open_tables(request.dataroot, request.version, request.cache))
    source = str(request.dataroot / request.version)
    job = ConvertJob(index, request.version, request.rate, request.interpolation, request.output.absolute(), source)
    planned = plan(job, request.split)
    if not len(planned):
        raise RunError(f"{source} has no scene in split {request.split!r}; splits are {', '.join(SPLITS)}")
    with job.store.lock():
        job.store.prepare()
        job.store.sweep()
        known = remember(job, [str(name) for name in planned["scene"].to_pylist()])
        work(job, request, planned)
        job.store.sweep()  # of workers that died while they published, in this very run
        letters = read_letters(job)
        stats = dataset_stats(job)
        job.store.replace_file(STATS, pretty_json(stats))
        proof = prove(known, job.joint)
    return Converted(proof, stats, letters, time.monotonic() - started)


def check_split(split: str | None) -> None:
    """Raise RunError for a split that does not exist, with a word on `test`."""
    if split is not None and split not in SPLITS:
        why = (
            " (the official test scenes have no public boxes, and val is not called test here)"
            if split == "test"
            else ""
        )
        raise RunError(f"there is no split {split!r}{why}; choose {', '.join(SPLITS)}, or leave --split out for all")


def plan(job: ConvertJob, split: str | None) -> pa.Table:
    """One row per scene to convert: scene, row in the index, split ("" for a scene in no list), images."""
    scenes, table = job.index.scenes(), split_table(job.version)
    names = scenes["name"].to_pylist()
    splits = [table.get(name, "") for name in names]
    rows = pa.table({"scene": names, "row": range(len(names)), "split": splits, "images": scenes["images"]})
    # Without --split every scene must be accounted for, so one in no list becomes a dead letter, not a
    # silence.
    return rows if split is None else rows.filter(pa.array([value == split for value in splits]))


def work(job: ConvertJob, request: ConvertRequest, planned: pa.Table) -> None:
    """Take the scenes that are neither done nor dead through their stages."""
    done, dead = published_ids(job.joint)
    settled = {*done, *dead}
    todo = planned.filter(pa.array([name not in settled for name in planned["scene"].to_pylist()], pa.bool_()))
    host = Host(
        job,
        partial(ConvertTask, job),
        STAGES,
        RetryPolicy(),
        MEMORY_BYTES,
        ("data_jobs.nuscenes.job",),
        request.workers,
    )
    with open_ledger(str(job.output / "ledger.sqlite"), request.engine, "nuscenes", job.output.name) as ledger:
        epoch = ledger.begin("convert", request.engine, json.dumps(options(job)))
        fill_ledger(ledger, planned, set(done), read_letters(job))
        if len(todo):
            engine = run_ray if request.engine == "ray" else run_local
            for _ in engine(host, todo, ledger, epoch):
                pass
        ledger.end(epoch, "finished")


def fill_ledger(ledger: Any, planned: pa.Table, done: set[str], letters: list[DeadLetter]) -> None:
    """Bring the ledger in line with the published tree, which is the truth."""
    dead = {letter.clip_id for letter in letters}
    by_state: dict[str, list[tuple[str, str, int]]] = {"Pending": [], "Done": [], "Dead": []}
    for row in planned.to_pylist():
        state = "Done" if row["scene"] in done else "Dead" if row["scene"] in dead else "Pending"
        by_state[state].append((row["scene"], row["split"], row["images"]))
    for state, units in by_state.items():
        if units:
            ledger.register(units, state)
    for letter in letters:
        failure = Failure(letter.cause, letter.error_type, letter.message, letter.traceback_sha256)
        ledger.bury(str(letter.clip_id), letter.stage, failure, letter.attempts)


def read_letters(job: ConvertJob) -> list[DeadLetter]:
    """All dead letters, by scene."""
    return [DeadLetter.model_validate_json(job.run.read(f"dead_letter/{name}")) for name in job.run.letters()]


# --- records of the run
# -------------------------------------------------------------------------------------------


def options(job: ConvertJob) -> dict[str, str]:
    """What every scene of an output folder must have in common."""
    return {
        "tables_sha256": job.index.content_sha256,
        "version": job.version,
        "rate": job.rate,
        "interpolation": job.interpolation,
    }


def remember(job: ConvertJob, planned: list[str]) -> list[str]:
    """Add the scenes to the folder's manifest and return all that were ever planned in it.

    Raises RunError if the folder was begun with other tables or options: its sequences would not belong
    together.
    """
    path, now = job.output / MANIFEST, options(job)
    before: Mapping[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    changed = [f"{key} was {before[key]}, is {now[key]}" for key in now if before and before.get(key) != now[key]]
    if changed:
        raise RunError(f"{job.output} was converted differently ({'; '.join(changed)}); choose another --output")
    known = sorted({*before.get("scenes", []), *planned})
    job.store.replace_file(MANIFEST, pretty_json({**now, "scenes": known}))
    return known


def dataset_stats(job: ConvertJob) -> dict[str, Any]:
    """Sums over the published scenes, per split; the keyframes' shares are measured, not assumed."""
    splits: dict[str, dict[str, Any]] = {}
    for path in sorted(job.joint.glob("split=*/scene=*/meta.json")):
        split = path.parents[1].name.removeprefix("split=")
        total = splits.setdefault(split, {"scenes": 0})
        total["scenes"] += 1
        for name, value in json.loads(path.read_text()).items():
            if isinstance(value, dict):
                inner = total.setdefault(name, {})
                for key, number in value.items():
                    inner[key] = inner.get(key, 0) + number
            else:
                total[name] = total.get(name, 0) + value
    for total in splits.values():
        total["keyframe_share_of_frames"] = round(total["keyframes"] / max(1, total["frames"]), 6)
        total["keyframe_share_of_boxes"] = round(total["keyframe_boxes"] / max(1, total["boxes"]), 6)
    return {**options(job), "cameras": list(CAMERAS), "splits": splits}
