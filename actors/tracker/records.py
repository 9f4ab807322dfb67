"""What the tracker says about a target in a frame, and the interface that a host of it relies on.

Made by tracker.py, read by serve/, by the command line and by whoever draws an overlay. Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from actors.messages import frozen


class Phase(StrEnum):
    """Where a target stands; machine.py holds the transitions."""

    ACQUIRE = "acquire"  # searched for in the whole picture
    VERIFY = "verify"  # a candidate is followed and compared with the bank again before anyone relies on it
    TRACK = "track"  # followed, and verified on a schedule
    SUSPECT = "suspect"  # followed, but something speaks against it: nothing is learnt from these frames
    LOST = "lost"  # not followed; searched for near where it was last


class Reason(StrEnum):
    """What led to the present phase, or keeps it: the label of the last transition."""

    STARTED = "started"
    NOTHING_PROPOSED = "nothing_proposed"  # the segmenter cut out nothing at all
    ALL_REJECTED = "all_rejected"  # things were cut out, none is like the templates
    CANDIDATE = "candidate"  # a proposal is like the templates
    CONFIRMED = "confirmed"  # it stayed so over the frames of VERIFY
    REFUTED = "refuted"  # compared again it was not like the templates
    PRESENCE_LOW = "presence_low"  # the backend is no longer sure that the object is there
    AREA_JUMP = "area_jump"  # the mask grew or shrank by more than an object does between frames
    APPEARANCE = "appearance"  # a scheduled comparison with the bank failed
    MASK_EMPTY = "mask_empty"
    DARK_FRAME = "dark_frame"  # nothing can be seen in the picture
    RECOVERED = "recovered"
    BUDGET_SPENT = "budget_spent"  # the phase's frame budget is over
    FRAME_SIZE_CHANGED = "frame_size_changed"


@dataclass(frozen=True, slots=True)
class TrackState:
    """One target in one frame."""

    target: str
    frame_index: int  # frames that this tracker was given before this one
    time_ns: int  # the frame's own instant, as given
    phase: Phase
    reason: Reason
    frames_in_phase: int  # 1 in the first frame of a phase
    mask: np.ndarray | None  # (H, W) bool; None where there is no position (ACQUIRE, LOST)
    box_px: np.ndarray | None  # (4,) float32 xyxy around the mask
    score: float | None  # likeness to the templates at the last comparison, about 0..1; None before the first
    threshold: float  # what `score` has to reach for this target
    presence: float  # 0..1, the backend's own belief that the object is in the picture; 0 without a position

    def __post_init__(self) -> None:
        """Check shapes once and make the arrays read-only."""
        set_ = object.__setattr__
        if (self.mask is None) != (self.box_px is None):
            raise ValueError("mask and box_px come together or not at all")
        if self.mask is not None and self.box_px is not None:
            set_(self, "mask", frozen(self.mask, np.bool_, (None, None), "mask"))
            set_(self, "box_px", frozen(self.box_px, np.float32, (4,), "box_px"))

    def as_json(self) -> dict[str, Any]:
        """Everything but the mask's pixels, in types that json knows."""
        return {
            "target": self.target,
            "frame_index": self.frame_index,
            "time_ns": self.time_ns,
            "phase": self.phase.value,
            "reason": self.reason.value,
            "frames_in_phase": self.frames_in_phase,
            "box_px": None if self.box_px is None else [round(float(edge), 1) for edge in self.box_px],
            "area_px": None if self.mask is None else int(np.count_nonzero(self.mask)),
            "score": None if self.score is None else round(self.score, 4),
            "threshold": round(self.threshold, 4),
            "presence": round(self.presence, 4),
        }


class TrackerLike(Protocol):
    """What a host needs of tracker.Tracker. Call from one thread at a time.

    `bank` is a template bank as `banks.read_bank` gives it. A saved state is a dict of str, int, float, bool, None,
    list, dict and numpy arrays only, so msgpack with numpy carries it; it holds the banks too and needs no file.
    """

    def load(self) -> None:
        """Read the models; a second call does nothing. Raises MissingWeight with the command to run."""

    def warm_up(self) -> None:
        """Load, and run once, so that the first real frame is not slower than the others."""

    def add_target(self, bank: Any, name: str | None = None) -> str:
        """Follow one more object from the next frame on; its name, the bank's own unless given.

        Raises BankMismatch when the bank was made with another embedder or preprocessing, ValueError when the name is
        taken.
        """

    def remove_target(self, name: str) -> None:
        """Forget a target. Raises UnknownTarget."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Names in the order in which they were added."""

    def step(self, image: np.ndarray, time_ns: int) -> tuple[TrackState, ...]:
        """One (H, W, 3) uint8 RGB frame → one state per target, in the order of `targets`.

        `time_ns` must not go back. Raises ValueError for another shape or dtype; never for what the picture shows.
        """

    def save(self) -> dict[str, Any]:
        """The whole state of every target, for another process to go on from."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `save` gave; a search that was under way starts again. Raises BankMismatch, ValueError."""

    def close(self) -> None:
        """Free models and stop a search that is under way. Safe before load() and when called twice."""
