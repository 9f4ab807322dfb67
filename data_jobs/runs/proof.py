"""The closing proof: every planned unit is published done or dead, once, whole, and nothing else is there.

In: the planned ids and a run's folder or URL. Out: a Proof that says what is missing in words. Reads only the
published tree; the ledger is not asked. Called at the end of every run and by `verify`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from data_jobs.runs.places import Where, open_run


@dataclass(frozen=True, slots=True)
class Proof:
    """What the published tree holds against what was planned."""

    planned: int
    done: int
    dead: int
    lost: tuple[str, ...]  # planned, but neither done nor dead
    twice: tuple[str, ...]  # done and dead at the same time
    stray: tuple[str, ...]  # published, but never planned
    tree_sha256: str

    @property
    def holds(self) -> bool:
        """Whether planned = done + dead, with nothing lost, double or stray."""
        return not (self.lost or self.twice or self.stray)

    def sentence(self) -> str:
        """The proof in one line."""
        line = f"planned {self.planned} = done {self.done} + dead {self.dead}"
        if self.holds:
            return line
        faults = [
            f"{len(ids)} {what} (first: {ids[0]})"
            for what, ids in (("lost", self.lost), ("both done and dead", self.twice), ("never planned", self.stray))
            if ids
        ]
        return f"NOT accounted for: planned {self.planned}, done {self.done}, dead {self.dead}; {'; '.join(faults)}"


def published_ids(where: Where) -> tuple[list[str], list[str]]:
    """Ids of done units (`parent/unit` folders `…=PARENT/…=UNIT`) and of dead letters, by listing names only."""
    run = open_run(where)
    done = [name.rpartition("/")[2].split("=", 1)[1] for name in run.store.folders(run.name)]
    return done, [name.removesuffix(".json") for name in run.letters()]


def prove(planned: Collection[str], where: Where) -> Proof:
    """Compare the planned ids (units and whole rejected files) with the published tree."""
    done, dead = published_ids(where)
    want, have_done, have_dead = set(planned), set(done), set(dead)
    repeated = [unit for unit, count in Counter(done).items() if count > 1]
    return Proof(
        planned=len(want),
        done=len(have_done),
        dead=len(have_dead),
        lost=tuple(sorted(want - have_done - have_dead)),
        twice=tuple(sorted((have_done & have_dead) | set(repeated))),
        stray=tuple(sorted((have_done | have_dead) - want)),
        tree_sha256=open_run(where).tree_sha256(),
    )
