"""Tracker: frames and banks in, a TrackState per target and frame out. The class that every host builds.

In: (H, W, 3) uint8 RGB frames with their instants. Out: records. Called by serve/, by the command line and by tests.
Knows nothing of Ray, files or wire formats. Implements records.TrackerLike.

Order of a frame: the backend sees it; a search that has come back is taken up; each target judges what it sees; and if
anyone has no position, a search of this frame begins at the desk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np

from actors.tracker.backend import Backend, Followed
from actors.tracker.banks import Bank
from actors.tracker.errors import UnknownTarget
from actors.tracker.flow import FlowBackend
from actors.tracker.motion import Carrier, Grey
from actors.tracker.records import Reason, TrackState
from actors.tracker.search import Found, Searcher, Sought, beaten, rivals_of
from actors.tracker.target import Patience, Target
from actors.tracker.work import Desk
from models.embedding.embedder import Embedder
from models.proposals import PROFILES, Profile

# Mean grey of a frame, of 255, below which nothing can be told.
DARK_BELOW = 6.0


class Tracker:
    """Zero-shot tracker. Call from one thread at a time.

    `background` searches in a thread, so that `step` never waits for one (a live camera); False searches in line, so
    that equal frames give equal states (a film). `make_backend` gets the desk; the default is MobileSAM and optical
    flow on the CPU. `distractors` are banks of things that are never followed: a candidate must be less like them.
    """

    def __init__(
        self,
        *,
        background: bool = True,
        make_backend: Any = FlowBackend,
        embedder: Embedder | None = None,
        profile: Profile = PROFILES["edge"],
        patience: Patience | None = None,
        distractors: Sequence[Bank] = (),
    ) -> None:
        self._desk = Desk(background)
        self._backend: Backend = make_backend(self._desk)
        self._embedder = embedder or Embedder()
        self._searcher = Searcher(self._backend.decoder, self._embedder, profile)
        self._patience = patience or Patience()
        self._distractors = tuple(distractors)
        self._targets: dict[str, Target] = {}
        self._frame, self._time_ns, self._next_search = -1, -1, 0
        self._size: tuple[int, int] | None = None
        self._search: Future | None = None
        self._carrier: Carrier | None = None
        self._image: np.ndarray | None = None

    def load(self) -> None:
        """See TrackerLike."""
        self._embedder.load()
        self._backend.load()

    def warm_up(self) -> None:
        """See TrackerLike."""
        self.load()
        self._embedder.warm_up()
        self._backend.decoder(np.zeros((48, 64, 3), np.uint8))

    def add_target(self, bank: Bank, name: str | None = None) -> str:
        """See TrackerLike."""
        name = bank.name if name is None else name
        if name in self._targets:
            raise ValueError(f"a target is called {name!r} already; give this one another name")
        for each in (bank, *self._distractors):
            each.require(self._embedder)
        self._targets[name] = Target(bank, self._patience)
        return name

    def remove_target(self, name: str) -> None:
        """See TrackerLike."""
        if name not in self._targets:
            raise UnknownTarget(f"no target is called {name!r}; there are: {', '.join(self._targets) or 'none'}")
        del self._targets[name]
        self._backend.forget(name)

    @property
    def targets(self) -> tuple[str, ...]:
        """See TrackerLike."""
        return tuple(self._targets)

    def step(self, image: np.ndarray, time_ns: int) -> tuple[TrackState, ...]:
        """See TrackerLike."""
        self._check(image, time_ns)
        self._frame, self._time_ns = self._frame + 1, time_ns
        if self._size not in (None, image.shape[:2]):
            self._forget_places()
        self._size, self._image = image.shape[:2], image
        now = self._backend.see(image, {name: each.learns for name, each in self._targets.items()})
        if self._carrier is not None:
            self._carrier.see(Grey.of(image))
        dark = float(image.mean()) < DARK_BELOW
        for name, target in self._targets.items():
            target.machine.tick()
            if target.followed and name in now:
                target.judge(now[name], dark, partial(self._compare, image, target.bank))
            if not target.followed:
                self._backend.forget(name)
        self._look_for_the_lost(image, dark, now)
        return tuple(target.state(name, self._frame, time_ns, now.get(name)) for name, target in self._targets.items())

    def save(self) -> dict[str, Any]:
        """See TrackerLike."""
        return {
            "frame": self._frame,
            "time_ns": self._time_ns,
            "next_search": self._next_search,
            "size": None if self._size is None else list(self._size),
            "targets": {name: target.save() for name, target in self._targets.items()},
            "backend": self._backend.save(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See TrackerLike."""
        targets = {name: Target.restored(saved, self._patience) for name, saved in state["targets"].items()}
        for target in targets.values():
            target.bank.require(self._embedder)
        self._backend.restore(state["backend"])
        self._targets, self._search, self._carrier = targets, None, None
        self._frame, self._time_ns = state["frame"], state["time_ns"]
        self._next_search = state["next_search"]
        self._size = None if state["size"] is None else (state["size"][0], state["size"][1])

    def close(self) -> None:
        """See TrackerLike."""
        self._desk.close()
        self._search = None
        self._backend.close()
        self._embedder.close()

    # --- inside --------------------------------------------------------------------------------------------------

    def _check(self, image: np.ndarray, time_ns: int) -> None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"a frame must be (H, W, 3) uint8 RGB, this one is {image.shape} {image.dtype}")
        if time_ns < self._time_ns:
            raise ValueError(f"time goes back: {time_ns} ns after {self._time_ns} ns")

    def _forget_places(self) -> None:
        for name, target in self._targets.items():
            self._backend.forget(name)
            target.reset()
        self._search = self._carrier = None

    def _compare(self, image: np.ndarray, bank: Bank, mask: np.ndarray) -> float | None:
        """Likeness of what the mask shows; None where it shows nothing, or something more like a rival."""
        found = self._embedder.embed(image, [mask])
        if not len(found.index):
            return None
        score = float(bank.likeness(found)[0])
        return None if beaten(score, found, bank, rivals_of(bank, self._banks())) else score

    def _banks(self) -> list[Bank]:
        return [*(target.bank for target in self._targets.values()), *self._distractors]

    def _look_for_the_lost(self, image: np.ndarray, dark: bool, now: dict[str, Followed]) -> None:
        """Take up what a search found; begin another while anyone is looked for and something can be seen."""
        self._take_up(now)
        seekers = {name: target for name, target in self._targets.items() if not target.followed}
        if self._search is not None or not seekers or dark or self._frame < self._next_search:
            return
        if not self._desk.background:
            self._next_search = self._frame + self._patience.search_every
        height, width = image.shape[:2]
        sought = {name: Sought(each.bank, each.region_01(height, width)) for name, each in seekers.items()}
        rivals = self._banks()
        self._carrier = Carrier(Grey.of(image)) if self._desk.background else None
        self._search = self._desk.submit(lambda: self._searcher.search(image, sought, rivals))
        self._take_up(now)

    def _take_up(self, now: dict[str, Followed]) -> None:
        if self._search is None or not self._search.done():
            return
        answers, carrier = self._search.result(), self._carrier
        self._search = self._carrier = None
        for name, found in answers.items():
            target = self._targets.get(name)
            if target is None or target.followed:
                continue
            mask = _carried(found, carrier)
            if found.reason is Reason.CANDIDATE and (mask is None or not mask.any()):
                continue  # it moved too fast to be carried to this frame; this one is searched next
            if mask is not None:
                now[name] = self._backend.begin(name, mask)
            target.searched(found.reason, found.score)


def _carried(found: Found, carrier: Carrier | None) -> np.ndarray | None:
    if found.mask is None or carrier is None:
        return found.mask
    return carrier.carry(found.mask)
