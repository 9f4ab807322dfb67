"""An absolute schedule on a monotonic clock, and lateness as a number.

In: a period. Out: ticks that say how late they are and how many were missed. Used by loop.py; knows nothing of robots.
Tick n is due at start + n * period whatever happened before: a late tick does not push the ones behind it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class Clock(Protocol):
    """A monotonic clock that can be waited on."""

    @property
    def virtual(self) -> bool:
        """Whether time passes only while somebody waits: then everything runs in one thread, in order."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed instant."""

    def sleep_until_ns(self, instant_ns: int) -> None:
        """Return at or shortly after the instant."""


class MonotonicClock:
    """The machine's own."""

    virtual = False

    def now_ns(self) -> int:
        """time.monotonic_ns."""
        return time.monotonic_ns()

    def sleep_until_ns(self, instant_ns: int) -> None:
        """Sleep, without spinning: the loop shares two cores with the models."""
        remaining_ns = instant_ns - time.monotonic_ns()
        if remaining_ns > 0:
            time.sleep(remaining_ns / 1e9)


@dataclass(slots=True)
class VirtualClock:
    """Time that passes only while somebody waits for it: the simulator as fast as possible, and tests."""

    instant_ns: int = 0

    @property
    def virtual(self) -> bool:
        """It is."""
        return True

    def now_ns(self) -> int:
        """The instant reached so far."""
        return self.instant_ns

    def sleep_until_ns(self, instant_ns: int) -> None:
        """Jump there; never backwards."""
        self.instant_ns = max(self.instant_ns, instant_ns)


@dataclass(frozen=True, slots=True)
class Tick:
    """One turn of the loop."""

    index: int  # counts every slot of the schedule, missed ones too
    due_ns: int
    late_ns: int
    missed: int  # slots that passed unserved right before this one
    clock_jumped: bool = False  # the clock ran backwards or leapt; ages measured across it mean nothing


# A gap this long is not lateness but a suspended machine or a set clock.
JUMP_NS = 1_000_000_000


class Schedule:
    """Absolute ticks. `next` waits for the coming slot; slots that are over by then are counted, not made up for."""

    def __init__(self, rate_hz: float, clock: Clock) -> None:
        self.period_ns = round(1e9 / rate_hz)
        self._clock = clock
        self._index = -1
        self._start_ns = clock.now_ns()
        self._last_ns = self._start_ns

    def next(self) -> Tick:
        """Wait for the next slot."""
        before_ns = self._clock.now_ns()
        if before_ns < self._last_ns or before_ns - self._last_ns > JUMP_NS:
            return self._anchor_anew(before_ns)
        slot = max(self._index + 1, (before_ns - self._start_ns) // self.period_ns)
        due_ns = self._start_ns + slot * self.period_ns
        self._clock.sleep_until_ns(due_ns)
        now_ns = self._clock.now_ns()
        missed = slot - self._index - 1
        self._index, self._last_ns = slot, now_ns
        return Tick(slot, due_ns, max(0, now_ns - due_ns), missed, abs(now_ns - due_ns) > JUMP_NS)

    def _anchor_anew(self, now_ns: int) -> Tick:
        self._index += 1
        self._start_ns = now_ns - self._index * self.period_ns
        self._last_ns = now_ns
        return Tick(self._index, now_ns, 0, 0, clock_jumped=True)


# 20 µs bins up to 200 ms: fine enough for a p99 of 2 ms, flat in memory however long the loop runs.
BIN_NS = 20_000
BINS = 10_000


@dataclass(slots=True)
class Lateness:
    """Histogram of how late ticks were."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS + 1, np.int64))
    worst_ns: int = 0
    missed: int = 0

    def add(self, tick: Tick) -> None:
        """Count one tick and the slots missed before it."""
        self.counts[min(tick.late_ns // BIN_NS, BINS)] += 1
        self.worst_ns = max(self.worst_ns, tick.late_ns)
        self.missed += tick.missed

    @property
    def ticks(self) -> int:
        """How many ticks were served."""
        return int(self.counts.sum())

    def percentile_ms(self, percent: float) -> float:
        """Upper edge of the bin that holds the percentile; 0 before the first tick."""
        if not self.ticks:
            return 0.0
        reached = np.cumsum(self.counts) >= self.ticks * percent / 100
        return float((int(np.argmax(reached)) + 1) * BIN_NS / 1e6)

    def on_time(self) -> float:
        """Share of all slots, missed ones included, that were served within their own period."""
        total = self.ticks + self.missed
        return self.ticks / total if total else 1.0
