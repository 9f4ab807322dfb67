"""Which detection at a prompt is which object that is already followed. Called by propagate.py.

At a prompt two masks of the same frame are compared: the one that was carried here and the one just detected. So a hand
that moved across the picture since the last prompt keeps its identity; boxes of two seconds ago are never compared.
What is lost from sight comes back by its looks. Pure NumPy and SciPy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_jobs.egoworld.operators.geometry import mask_iou

# Two masks of one frame that share this much are one object, whatever they are called.
SAME_IOU = 0.5
# A mask that drifted still shares this much with its object, and looks like it.
DRIFTED_IOU, DRIFTED_LIKENESS = 0.2, 0.7
# Out of sight there is no overlap to ask: same name, and more alike than neighbours on a table are (see docs).
RETURNED_LIKENESS = 0.85

# How fast the remembered looks follow the present ones.
LOOKS_UPDATE = 0.3


@dataclass(slots=True)
class Identity:
    """One object of a clip."""

    votes: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # label → sum of scores
    looks: np.ndarray | None = None  # (C,) unit length
    score: float = 0.0  # of the last detection
    last_seen_s: float = 0.0

    @property
    def label(self) -> str:
        """The name that detections gave it most."""
        return max(sorted(self.votes), key=lambda name: self.votes[name])

    def found(self, label: str, score: float, looks: np.ndarray, time_s: float) -> None:
        """Take in one detection."""
        self.votes[label] += score
        blended = looks if self.looks is None else (1 - LOOKS_UPDATE) * self.looks + LOOKS_UPDATE * looks
        self.looks = blended / max(float(np.linalg.norm(blended)), 1e-9)
        self.score, self.last_seen_s = score, time_s


@dataclass(frozen=True, slots=True)
class Sighting:
    """One detection, segmented."""

    label: str
    score: float
    mask: np.ndarray  # (H, W) bool, not empty
    looks: np.ndarray  # (C,) unit length


def match(
    sightings: Sequence[Sighting], known: Mapping[int, Identity], present: Mapping[int, np.ndarray]
) -> dict[int, int]:
    """Index of a sighting → object id, one to one. `present` holds the masks of objects that are in the frame."""
    from scipy.optimize import linear_sum_assignment  # here: it takes seconds to import, and every start pays

    ids = sorted(known)
    if not sightings or not ids:
        return {}
    gain = np.array([[_gain(one, known[k], present.get(k)) for k in ids] for one in sightings])
    return {int(r): ids[c] for r, c in zip(*linear_sum_assignment(-gain), strict=True) if gain[r, c] > 0}


def _gain(sighting: Sighting, identity: Identity, mask: np.ndarray | None) -> float:
    """0: another object. Overlap in the frame counts more than any likeness without it."""
    likeness = 0.0 if identity.looks is None else float(sighting.looks @ identity.looks)
    if mask is None:
        returned = sighting.label in identity.votes and likeness >= RETURNED_LIKENESS
        return likeness if returned else 0.0
    overlap = mask_iou(sighting.mask, mask)
    if overlap >= SAME_IOU or (overlap >= DRIFTED_IOU and likeness >= DRIFTED_LIKENESS):
        return 1.0 + overlap
    return 0.0
