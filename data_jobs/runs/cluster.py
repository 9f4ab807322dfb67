"""Ray for one run of any job: start or join a cluster, and host the ledger in it. Called by nuscenes/convert.py."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from actors.spawn import Remote, spawn
from data_jobs.runs.errors import RunError
from data_jobs.runs.ledger import Ledger
from data_jobs.runs.quiet import quiet_stderr

# Rows are small references to units; data never enters the object store, so it needs next to nothing.
OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def ray_cluster() -> Iterator[None]:
    """A cluster for the time of the block: the running one at RAY_ADDRESS, else one of our own. Left as found."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with quiet_stderr():
        _connect()
    try:
        yield
    finally:
        ray.shutdown()


def _connect() -> None:
    """Start or join. RunError when Ray does not come up, which it does not on a machine that is overloaded."""
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                num_cpus=len(os.sched_getaffinity(0)) + 1,  # one for Ray Data's own small tasks
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:
        raise RunError(f"Ray did not start ({error}); try again, or use --engine local") from error


def remote_ledger(path: str, name: str) -> Remote:
    """The ledger of one run as a named actor."""
    return spawn(Ledger, name, path)
