"""Ray for one run of any job: start or join a cluster, host the run's ledger in it.

Called by egoworld/run.py and nuscenes/convert.py. With engine.py and metered.py the only files here to know Ray.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.spawn import Remote, spawn
from data_jobs.runs.errors import RunError
from data_jobs.runs.metered import MeteredLedger
from data_jobs.runs.quiet import quiet_stderr

# Rows are small references to units; data never enters the object store, so it needs next to nothing.
OBJECT_STORE_BYTES = 256 * 2**20

# When a driver is killed, Ray's own agents look for their dead head this long before they end. Head and agents are on
# one machine here, so a connection that is gone for seconds is gone for good; Ray's default keeps them for a minute.
GIVE_UP_HEAD_AFTER_S = 10

# Ray gives a node 30 s to start and takes 5 when nothing else runs; on a busy machine the next try often succeeds.
START_TRIES = 3


@contextmanager
def ray_cluster() -> Iterator[None]:
    """A cluster for the time of the block: the running one at RAY_ADDRESS, else one of our own. Left as found."""
    if ray.is_initialized():
        yield
        return
    # Ray's own lines tell of blocks and actors, ours of units. Ray keeps its own in its session folder all the same.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with quiet_stderr():
        _connect()
    try:
        yield
    finally:
        ray.shutdown()


def _connect() -> None:
    """Start or join. RunError when Ray does not come up, which it does not on a machine that is overloaded."""
    join = bool(os.environ.get("RAY_ADDRESS"))
    for tries_left in reversed(range(1 if join else START_TRIES)):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **({} if join else _own_cluster()))
        except Exception as error:
            ray.shutdown()  # what did start
            if not tries_left:
                raise RunError(f"Ray did not start ({error}); try again, or use --engine local") from error
        else:
            return


def _own_cluster() -> dict[str, Any]:
    """Arguments of ray.init for a cluster that lives as long as the run."""
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(GIVE_UP_HEAD_AFTER_S))
    # Else Ray hides every GPU from a worker that has no share of one.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    return {
        "address": "local",  # else Ray joins whatever cluster somebody started on this machine
        "num_cpus": len(os.sched_getaffinity(0)) + 1,  # one for Ray Data's own small tasks
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": True,
    }


def remote_ledger(path: str, job: str, run_id: str) -> Remote:
    """The ledger of a job's run as a named actor that shows metrics, fresh for this start. `path` is on this disk."""
    # The path keeps apart runs of the same name in different folders, which may share a cluster.
    name = f"{job}-ledger-{run_id}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    with suppress(ValueError):
        Remote(name).kill()  # left by a driver that died on a cluster that lived on
    return spawn(MeteredLedger, name, path, job, run_id, on_this_node=True)


# How a sandbox, which is no process of Ray's, finds the cluster that its worker belongs to.
ADDRESS_VARIABLE = "REAFFERENCE_RAY_ADDRESS"


def tell_address() -> None:
    """Leave the cluster's address for the sandboxes that this worker will fork."""
    os.environ[ADDRESS_VARIABLE] = ray.get_runtime_context().gcs_address


def call_in_environment(runtime_env: Mapping[str, Any], function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` in a Ray runtime environment on this machine; its exceptions are raised here as they are.

    RunError when there is no cluster, or Ray cannot make the environment. The function's module travels along, so the
    environment needs nothing of ours, only the same Python and Ray.
    """
    if not ray.is_initialized():
        address = os.environ.get(ADDRESS_VARIABLE)
        if address is None:
            raise RunError("runtime_env needs Ray: use --engine ray, or put the environment's interpreter into command")
        with quiet_stderr():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    ray.cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # The worker that waits holds the processor already: the command runs on its share.
    remote = ray.remote(function).options(
        num_cpus=0, max_retries=0, runtime_env=dict(runtime_env), scheduling_strategy=here
    )
    try:
        return ray.get(remote.remote(*args))
    except ray.exceptions.RuntimeEnvSetupError as error:
        reason = " ".join(str(error).split())[:500]
        raise RunError(f"Ray cannot make the runtime_env: {reason}") from error
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
