"""Units through their stages: any job's guard hosted by Ray Data, or by a loop in this process.

In: a Host (what the job brings), the table of units left to do, a ledger. Out: Outcomes, one per unit, as they come.
Called by egoworld/run.py and nuscenes/convert.py. The engines differ only in who hosts the guard, so they give equal
bytes. Knows nothing of what a unit is.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa

from data_jobs.runs.errors import RunError
from data_jobs.runs.guard import Executor, Guard, Job, LedgerPort, Outcome, RetryPolicy
from data_jobs.runs.ledger import Finish, Ledger, Standing, UnitState
from data_jobs.runs.outcome import Failure
from data_jobs.runs.sandbox import InProcess, Sandbox, Task

# Rows of one block are worked off by one actor in turn: enough to spread Ray's cost per task (some 10 ms) over many
# units, few enough that the last block does not keep one worker busy alone.
MAX_ROWS_PER_BLOCK = 64
BLOCKS_PER_WORKER = 16

Engine = Literal["ray", "local"]


@dataclass(frozen=True, slots=True)
class Host:
    """What a job brings to the engine. Picklable."""

    job: Job
    build: Callable[[], Task]  # called inside the worker's child process
    stages: tuple[str, ...]  # ends with guard.PUBLISH
    retry: RetryPolicy
    memory_bytes: int  # a child that grows beyond is ended
    preload: Sequence[str]  # modules that children start with
    workers: int
    gpus: float = 0.0  # that all workers together share, on Ray; 0: every worker sees whatever there is

    def gpus_each(self, workers: int) -> float:
        """Of so many workers: a share of one GPU, or whole ones (Ray knows nothing between)."""
        each = self.gpus / workers
        return float(int(each)) if each > 1 else math.floor(each * 1e4) / 1e4

    def guard(self, ledger: LedgerPort, epoch: int, worker: str, isolated: bool) -> Guard:
        """A guard with its executor; `isolated` puts the task into a child process."""
        executor: Executor = self.sandbox() if isolated else InProcess(self.build)
        return Guard(self.job, self.stages, executor, ledger, self.retry, epoch, worker)

    def sandbox(self) -> Sandbox:
        """The child process that runs the task."""
        # Arrow's own pool and malloc's pools per thread keep what they once took: 10 min of hands then peak at 245
        # MiB, with these at 221. Both are read when a process starts, so the child's environment must say it.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        os.environ.setdefault("MALLOC_ARENA_MAX", "1")
        return Sandbox(self.build, self.preload, self.memory_bytes)


@contextmanager
def open_ledger(path: str, engine: Engine, job: str, run_id: str) -> Iterator[Any]:
    """The ledger in this file: here for the local engine, behind a named actor for Ray (started and stopped too)."""
    if engine == "local":
        ledger = Ledger(path)
        try:
            yield ledger
        finally:
            ledger.close()
        return
    from data_jobs.runs.cluster import ray_cluster, remote_ledger

    with ray_cluster():
        yield remote_ledger(path, job, run_id)


def run_local(host: Host, todo: pa.Table, ledger: LedgerPort, epoch: int) -> Iterator[Outcome]:
    """One unit after the other in this process: breakpoints work, but a crash is yours."""
    guard = host.guard(ledger, epoch, "local", isolated=False)
    try:
        guard.executor.start()
        for row in todo.to_pylist():
            yield guard.process(row)
    finally:
        guard.executor.close()


def run_ray(host: Host, todo: pa.Table, ledger: Any, epoch: int) -> Iterator[Outcome]:
    """Ray Data: units in blocks to a pool of actors that keep their models loaded.

    Needs ray.init done; the ledger is an actors.spawn.Remote. Raises RunError for more GPUs than the cluster has.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its lines tell of blocks, ours of units
    context = DataContext.get_current()
    context.enable_progress_bars = False  # ours shows units and causes, Ray's shows blocks
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    context.raise_original_map_exception = True  # a RunError must arrive as itself
    workers = min(host.workers, max(len(todo), 1))
    _require_gpus(host.gpus, ray.cluster_resources().get("GPU", 0.0))

    cut = blocks(todo, workers)  # N rows in N / rows-per-block blocks
    gpus_each = host.gpus_each(workers)
    units = ray.data.from_arrow(cut)
    outcomes = units.map_batches(  # 1 unit : 1 outcome
        UnitWorker,
        fn_constructor_args=(host, ledger, epoch),
        batch_size=len(cut[0]) if gpus_each else None,  # a block at a time; with GPUs Ray wants to hear it in rows
        batch_format="pyarrow",
        # A pool that may shrink: when a node dies, the actor that no longer has a place gets that of an idle one, and
        # with it the blocks it holds. In a pool of fixed size none is given up.
        compute=ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        num_gpus=gpus_each or None,
    )
    for row in outcomes.iter_rows():
        yield Outcome(**row)


def _require_gpus(wanted: float, there: float) -> None:
    """Workers that ask for what the cluster lacks would wait for ever."""
    if wanted > there:
        raise RunError(
            f"the config asks for num_gpus: {wanted:g} and this Ray cluster has {there:g}; lower it, or start Ray "
            "where the GPUs are"
        )


def blocks(todo: pa.Table, workers: int) -> list[pa.Table]:
    """Slices of the table, in its order.

    Each has dictionaries of its own: the table's would travel whole with every block, gigabytes for a million units of
    thousands of files.
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


class UnitWorker:
    """The Ray Data actor: hosts one guard and, below it, one sandbox."""

    def __init__(self, host: Host, ledger: Any, epoch: int) -> None:
        self.ledger = Telling(ledger)
        from data_jobs.runs.cluster import tell_address

        tell_address()
        self.guard = host.guard(self.ledger, epoch, f"pid {os.getpid()}", isolated=True)
        self.guard.executor.start()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Outcomes of a block of units."""
        outcomes = [asdict(self.guard.process(row)) for row in batch.to_pylist()]
        self.ledger.flush()
        return pa.Table.from_pylist(outcomes)

    def __del__(self) -> None:
        """End the sandbox with the actor."""
        if hasattr(self, "guard"):
            self.guard.executor.close()


class Telling:
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
