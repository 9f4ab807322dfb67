"""Dead letters as files: read them all, or take some back so that they are tried again. Called by the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from pydantic import ValidationError

from data_jobs.egoworld.task import EgoworldJob
from data_jobs.runs.errors import RunError
from data_jobs.runs.ledger import Ledger
from data_jobs.runs.outcome import Cause, DeadLetter
from data_jobs.runs.places import Run, Where, open_run


def read_letters(where: Where) -> list[DeadLetter]:
    """All dead letters of a run in the order of their file names; RunError names one that cannot be read."""
    return [letter for _, letter in _letters(open_run(where))]


def take_back(job: EgoworldJob, causes: Sequence[str], ids: Sequence[str]) -> int:
    """Remove the dead letters that match every given condition and wipe their attempts; returns how many.

    RunError for a cause that does not exist, or an id that has no dead letter.
    """
    wrong = [cause for cause in causes if cause not in get_args(Cause)]
    if wrong:
        raise RunError(f"unknown cause {wrong[0]!r}; choose from {', '.join(get_args(Cause))}")
    letters = _letters(job.run)
    known = {unit for unit, _ in letters}
    missing = [unit for unit in ids if unit not in known]
    if missing:
        raise RunError(f"{missing[0]} has no dead letter in {job.run_folder}")
    chosen = [unit for unit, letter in letters if (not causes or letter.cause in causes) and (not ids or unit in ids)]
    with job.store.lock():
        job.store.prepare()
        ledger = Ledger(str(job.store.ledger_path(job.run.name)))
        ledger.pardon(chosen)
        ledger.close()
        for unit in chosen:
            job.store.remove(job.run.at(f"dead_letter/{unit}.json"))
    return len(chosen)


def _letters(run: Run) -> list[tuple[str, DeadLetter]]:
    found = []
    for name in run.letters():
        try:
            letter = DeadLetter.model_validate_json(run.read(f"dead_letter/{name}"))
            found.append((name.removesuffix(".json"), letter))
        except ValidationError as error:
            raise RunError(
                f"dead_letter/{name} of {run.name} is not a dead letter: {error.errors()[0]['msg']}"
            ) from error
    return found
