"""Clips through their stages: the same guard and job hosted by Ray Data, or by a loop in this process.

In: the clip table of what is left to do. Out: Outcomes, one per clip, as they come; tables and dead letters appear in
the output folder. Called by run.py. The engines differ only in who hosts the guard, so they give equal bytes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa

from data_jobs.egoworld.task import EgoworldJob, EgoworldTask
from data_jobs.runs.guard import Executor, Guard, LedgerPort, Outcome
from data_jobs.runs.ledger import Finish, Ledger, Standing, UnitState
from data_jobs.runs.outcome import Failure
from data_jobs.runs.sandbox import InProcess, Sandbox

# Rows of one block are worked off by one actor in turn: enough to spread Ray's cost per task (some 10 ms) over many
# clips, few enough that the last block does not keep one worker busy alone.
MAX_ROWS_PER_BLOCK = 64
BLOCKS_PER_WORKER = 16


def make_guard(job: EgoworldJob, ledger: LedgerPort, epoch: int, worker: str, isolated: bool) -> Guard:
    """A guard with its executor; `isolated` puts the operators into a child process."""
    executor: Executor = sandbox_of(job) if isolated else InProcess(partial(EgoworldTask, job))
    return Guard(job, job.plan.stage_names, executor, ledger, job.plan.retry_policy(), epoch, worker)


def sandbox_of(job: EgoworldJob) -> Sandbox:
    """The child process that runs the job's operators."""
    # Arrow's own pool and malloc's pools per thread keep what they once took: 10 min of hands then peak at 245 MiB,
    # with these at 221. Both are read when a process starts, so the child's environment must say it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    memory_bytes = int(job.plan.config.guard.memory_gib * 2**30)
    return Sandbox(partial(EgoworldTask, job), job.plan.preload(), memory_bytes)


def run_local(job: EgoworldJob, todo: pa.Table, ledger: Ledger, epoch: int) -> Iterator[Outcome]:
    """One clip after the other in this process: breakpoints work, but a crash is yours."""
    guard = make_guard(job, ledger, epoch, "local", isolated=False)
    try:
        guard.executor.start()
        for row in todo.to_pylist():
            yield guard.process(row)
    finally:
        guard.executor.close()


def run_ray(job: EgoworldJob, todo: pa.Table, ledger: Any, epoch: int) -> Iterator[Outcome]:
    """Ray Data: clips in blocks to a pool of actors that keep their models loaded. Needs ray.init done."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its lines tell of blocks, ours of clips
    context = DataContext.get_current()
    context.enable_progress_bars = False  # ours shows clips and causes, Ray's shows blocks
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    context.raise_original_map_exception = True  # a RunError must arrive as itself
    workers = min(job.plan.config.workers(), max(len(todo), 1))

    clips = ray.data.from_arrow(blocks(todo, workers))  # N rows in N / rows-per-block blocks
    outcomes = clips.map_batches(  # 1 clip : 1 outcome
        ClipWorker,
        fn_constructor_args=(job, ledger, epoch),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
    )
    for row in outcomes.iter_rows():
        yield Outcome(**row)


def blocks(todo: pa.Table, workers: int) -> list[pa.Table]:
    """Slices of the table, in its order.

    Each has dictionaries of its own: the table's would travel whole with every block, gigabytes for a million clips of
    thousands of videos.
    """
    rows = max(1, min(MAX_ROWS_PER_BLOCK, len(todo) // (workers * BLOCKS_PER_WORKER)))
    return [_own_dictionaries(todo.slice(start, rows)) for start in range(0, len(todo), rows)]


def _own_dictionaries(rows: pa.Table) -> pa.Table:
    """The same rows with dictionaries of only what occurs in them."""
    columns = [
        column.cast(column.type.value_type).combine_chunks().dictionary_encode()
        if pa.types.is_dictionary(column.type)
        else column.combine_chunks()
        for column in rows.columns
    ]
    return pa.table(columns, names=rows.column_names)


class ClipWorker:
    """The Ray Data actor: hosts one guard and, below it, one sandbox."""

    def __init__(self, job: EgoworldJob, ledger: Any, epoch: int) -> None:
        self.ledger = _Telling(ledger)
        self.guard = make_guard(job, self.ledger, epoch, f"pid {os.getpid()}", isolated=True)
        self.guard.executor.start()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Outcomes of a block of clips."""
        outcomes = [asdict(self.guard.process(row)) for row in batch.to_pylist()]
        self.ledger.flush()
        return pa.Table.from_pylist(outcomes)

    def __del__(self) -> None:
        """End the sandbox with the actor."""
        self.guard.executor.close()


class _Telling:
    """The ledger as a worker sees it: only `start` waits for an answer, and takes the successes before it along.

    A success that dies with its worker is not lost: its files are published, and they are the truth. A failure is
    told at once, so that a unit that brings its host down cannot hide it.
    """

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger
        self._successes: list[Finish] = []

    def start(self, *attempt: Any) -> Standing:
        """As Ledger.start."""
        successes, self._successes = self._successes, []
        standing: Standing = self._ledger.start_after(successes, *attempt)
        return standing

    def finish(self, attempt_id: str, unit_id: str, failure: Failure | None, next_state: UnitState) -> None:
        """As Ledger.finish."""
        self._successes.append((attempt_id, unit_id, failure, next_state))
        if failure is not None:
            self.flush()

    def bury(self, *letter: Any) -> None:
        """As Ledger.bury."""
        self.flush()
        self._ledger.tell("bury", *letter)

    def flush(self) -> None:
        """Tell what is not told yet; at the end of a block nothing may be left."""
        successes, self._successes = self._successes, []
        for success in successes:
            self._ledger.tell("finish", *success)
