"""A child process that may die in the worker's place, so that a crash has exactly one suspect.

A worker keeps one sandbox with its models loaded. It sends one task at a time and learns how the child ended: an
answer, an exception, a death by signal, a time-out or too much memory. Children are forked from a clean server that
has only imported modules, so replacing a dead one costs a fork and a model load, not an interpreter start.
Knows nothing of Ray, ledgers or clips; called by guard.py.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from data_jobs.runs.errors import RunError
from data_jobs.runs.outcome import Failure

# Loading the largest models from a cold disk takes well under this; longer means stuck.
LOAD_TIMEOUT_S = 600.0

# How often a busy child's memory is looked at; an allocation of 10 GB/s is then caught within half a gigabyte.
POLL_S = 0.05

# pandas: pyarrow imports it at its first conversion, which would cost the first call of every child seconds.
PRELOAD = ("data_jobs.runs.sandbox", "pandas")

PR_SET_PDEATHSIG = 1  # prctl(2)


class Task(Protocol):
    """What a sandbox runs: built once in the child, then called once per request."""

    def load(self) -> None:
        """Load models."""

    def __call__(self, request: Any, /) -> Any:
        """Do one unit of work; the answer must be picklable and small."""

    def close(self) -> None:
        """Free what `load` took."""


class Sandbox:
    """Runs `build()` in a child process and its calls one at a time."""

    def __init__(self, build: Callable[[], Task], preload: Sequence[str], memory_bytes: int) -> None:
        self._build = build
        self._memory_bytes = memory_bytes
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*PRELOAD, *preload])
        self._child: Any = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        """Have a child with its models loaded, so that the first call does not wait; RunError if that fails."""
        self._ready()

    def call(self, request: Any, timeout_s: float) -> Any:
        """The task's answer, or a Failure. RunError (the place, not the unit, is at fault) is raised."""
        pipe = self._ready()
        pipe.send(request)
        answer = self._await(pipe, timeout_s)
        if isinstance(answer, RunError):
            raise answer
        return answer

    def close(self) -> None:
        """End the child; safe when there is none, returns within about 5 s."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._child is not None:
            self._child.join(timeout=5)
            self._kill()

    # --- the parent's side ---------------------------------------------------------------------------------------

    def _ready(self) -> Connection:
        """The pipe to a child that has loaded its models; RunError if they cannot be loaded."""
        if self._pipe is not None and self._child.is_alive():
            return self._pipe
        self._kill()
        self._pipe, theirs = self._context.Pipe()
        self._child = self._context.Process(target=_serve, args=(self._build, theirs), daemon=True)
        with _no_main_module():
            self._child.start()
        theirs.close()
        pipe = self._pipe
        answer = self._await(pipe, LOAD_TIMEOUT_S)
        if isinstance(answer, Failure):
            raise RunError(f"the operators cannot be loaded: {answer.message}")
        if isinstance(answer, RunError):
            raise answer
        return pipe

    def _await(self, pipe: Connection, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        while True:
            if pipe.poll(POLL_S):
                try:
                    return pipe.recv()
                except (EOFError, OSError):
                    return self._obituary()
            if time.monotonic() > deadline:
                self._kill()
                return Failure("timeout", "Timeout", f"no answer within {timeout_s:g} s", "")
            if resident_bytes(self._child.pid) > self._memory_bytes:
                self._kill()
                return Failure("resource", "MemoryLimit", f"used more than {self._memory_bytes / 2**30:.3g} GiB", "")

    def _obituary(self) -> Failure:
        self._child.join(timeout=5)
        code = self._child.exitcode
        self._kill()
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return Failure("worker_crash", "WorkerCrash", f"the process died ({how})", "")

    def _kill(self) -> None:
        if self._child is not None:
            if self._child.is_alive():
                self._child.kill()
            self._child.join(timeout=5)
            self._child = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


class InProcess:
    """The same interface without a child: exceptions are judged, crashes take the caller along. For debugging."""

    def __init__(self, build: Callable[[], Task]) -> None:
        self._task = build()
        self._loaded = False

    def start(self) -> None:
        """Load the task's models; RunError if that fails."""
        if not self._loaded:
            _load(self._task)
            self._loaded = True

    def call(self, request: Any, timeout_s: float) -> Any:  # timeout_s: nobody is there to end a hang
        """The task's answer, or a Failure; RunError is raised."""
        self.start()
        return _attempt(self._task, request)

    def close(self) -> None:
        """Free the task's models."""
        if self._loaded:
            self._task.close()
            self._loaded = False


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, 0 if it is gone (Linux: /proc/PID/statm)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _attempt(task: Task, request: Any) -> Any:
    try:
        return task(request)
    except Exception as error:  # noqa: BLE001 - the edge of the process: every failure becomes a judged value
        return Failure.of(error)


def _load(task: Task) -> None:
    """Load, or raise RunError: a model that does not load is nobody's clip's fault."""
    try:
        task.load()
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"the operators cannot be loaded: {type(error).__name__}: {error}") from error


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep multiprocessing from running the caller's main script again in every child.

    In a Ray worker that script imports all of Ray; nothing a child needs lives there.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(build: Callable[[], Task], pipe: Connection) -> None:
    """The child: load once, answer until the parent hangs up. Dies with its parent, whatever it is doing."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    task = build()
    with suppress(EOFError, OSError):  # the parent hung up: nobody is left to tell
        try:
            _load(task)
        except RunError as error:
            pipe.send(error)
            return
        pipe.send("ready")
        while True:
            request = pipe.recv()
            try:
                answer = _attempt(task, request)
            except RunError as error:
                answer = error
            pipe.send(answer)
    task.close()
