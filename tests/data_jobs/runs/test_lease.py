"""The lease on an object store: one holder at a time, taken over from the dead, told when it was lost."""

import multiprocessing
import os
import signal
import time

import pytest

from data_jobs.runs import lease
from data_jobs.runs.errors import RunError
from data_jobs.runs.places import open_store


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(lease, "LEASE_S", 2.0)
    monkeypatch.setattr(lease, "LOOK_S", 0.1)


def test_a_second_run_is_refused_and_a_later_one_is_not(store):
    with store.lock(), pytest.raises(RunError, match="another run is writing to"), store.lock():
        pass
    with store.lock():
        pass


def hold(place, ready):
    with open_store(place).lock():
        ready.set()
        time.sleep(600)


def held_elsewhere(place):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(place, ready))
    process.start()
    assert ready.wait(60)
    return process


def test_the_lock_of_a_killed_run_is_free(store, place):
    process = held_elsewhere(place)
    process.kill()
    process.join()
    started = time.monotonic()
    with store.lock():
        assert time.monotonic() - started < 1.5  # known to be dead: nobody waits for its heartbeat


def test_a_holder_on_another_machine_that_stands_still_is_taken_over(bucket, monkeypatch):
    """Stopped rather than killed, and made to look like a process of another machine."""
    process = held_elsewhere(bucket)
    os.kill(process.pid, signal.SIGSTOP)
    monkeypatch.setattr(lease, "_pid_space", lambda: "another machine")
    started = time.monotonic()
    with open_store(bucket).lock():
        assert time.monotonic() - started >= lease.LEASE_S
    process.kill()
    process.join()


def test_a_run_that_lost_its_lease_does_not_end_well(bucket):
    store = open_store(bucket)
    with pytest.raises(RunError, match=r"taken .* over while this one stood still"), store.lock() as mine:
        store.objects.create(lease._name(mine._number + 1), b"{}")


def one_of(place, barrier, got):
    store = open_store(place)
    store.exists("x")  # the client is loaded before the start
    barrier.wait(60)
    try:
        with store.lock():
            got.put(True)
            barrier.wait(60)  # held until the other has been refused
    except RunError:
        got.put(False)
        barrier.wait(60)


def test_of_two_runs_started_together_one_begins(bucket):
    context = multiprocessing.get_context("spawn")
    barrier, got = context.Barrier(2), context.Queue()
    runs = [context.Process(target=one_of, args=(bucket, barrier, got)) for _ in range(2)]
    for process in runs:
        process.start()
    assert sorted(got.get(timeout=60) for _ in runs) == [False, True]
    for process in runs:
        process.join(60)


def test_a_chain_begun_by_another_while_it_was_being_listed_is_read_as_empty(bucket, monkeypatch):
    """s3fs follows an empty listing by asking for the folder itself; here somebody has made it by then."""
    from s3fs import S3FileSystem

    store = open_store(bucket)
    ask = S3FileSystem._info

    async def ask_late(files, path, **how):
        await files._pipe_file(f"{path}/00000001.json", b"{}")
        return await ask(files, path, **how)

    monkeypatch.setattr(S3FileSystem, "_info", ask_late)
    assert store.objects.names(lease.LEASES) == []
    monkeypatch.undo()
    assert store.objects.names(lease.LEASES) == [lease._name(1)]
