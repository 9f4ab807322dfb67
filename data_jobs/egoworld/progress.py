"""What a person sees while a run works: files or clips done, rate, time left, dead letters.

Rich bars on a terminal, else a line now and then. Fed by listing.py and run.py."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

# Where nobody watches (a log file), a line this often is enough to see life without flooding.
LOG_EVERY_S = 15.0


class Progress:
    """Shows one phase at a time: listing, then working."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._phase: Any = None
        self._started = self._spoke = 0.0
        self._first = 0

    def __enter__(self) -> Progress:
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing; the terminal is left clean."""
        self._bars.stop()

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a phase of `total` steps, `done` of which were done before."""
        if self._phase is not None:
            self._bars.remove_task(self._phase)
        self._phase = self._bars.add_task(name, total=total, completed=done, note="")
        self._started = self._spoke = time.monotonic()
        self._first = done

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Move the current phase to `done` steps, of `total` if that is only known now."""
        self._bars.update(self._phase, completed=done, note=escape(note), total=total)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._spoke >= LOG_EVERY_S:
            self._spoke = now
            task = self._bars.tasks[-1]
            self.console.print(f"{task.description}: {done}/{task.total:.0f} {note}", highlight=False)

    def eta_s(self, done: int, total: int) -> float | None:
        """Seconds left at the rate of this phase so far; None before anything is done."""
        moved = done - self._first
        return (time.monotonic() - self._started) * (total - done) / moved if moved > 0 else None
