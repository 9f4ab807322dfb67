"""Finding targets in one frame: everything the segmenter cuts out, compared with every bank that is looked for.

In: a frame, and who is looked for where. Out: the best mask of each, or why there is none. Called by tracker.py, maybe
in another thread; keeps nothing between frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from actors.tracker.banks import Bank
from actors.tracker.records import Reason
from models.embedding.embedder import Descriptors, Embedder
from models.proposals import PointDecoder, Profile, Proposals, propose

# CNOS's least mask; and what fills more of the picture is the table, not the thing on it.
LEAST_AREA_SHARE = 3e-4
MOST_AREA_SHARE = 0.5
# Around the last place a coarser grid is as dense as the picture's.
LOCAL_POINTS_PER_SIDE = 8
# What is by so little less similar than a part of it is the whole (benchmarks/tracker_lmo.py tells what that gives).
WHOLE_SLACK = 0.02
HELD_SHARE = 0.9
MOST_TIMES_LARGER = 4


@dataclass(frozen=True, slots=True)
class Sought:
    """One target that is looked for."""

    bank: Bank
    region_01: np.ndarray | None  # (4,) xyxy in 0..1 of the picture; None: everywhere


@dataclass(frozen=True, slots=True)
class Found:
    """The best candidate for one target, or none."""

    reason: Reason  # CANDIDATE, ALL_REJECTED or NOTHING_PROPOSED
    mask: np.ndarray | None = None  # (H, W) bool, of the frame that was searched
    score: float | None = None  # of the best proposal, accepted or not


class Searcher:
    """Owns nothing but the way: backbone and embedder are the tracker's."""

    def __init__(self, decoder: Callable[[np.ndarray], PointDecoder], embedder: Embedder, profile: Profile) -> None:
        self._decoder, self._embedder, self._profile = decoder, embedder, profile

    def search(self, image: np.ndarray, sought: Mapping[str, Sought], rivals: Sequence[Bank] = ()) -> dict[str, Found]:
        """One answer per name. `rivals`: a candidate must be more like its own bank than like any of them."""
        decoder = self._decoder(image)
        answers = {}
        for region, names in _by_region(sought):
            proposals, found = self.objects(image, decoder, region)
            for name in names:
                bank = sought[name].bank
                answers[name] = _best(proposals, found, bank, rivals_of(bank, rivals))
        return answers

    def objects(
        self, image: np.ndarray, decoder: PointDecoder | None = None, region_01: np.ndarray | None = None
    ) -> tuple[Proposals, Descriptors]:
        """Everything of a plausible size, and its descriptors; `index` leads from these to the proposals."""
        profile = self._profile
        if region_01 is not None:
            profile = replace(profile, points_per_side=min(LOCAL_POINTS_PER_SIDE, profile.points_per_side))
        proposals = propose(decoder or self._decoder(image), profile, region_01)
        shares = proposals.masks.mean(axis=(1, 2)) if len(proposals.masks) else np.zeros(0)
        plausible = np.flatnonzero((shares >= LEAST_AREA_SHARE) & (shares <= MOST_AREA_SHARE))
        found = self._embedder.embed(image, proposals.masks[plausible])
        return proposals, replace(found, index=plausible[found.index])


def _by_region(sought: Mapping[str, Sought]) -> list[tuple[np.ndarray | None, list[str]]]:
    """Whoever is looked for everywhere shares one grid; each of the others has its own."""
    everywhere = [name for name, each in sought.items() if each.region_01 is None]
    groups: list[tuple[np.ndarray | None, list[str]]] = [(None, everywhere)] if everywhere else []
    return groups + [(each.region_01, [name]) for name, each in sought.items() if each.region_01 is not None]


def _best(proposals: Proposals, found: Descriptors, bank: Bank, rivals: Sequence[Bank]) -> Found:
    if not len(found.index):
        return Found(Reason.NOTHING_PROPOSED)
    scores = bank.likeness(found)
    masks = proposals.masks[found.index]
    best = int(scores.argmax())
    best = whole_of(best, scores, masks.sum(axis=(1, 2)), (masks & masks[best]).sum(axis=(1, 2)), bank.threshold)
    score = float(scores[best])
    if score < bank.threshold or beaten(score, _row(found, best), bank, rivals):
        return Found(Reason.ALL_REJECTED, score=score)
    return Found(Reason.CANDIDATE, masks[best], score)


def whole_of(best: int, scores: np.ndarray, areas: np.ndarray, shared: np.ndarray, threshold: float = 0.0) -> int:
    """The row of the largest mask that holds mask `best` and is about as similar, at least `threshold`; else `best`.

    A duck's body is much like a duck. Where the segmenter offers both, the body with its head is meant. All are (K,):
    `shared` is how many pixels each has in common with `best`.
    """
    holds = (shared >= HELD_SHARE * areas[best]) & (areas <= MOST_TIMES_LARGER * areas[best])
    similar = scores >= max(threshold, scores[best] - WHOLE_SLACK)
    wholes = np.flatnonzero(holds & similar)
    return int(wholes[areas[wholes].argmax()]) if len(wholes) else best


def rivals_of(bank: Bank, banks: Sequence[Bank]) -> list[Bank]:
    """All but the bank itself, under however many targets; a restored one is another copy of it."""
    return [each for each in banks if each.name != bank.name or not np.array_equal(each.vectors, bank.vectors)]


def beaten(score: float, one: Descriptors, bank: Bank, rivals: Sequence[Bank]) -> bool:
    """Whether one object with this likeness to `bank` is as much like a rival."""
    return any(score < float(rival.likeness(one)[0]) + bank.margin for rival in rivals)


def _row(found: Descriptors, row: int) -> Descriptors:
    one = slice(row, row + 1)
    rows = (found.vectors, found.patches, found.on_object, found.colours, found.index)
    return Descriptors(*(each[one] for each in rows))
