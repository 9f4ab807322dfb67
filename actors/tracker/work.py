"""Where the slow work is done: in a thread beside the stream, or in line with it.

In: functions. Out: their results when they are there. Called by tracker.py and flow.py. A live camera takes the
thread, so that no frame waits for a search; a film takes the line, so that every run gives the same states.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Desk:
    """Runs one job after the other. `background=False` does each at once, before `submit` returns."""

    def __init__(self, background: bool) -> None:
        self.background = background
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, job: Callable[[], Any]) -> Future:
        """A future of the job's result; already done when in line. The job's exception is raised by `result()`."""
        if self.background:
            self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="tracker")
            return self._pool.submit(job)
        future: Future = Future()
        try:
            future.set_result(job())
        except Exception as error:  # noqa: BLE001  handed to whoever asks for the result, as a pool does
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Drop what waits and wait for what runs. Safe to call twice."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
