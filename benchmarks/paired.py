"""One figure beside its peer's, taken in pairs: what every measurement of `make bench` is made of.

In: samples of ours and theirs, one pair per repeat, taken one after the other so that other load falls on both.
Out: the ratio's median and spread, as a table row and as JSON. Used by the benchmarks and by __main__.py.
What is no ratio of times (an agreement, a peak of memory) is a Fact.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

# An odd number, so that the median is a measurement; five is the fewest that shows a spread.
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paired samples of one figure."""

    what: str
    peer: str
    unit: str
    better: Literal["more", "less"]
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    command: str

    def __post_init__(self) -> None:
        """Raises ValueError unless there are pairs enough."""
        if len(self.ours) != len(self.theirs) or len(self.ours) < REPEATS:
            raise ValueError(f"{self.what}: {len(self.ours)} and {len(self.theirs)} samples are not {REPEATS} pairs")

    @property
    def ratios(self) -> list[float]:
        """How many times better ours was in each pair."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return [ours / theirs if self.better == "more" else theirs / ours for ours, theirs in pairs]

    def as_json(self) -> dict[str, Any]:
        """Everything, with the ratio's median, least and most."""
        ratios = self.ratios
        return {**asdict(self), "ratio": median(ratios), "ratio_least": min(ratios), "ratio_most": max(ratios)}


@dataclass(frozen=True, slots=True)
class Fact:
    """A finding that is not one of pairs."""

    what: str
    found: str
    command: str

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        return asdict(self)


def row(told: dict[str, Any]) -> str:
    """One line of the table: `| what | ours | peer | times better | spread | command |`."""
    if "found" in told:
        return f"| {told['what']} | {told['found']} | | | | `{told['command']}` |"
    ours, theirs = median(told["ours"]), median(told["theirs"])
    return (
        f"| {told['what']} | {ours:.3g} {told['unit']} | {told['peer']}: {theirs:.3g} | {told['ratio']:.2f} × "
        f"| {told['ratio_least']:.2f} … {told['ratio_most']:.2f} in {len(told['ours'])} pairs | `{told['command']}` |"
    )


def brief(told: dict[str, Any]) -> str:
    """One line of the README's table: `| what | finding | command |`."""
    if "found" in told:
        return f"| {told['what']} | {told['found']} | `{told['command']}` |"
    spread = f"{told['ratio_least']:.2f} to {told['ratio_most']:.2f}"
    return f"| {told['what']} against {told['peer']} | {told['ratio']:.2f} × as good ({spread}) | `{told['command']}` |"


HEADER = "| what | here | beside | better by | spread | command |\n|---|---|---|---|---|---|"


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def in_turns(
    ours: Callable[[], float], theirs: Callable[[], float], repeats: int = REPEATS
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Samples of both, alternating, after one uncounted pair."""
    pairs = [(ours(), theirs()) for _ in range(repeats + 1)][1:]
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def blocks(samples: Sequence[float], figure: Callable[[Any], Any], count: int = REPEATS) -> tuple[float, ...]:
    """`figure` of `count` stretches of a long series of samples."""
    size = len(samples) // count
    return tuple(float(figure(samples[i * size : (i + 1) * size])) for i in range(count))


def machine() -> dict[str, Any]:
    """What it ran on, and what else ran."""
    return {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "date": time.strftime("%Y-%m-%d")}
