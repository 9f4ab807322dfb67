"""The speed of light: the same operators on a sample of the same clips in a bare loop, nothing written.

As many processes as the run had workers, started together after each has its models loaded. Called at the end of a
run. The ratio it gives is (bare seconds ÷ the run's own stage seconds, on the sample) × (stage seconds ÷ worker
seconds, over the whole run): 1.0 would mean that guard, ledger, publication, waiting and an uneven end cost nothing.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data_jobs.egoworld.manifest import clip_from_row
from data_jobs.egoworld.plan import Plan
from data_jobs.egoworld.records import Clip
from data_jobs.runs.guard import Row
from data_jobs.runs.quiet import quiet_stderr

# One process that cannot start must not hang the end of a run that is otherwise finished.
PATIENCE_S = 900.0


@dataclass(frozen=True, slots=True)
class SpeedOfLight:
    """How fast the run was beside a bare loop."""

    frames_per_s: float  # of the run, from its first attempt to its last
    bare_frames_per_s: float  # what a bare loop would have reached on the same clips with the same workers
    ratio: float
    sample_clips: int
    sample_frames: int


def bare_seconds(plan: Plan, rows: list[Row], workers: int) -> float | None:
    """Seconds of process time that the operators alone take on the rows; None if a process failed."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(workers), context.SimpleQueue()
    children = [
        context.Process(target=_loop, args=(plan, rows[i::workers], ready, results), daemon=True)
        for i in range(workers)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE_S)
    failed = any(child.exitcode != 0 for child in children)
    return None if failed else sum(results.get() for _ in children)


def _loop(plan: Plan, rows: list[Row], ready: Any, results: Any) -> None:
    operators = [(stage, stage.operator(stage.params)) for stage in plan.stages]
    with quiet_stderr():  # native runtimes announce themselves
        for _, operator in operators:
            operator.load()
    clips = [clip_from_row(row) for row in rows]
    ready.wait(PATIENCE_S)
    start = time.monotonic()
    for clip in clips:
        _run_all(plan, operators, clip)
    results.put(time.monotonic() - start)


def _run_all(plan: Plan, operators: list[tuple[Any, Any]], clip: Clip) -> None:
    tables: dict[str, pa.Table] = {}
    for stage, operator in operators:
        upstream = {key: tables[key] for key in stage.spec.upstream}
        tables[stage.spec.key] = operator.run(clip, upstream, plan.config.guard.window_frames)


def sample(clips: pa.Table, workers: int, frames_per_worker: int) -> list[Row]:
    """Clips drawn at random (seeded) until each worker has one and `frames_per_worker` frames on average."""
    rows: list[Row] = []
    for i in np.random.default_rng(0).permutation(len(clips)):
        rows.append(clips.slice(int(i), 1).to_pylist()[0])
        frames = sum(row["frame_end"] - row["frame_start"] for row in rows)
        if frames >= frames_per_worker * workers and len(rows) >= workers:
            break
    return rows
