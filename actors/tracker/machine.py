"""The state chart of one target, as a table: which reason leads from which phase to which.

In: reasons. Out: the phase. Called by target.py; docs/tracker.md shows the chart that `mermaid` draws from this very
table. Knows nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.tracker.records import Phase, Reason

A, V, T, S, L = Phase.ACQUIRE, Phase.VERIFY, Phase.TRACK, Phase.SUSPECT, Phase.LOST

TRANSITIONS: Mapping[tuple[Phase, Reason], Phase] = {
    (A, Reason.NOTHING_PROPOSED): A,
    (A, Reason.ALL_REJECTED): A,
    (A, Reason.CANDIDATE): V,
    (V, Reason.CONFIRMED): T,
    (V, Reason.REFUTED): A,
    (V, Reason.MASK_EMPTY): A,
    (V, Reason.PRESENCE_LOW): A,
    (V, Reason.BUDGET_SPENT): A,
    (T, Reason.PRESENCE_LOW): S,
    (T, Reason.AREA_JUMP): S,
    (T, Reason.APPEARANCE): S,
    (T, Reason.MASK_EMPTY): S,
    (T, Reason.DARK_FRAME): S,
    (S, Reason.RECOVERED): T,
    (S, Reason.REFUTED): L,
    (S, Reason.BUDGET_SPENT): L,
    (L, Reason.NOTHING_PROPOSED): L,
    (L, Reason.ALL_REJECTED): L,
    (L, Reason.CANDIDATE): V,
    (L, Reason.BUDGET_SPENT): A,
    **{(phase, Reason.FRAME_SIZE_CHANGED): A for phase in Phase},
}


class Machine:
    """Where one target stands, why, and since how many frames."""

    def __init__(self) -> None:
        self.phase, self.reason = Phase.ACQUIRE, Reason.STARTED
        self.frames = 0  # in this phase, the present one included

    def tick(self) -> None:
        """One more frame."""
        self.frames += 1

    def fire(self, reason: Reason) -> Phase:
        """Follow the transition. Raises KeyError for a reason that the phase does not know: a mistake in our code."""
        after = TRANSITIONS[self.phase, reason]
        if after is not self.phase:
            self.frames = 1
        self.phase, self.reason = after, reason
        return after

    def save(self) -> dict[str, Any]:
        """Plain values."""
        return {"phase": self.phase.value, "reason": self.reason.value, "frames": self.frames}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """The inverse of `save`."""
        self.phase, self.reason = Phase(saved["phase"]), Reason(saved["reason"])
        self.frames = saved["frames"]


def mermaid() -> str:
    """The table as a Mermaid state diagram, one arrow per pair of phases."""
    arrows: dict[tuple[Phase, Phase], list[str]] = {}
    for (before, reason), after in TRANSITIONS.items():
        if reason is not Reason.FRAME_SIZE_CHANGED:
            arrows.setdefault((before, after), []).append(reason.value)
    lines = [
        f"    {before.value} --> {after.value}: {', '.join(reasons)}" for (before, after), reasons in arrows.items()
    ]
    start = f"    [*] --> {Phase.ACQUIRE.value}: {Reason.STARTED.value}"
    note = f"    note right of {Phase.ACQUIRE.value}: from any phase, {Reason.FRAME_SIZE_CHANGED.value}"
    return "\n".join(["stateDiagram-v2", start, *lines, note])
