"""One run at a time per output folder. The kernel drops the lock when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from data_jobs.runs.errors import RunError
from data_jobs.runs.place_errors import place_errors


class RunLock:
    """An exclusive flock on `OUTPUT/.lock`, held as a context manager; RunError if somebody else holds it."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self._fd = -1

    def __enter__(self) -> RunLock:
        """Take the lock or say who has it."""
        with place_errors(self.output):
            self.output.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.output / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise RunError(
                f"another run is writing to {self.output} (process {holder}); wait for it or choose another --output"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        os.close(self._fd)
