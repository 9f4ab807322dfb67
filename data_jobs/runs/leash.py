"""A command that cannot outlive its caller or its time, with everything it started.

In: words, folder, environment, seconds. Out: exit code, and what it printed last. Called by operators/external.py.
The command runs below this file as a script, in a session of its own: when the caller dies the kernel tells the
script, which ends the whole group; when time is up the caller does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1  # prctl(2)
KILLED = 128  # exit codes above this are 128 + the signal, as in every shell
LAST_BYTES = 4096


def run_leashed(words: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path, timeout_s: float) -> int | None:
    """Exit code of `words`, above 128 if it was a signal, None if time was up. Everything printed goes to `log`.

    `env` is added to the environment of whoever calls.
    """
    with log.open("wb") as sink:
        leash = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), *words],
            cwd=cwd,
            env=os.environ | dict(env),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return leash.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):  # what it left running must not write any more
            os.killpg(leash.pid, signal.SIGKILL)
        leash.wait()


def last_line(log: Path) -> str:
    """The last line with something on it, of at most 300 characters; "" if nothing was printed."""
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - LAST_BYTES))
        lines = [" ".join(line.split()) for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")[:300]


def _end_group(signum: int, frame: FrameType | None) -> None:
    os.killpg(0, signal.SIGKILL)


def _main(parent: int, words: list[str]) -> int:
    signal.signal(signal.SIGTERM, _end_group)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the kernel was asked
        return KILLED + signal.SIGTERM
    try:
        code = subprocess.call(words)
    except OSError as error:
        sys.stderr.write(f"{words[0]} cannot be started: {error.strerror}\n")
        return 127
    return KILLED - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), sys.argv[2:]))
