"""Units through their stages: any job's guard hosted by Ray Data, or by a loop in this process.

In: a Host (what the job brings), the table of units left to do, a ledger. Out: Outcomes, one per unit, as they come.
Called by nuscenes/convert.py. The engines differ only in who hosts the guard, so they give equal bytes. Knows nothing
of what a unit is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from data_jobs.runs.guard import Executor, Guard, Job, LedgerPort, Outcome, RetryPolicy
from data_jobs.runs.sandbox import InProcess, Sandbox

# Rows of one block are worked off by one actor in turn: enough to spread Ray's cost per task (some 10 ms) over many
# units, few enough that the last block does not keep one worker busy alone.
MAX_ROWS_PER_BLOCK = 64
BLOCKS_PER_WORKER = 16


@dataclass(frozen=True, slots=True)
class Host:
    """What a job brings to the engine. Picklable."""

    job: Job
    build: Callable[[], Any]  # makes the sandbox.Task inside the worker's child process
    stages: tuple[str, ...]  # ends with guard.PUBLISH
    retry: RetryPolicy
    memory_bytes: int  # a child that grows beyond is ended
    preload: Sequence[str]  # modules that children start with
    workers: int

    def guard(self, ledger: LedgerPort, epoch: int, worker: str, isolated: bool) -> Guard:
        """A guard with its executor; `isolated` puts the task into a child process."""
        build = self.build
        executor: Executor = Sandbox(build, self.preload, self.memory_bytes) if isolated else InProcess(build)
        return Guard(self.job, self.stages, executor, ledger, self.retry, epoch, worker)


def run_local(host: Host, todo: pa.Table, ledger: LedgerPort, epoch: int) -> Iterator[Outcome]:
    """One unit after the other in this process: breakpoints work, but a crash is yours."""
    guard = host.guard(ledger, epoch, "local", isolated=False)
    try:
        for row in todo.to_pylist():
            yield guard.process(row)
    finally:
        guard.executor.close()


def run_ray(host: Host, todo: pa.Table, ledger: Any, epoch: int) -> Iterator[Outcome]:
    """Ray Data: units in blocks to a pool of actors. Needs ray.init done; the ledger is an actors.spawn.Remote."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    context.raise_original_map_exception = True  # a RunError must arrive as itself
    workers = min(host.workers, max(len(todo), 1))

    units = ray.data.from_arrow(blocks(todo, workers))  # N rows in N / rows-per-block blocks
    outcomes = units.map_batches(  # 1 unit : 1 outcome
        UnitWorker,
        fn_constructor_args=(host, ledger, epoch),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
    )
    for row in outcomes.iter_rows():
        yield Outcome(**row)


def blocks(todo: pa.Table, workers: int) -> list[pa.Table]:
    """Slices of the table, in its order."""
    rows = max(1, min(MAX_ROWS_PER_BLOCK, len(todo) // (workers * BLOCKS_PER_WORKER)))
    return [todo.slice(start, rows).combine_chunks() for start in range(0, len(todo), rows)]


class UnitWorker:
    """The Ray Data actor: hosts one guard and, below it, one sandbox."""

    def __init__(self, host: Host, ledger: Any, epoch: int) -> None:
        self.guard = host.guard(_Telling(ledger), epoch, f"pid {os.getpid()}", isolated=True)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Outcomes of a block of units."""
        return pa.Table.from_pylist([asdict(self.guard.process(row)) for row in batch.to_pylist()])

    def __del__(self) -> None:
        """End the sandbox with the actor."""
        self.guard.executor.close()


class _Telling:
    """The ledger as a worker sees it: only `start` waits for an answer."""

    def __init__(self, ledger: Any) -> None:
        self.start = ledger.start
        self.finish = partial(ledger.tell, "finish")
        self.bury = partial(ledger.tell, "bury")
