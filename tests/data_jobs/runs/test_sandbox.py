"""A child may die in every way; the caller lives, learns how, and goes on with a fresh child."""

import os
import time

import pytest

from data_jobs.runs.errors import RunError
from data_jobs.runs.outcome import Failure
from data_jobs.runs.sandbox import InProcess, Sandbox, resident_bytes
from tests.data_jobs.runs.tasks import Obedient, Unloadable

GIB = 2**30


@pytest.fixture
def sandbox():
    box = Sandbox(Obedient, ["tests.data_jobs.runs.tasks"], memory_bytes=GIB)
    yield box
    box.close()


def test_answers_and_keeps_its_state_between_calls(sandbox):
    assert sandbox.call("echo:hello", 10) == "hello"
    assert sandbox.call("count", 10) == 2


@pytest.mark.parametrize(
    ("order", "cause", "message"),
    [
        ("segfault", "worker_crash", "the process died (SIGSEGV)"),
        ("kill", "worker_crash", "the process died (SIGKILL)"),
        ("exit:3", "worker_crash", "the process died (exit code 3)"),
        ("input", "input", "broken picture"),
        ("bug", "bug", "one over nothing"),
        ("transient", "transient", "the server is busy"),
    ],
)
def test_says_how_a_call_ended_and_goes_on(sandbox, order, cause, message):
    failure = sandbox.call(order, 10)
    assert isinstance(failure, Failure)
    assert (failure.cause, failure.message) == (cause, message)
    assert sandbox.call("echo:still here", 10) == "still here"


def test_ends_a_hang(sandbox):
    sandbox.start()
    start = time.monotonic()
    failure = sandbox.call("hang", 0.3)
    assert failure == Failure("timeout", "Timeout", "no answer within 0.3 s", "")
    assert time.monotonic() - start < 5


def test_ends_an_allocation_bomb_before_the_machine_suffers():
    box = Sandbox(Obedient, ["tests.data_jobs.runs.tasks"], memory_bytes=GIB // 2)
    failure = box.call("bomb", 30)
    assert (failure.cause, failure.message) == ("resource", "used more than 0.5 GiB")
    box.close()


def test_a_full_disk_is_not_the_units_fault(sandbox):
    with pytest.raises(RunError, match="the disk is full"):
        sandbox.call("place", 10)


@pytest.mark.parametrize("executor", [lambda: Sandbox(Unloadable, [], GIB), lambda: InProcess(Unloadable)])
def test_models_that_do_not_load_end_the_run(executor):
    box = executor()
    with pytest.raises(RunError, match=r"operators cannot be loaded: FileNotFoundError: weights\.bin"):
        box.call("echo:x", 10)
    box.close()


def test_close_ends_the_child_and_may_be_repeated(sandbox):
    sandbox.start()
    pid = sandbox._child.pid
    sandbox.close()
    sandbox.close()
    assert resident_bytes(pid) == 0


def test_in_process_judges_exceptions_in_the_same_way():
    here = InProcess(Obedient)
    assert here.call("echo:x", 10) == "x"
    assert here.call("bug", 10).cause == "bug"
    assert resident_bytes(os.getpid()) > 0
    here.close()
