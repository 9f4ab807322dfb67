"""One target over time: what speaks for it and against it in each frame, and when that is enough to change phase.

In: what the backend followed, and comparisons with the bank. Out: transitions of its Machine. Called by tracker.py.
Every change needs more than one frame's word (hysteresis) and every phase but ACQUIRE and TRACK has a frame budget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.tracker.backend import Followed, box_of
from actors.tracker.banks import Bank, restore_bank
from actors.tracker.machine import Machine
from actors.tracker.records import Phase, Reason, TrackState


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often; in frames unless said otherwise."""

    verify_every: int = 2  # VERIFY: between comparisons
    confirmations: int = 2  # comparisons that must hold before TRACK
    refutations: int = 2  # comparisons that must fail before VERIFY or SUSPECT give up
    verify_budget: int = 20
    track_every: int = 15  # TRACK: between scheduled comparisons
    slack: float = 0.05  # a followed object is believed at this much below the threshold it was found with
    least_presence: float = 0.35
    low_presence: int = 2  # frames in a row
    most_growth: float = 2.2  # area over the median of the last frames, or its inverse
    suspect_every: int = 4  # SUSPECT: between comparisons
    calm: int = 3  # frames without a fault before SUSPECT ends
    suspect_budget: int = 30
    search_every: int = 5  # between searches in line, each of which may take seconds; a thread searches all the time
    local_searches: int = 2  # LOST: searches near the last place before the whole picture
    local_reach: float = 1.5  # box sizes around the last box that a local search covers


AREAS_KEPT = 10


