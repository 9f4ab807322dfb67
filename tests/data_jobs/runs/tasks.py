"""Tasks that misbehave on request, for sandbox and guard tests. Importable by child processes."""

import os
import signal
import time
from pathlib import Path

from data_jobs.runs.errors import InputError, ResourceError, RunError, TransientError


class Obedient:
    """Does what the request (or the request's `order`) says."""

    def load(self) -> None:
        self.calls = 0

    def __call__(self, request):
        self.calls += 1
        order = getattr(request, "row", {}).get("order", request) if not isinstance(request, str) else request
        name, _, argument = order.partition(":")
        return getattr(self, f"do_{name}")(argument, request)

    def close(self) -> None:
        pass

    def do_echo(self, argument, request):
        return argument

    def do_count(self, argument, request):
        return self.calls

    def do_segfault(self, argument, request):
        os.kill(os.getpid(), signal.SIGSEGV)

    def do_kill(self, argument, request):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_exit(self, argument, request):
        os._exit(int(argument))

    def do_hang(self, argument, request):
        time.sleep(3600)

    def do_bomb(self, argument, request):
        hoard = []
        while True:
            hoard.append(b"x" * 20_000_000)

    def do_input(self, argument, request):
        raise InputError("broken picture")

    def do_bug(self, argument, request):
        raise ZeroDivisionError("one over nothing")

    def do_transient(self, argument, request):
        raise TransientError("the server is busy")

    def do_place(self, argument, request):
        raise RunError("the disk is full")

    def do_starve(self, argument, request):
        """Too little memory until the window was halved as often as asked."""
        if request.halvings < int(argument):
            raise ResourceError("window too large")
        return request.halvings

    def do_flaky(self, argument, request):
        """Fails until it has left as many marks as asked."""
        path, _, times = argument.partition("*")
        marks = Path(path)
        marks.write_text(marks.read_text() + "x" if marks.exists() else "x")
        if len(marks.read_text()) <= int(times):
            raise TransientError("not yet")
        return "at last"


class Unloadable(Obedient):
    """Its models are missing."""

    def load(self) -> None:
        raise FileNotFoundError("weights.bin")
