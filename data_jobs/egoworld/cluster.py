"""Ray for one run: start or join a cluster, host the ledger in it. With metrics.py and pipeline.py the only files here
to know Ray.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray

from actors.spawn import Remote, spawn
from data_jobs.egoworld.metrics import MeteredLedger
from data_jobs.runs.quiet import quiet_stderr

# Rows are small references to clips; frames never enter the object store, so it needs next to nothing.
OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def ray_cluster() -> Iterator[None]:
    """A cluster for the time of the block: the running one at RAY_ADDRESS, else one of our own. Left as found."""
    if ray.is_initialized():
        yield
        return
    # Ray's own lines tell of blocks and actors, ours of clips. Ray keeps its own in its session folder all the same.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with quiet_stderr():
        _connect()
    try:
        yield
    finally:
        ray.shutdown()


def _connect() -> None:
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(
            address="local",  # else Ray joins whatever cluster somebody started on this machine
            num_cpus=len(os.sched_getaffinity(0)) + 1,  # one for Ray Data's own small tasks
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=True,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def remote_ledger(path: str, run_id: str) -> Remote:
    """The run's ledger as a named actor that shows metrics, fresh for this start. `path` is on the driver's disk."""
    name = f"egoworld-ledger-{run_id}"
    with suppress(ValueError):
        Remote(name).kill()  # left by a driver that died on a cluster that lived on
    return spawn(MeteredLedger, name, path, run_id, on_this_node=True)