class Target:
    """State of one target. Its name is the tracker's business."""

    def __init__(self, bank: Bank, patience: Patience) -> None:
        self.bank, self.patience = bank, patience
        self.machine = Machine()
        self.score: float | None = None
        self.last_box: np.ndarray | None = None
        self._areas: deque[int] = deque(maxlen=AREAS_KEPT)
        self._held = self._failed = self._low = self._calm = self._searches = 0

    @property
    def followed(self) -> bool:
        """Whether the backend follows it now."""
        return self.machine.phase in (Phase.VERIFY, Phase.TRACK, Phase.SUSPECT)

    @property
    def learns(self) -> bool:
        """Whether this frame may shape what the backend remembers."""
        return self.machine.phase in (Phase.VERIFY, Phase.TRACK)

    def region_01(self, height: int, width: int) -> np.ndarray | None:
        """Where to look for it: around its last place while LOST, else everywhere."""
        if self.machine.phase is not Phase.LOST or self.last_box is None:
            return None
        box, reach = self.last_box, self.patience.local_reach
        grown = reach * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1] + box
        return np.clip(grown / [width, height, width, height], 0, 1).astype(np.float32)

    def reset(self) -> None:
        """The frame size changed: positions mean nothing any more."""
        self._fire(Reason.FRAME_SIZE_CHANGED)
        self.last_box, self.score = None, None

    def searched(self, reason: Reason, score: float | None) -> None:
        """A search came back; CANDIDATE means that the backend now follows it."""
        if score is not None:
            self.score = score
        self._searches += 1
        spent = self.machine.phase is Phase.LOST and self._searches >= self.patience.local_searches
        self._fire(Reason.BUDGET_SPENT if spent and reason is not Reason.CANDIDATE else reason)

    def judge(self, now: Followed, dark: bool, compare: Callable[[np.ndarray], float | None]) -> None:
        """One frame of being followed. `compare` gives the likeness of a mask's content in this frame."""
        area = int(np.count_nonzero(now.mask))
        if area:
            self.last_box = box_of(now.mask)
        self._low = self._low + 1 if now.presence < self.patience.least_presence else 0
        fault = self._fault(area, dark)
        if self.machine.phase is Phase.VERIFY:
            self._verify(now, fault, compare)
        elif self.machine.phase is Phase.TRACK:
            self._track(now, fault, compare)
        else:
            self._suspect(now, fault, compare)
        if fault is None and self.learns:
            self._areas.append(area)

    def _fault(self, area: int, dark: bool) -> Reason | None:
        if dark:
            return Reason.DARK_FRAME
        if not area:
            return Reason.MASK_EMPTY
        if self._low >= self.patience.low_presence:
            return Reason.PRESENCE_LOW
        usual = float(np.median(self._areas)) if self._areas else area
        if not 1 / self.patience.most_growth <= area / usual <= self.patience.most_growth:
            return Reason.AREA_JUMP
        return None

    def _verify(self, now: Followed, fault: Reason | None, compare: Callable[[np.ndarray], float | None]) -> None:
        if fault in (Reason.MASK_EMPTY, Reason.PRESENCE_LOW):
            self._fire(fault)
        elif self.machine.frames > self.patience.verify_budget:
            self._fire(Reason.BUDGET_SPENT)
        elif fault is None and self.machine.frames % self.patience.verify_every == 0:
            # No slack: what was not yet found to be the object must be as like it as a search demands.
            self._count(compare(now.mask), self.bank.threshold)
            if self._held >= self.patience.confirmations:
                self._fire(Reason.CONFIRMED)
            elif self._failed >= self.patience.refutations:
                self._fire(Reason.REFUTED)

    def _track(self, now: Followed, fault: Reason | None, compare: Callable[[np.ndarray], float | None]) -> None:
        if fault is None and self.machine.frames % self.patience.track_every == 0:
            self._failed = 0
            self._count(compare(now.mask), self.bank.threshold - self.patience.slack)
            if self._failed:
                fault = Reason.APPEARANCE
        if fault is not None:
            self._fire(fault)

    def _suspect(self, now: Followed, fault: Reason | None, compare: Callable[[np.ndarray], float | None]) -> None:
        self._calm = self._calm + 1 if fault is None else 0
        comparable = fault not in (Reason.DARK_FRAME, Reason.MASK_EMPTY)
        if comparable and self.machine.frames % self.patience.suspect_every == 0:
            self._count(compare(now.mask), self.bank.threshold - self.patience.slack)
        if self._calm >= self.patience.calm and self._held:
            self._fire(Reason.RECOVERED)
        elif self._failed >= self.patience.refutations:
            self._fire(Reason.REFUTED)
        elif self.machine.frames > self.patience.suspect_budget:
            self._fire(Reason.BUDGET_SPENT)

    def _count(self, score: float | None, least: float) -> None:
        """A comparison that holds clears the failures before it, and the other way round."""
        self.score = score if score is not None else self.score
        if score is not None and score >= least:
            self._held, self._failed = self._held + 1, 0
        else:
            self._held, self._failed = 0, self._failed + 1

    def _fire(self, reason: Reason) -> None:
        before = self.machine.phase
        after = self.machine.fire(reason)
        if before is after:
            return
        self._held = self._failed = self._low = self._calm = self._searches = 0
        if not self.followed:
            self._areas.clear()

    def state(self, name: str, frame_index: int, time_ns: int, now: Followed | None) -> TrackState:
        """What to tell about this frame."""
        shown = now is not None and self.followed and now.mask.any()
        return TrackState(
            target=name,
            frame_index=frame_index,
            time_ns=time_ns,
            phase=self.machine.phase,
            reason=self.machine.reason,
            frames_in_phase=self.machine.frames,
            mask=now.mask if shown and now is not None else None,
            box_px=box_of(now.mask) if shown and now is not None else None,
            score=self.score,
            threshold=self.bank.threshold,
            presence=float(now.presence) if shown and now is not None else 0.0,
        )

    def save(self) -> dict[str, Any]:
        """Plain values and numpy arrays, the bank's included."""
        counts = [self._held, self._failed, self._low, self._calm, self._searches]
        return {
            "bank": self.bank.save(),
            "machine": self.machine.save(),
            "score": self.score,
            "last_box": self.last_box,
            "areas": list(self._areas),
            "counts": counts,
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any], patience: Patience) -> Target:
        """The inverse of `save`."""
        target = cls(restore_bank(saved["bank"]), patience)
        target.machine.restore(saved["machine"])
        target.score, target.last_box = saved["score"], saved["last_box"]
        target._areas.extend(saved["areas"])
        target._held, target._failed, target._low, target._calm, target._searches = saved["counts"]
        return target
