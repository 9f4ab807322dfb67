"""The live panel in the terminal: rate, lateness, state, joints.

In: TickRecords (a sink of loop.py). Out: a rich table drawn by rich's own thread, at 5 Hz. Drawing never happens in a
tick: the sink only keeps the newest record.
"""

from __future__ import annotations

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel as Frame
from rich.table import Table
from rich.text import Text

from robot.loop import LoopReport, TickRecord
from robot.records import JOINTS, LoopState

COLOURS = {
    LoopState.MOVE: "bold green",
    LoopState.HOLD: "bold yellow",
    LoopState.RETURN: "bold cyan",
    LoopState.ESTOP: "bold white on red",
}
BAR_WIDTH = 24


class TerminalPanel:
    """Shows one run while it is entered as a context."""

    def __init__(
        self, console: Console, title: str, report: LoopReport, lower_rad: np.ndarray, upper_rad: np.ndarray
    ) -> None:
        self._title, self._report = title, report
        self._lower, self._upper = lower_rad, upper_rad
        self._newest: TickRecord | None = None
        self._first_ns = 0
        self._live = Live(get_renderable=self.draw, console=console, refresh_per_second=5, transient=False)

    def __call__(self, record: TickRecord) -> None:
        """Keep the newest."""
        self._first_ns = self._first_ns or record.now_ns
        self._newest = record

    def __enter__(self) -> TerminalPanel:
        """Begin drawing."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Draw the last state and stop."""
        self._live.stop()

    def draw(self) -> Frame:
        """The whole panel."""
        record = self._newest
        if record is None:
            return Frame("waiting for the first tick", title=self._title)
        return Frame(Group(self._status(record), self._joints(record)), title=self._title, width=78)

    def _status(self, record: TickRecord) -> Table:
        report, lateness = self._report, self._report.lateness
        elapsed_s = max(1e-9, (record.now_ns - self._first_ns) / 1e9)
        grid = Table.grid(padding=(0, 2))
        state = record.command.state
        label = Text(state.value.upper() + (f" · {record.command.reason}" if record.command.reason else ""))
        label.stylize(COLOURS[state])
        grid.add_row("state", label)
        grid.add_row(
            "rate", f"{(lateness.ticks - 1) / elapsed_s:5.1f} Hz · tick {record.tick.index} · {elapsed_s:.1f} s"
        )
        late = f"p50 {lateness.percentile_ms(50):.2f} · p99 {lateness.percentile_ms(99):.2f}"
        grid.add_row("late", f"{late} · worst {lateness.worst_ns / 1e6:.2f} ms · missed {lateness.missed}")
        compute = f"{np.mean(report.compute_ms[-50:]):.1f} ms" if report.compute_ms else "none yet"
        grid.add_row("decide", f"{report.decisions} decisions · {compute}")
        if report.last_failure:
            grid.add_row("last fault", Text(report.last_failure[:60], style="yellow"))
        return grid

    def _joints(self, record: TickRecord) -> Table:
        table = Table(box=None, pad_edge=False)
        for name, justify in (("joint", "left"), ("measured", "right"), ("command", "right"), ("range", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        measured = None if record.observation is None else record.observation.joints.position_rad
        for index, name in enumerate(JOINTS):
            value = record.command.target_rad[index] if measured is None else measured[index]
            shown = "--" if measured is None else f"{np.degrees(value):7.1f}°"
            command = f"{np.degrees(record.command.target_rad[index]):7.1f}°"
            table.add_row(name, shown, command, self._bar(index, float(value)))
        return table

    def _bar(self, index: int, value: float) -> str:
        share = (value - self._lower[index]) / (self._upper[index] - self._lower[index])
        place = int(np.clip(np.nan_to_num(share), 0, 1) * (BAR_WIDTH - 1))
        return "─" * place + "●" + "─" * (BAR_WIDTH - 1 - place)
