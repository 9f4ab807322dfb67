"""Dead letters as files: read them all, or take some back so that they are tried again. Called by the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from data_jobs.egoworld.task import EgoworldJob
from data_jobs.runs.errors import RunError
from data_jobs.runs.ledger import Ledger
from data_jobs.runs.lock import RunLock
from data_jobs.runs.outcome import Cause, DeadLetter


def read_letters(run_folder: Path) -> list[DeadLetter]:
    """All dead letters of a run in the order of their file names; RunError names one that cannot be read."""
    return [letter for _, letter in _letters(run_folder)]


def take_back(job: EgoworldJob, causes: Sequence[str], ids: Sequence[str]) -> int:
    """Remove the dead letters that match every given condition and wipe their attempts; returns how many.

    RunError for a cause that does not exist, or an id that has no dead letter.
    """
    wrong = [cause for cause in causes if cause not in get_args(Cause)]
    if wrong:
        raise RunError(f"unknown cause {wrong[0]!r}; choose from {', '.join(get_args(Cause))}")
    letters = _letters(job.run_folder)
    known = {path.stem for path, _ in letters}
    missing = [unit for unit in ids if unit not in known]
    if missing:
        raise RunError(f"{missing[0]} has no dead letter in {job.run_folder}")
    chosen = [
        path for path, letter in letters if (not causes or letter.cause in causes) and (not ids or path.stem in ids)
    ]
    with RunLock(job.output):
        ledger = Ledger(str(job.run_folder / "ledger.sqlite"))
        ledger.pardon(path.stem for path in chosen)
        ledger.close()
        for path in chosen:
            path.unlink(missing_ok=True)
    return len(chosen)


def _letters(run_folder: Path) -> list[tuple[Path, DeadLetter]]:
    found = []
    for path in sorted((run_folder / "dead_letter").glob("*.json")):
        try:
            found.append((path, DeadLetter.model_validate_json(path.read_bytes())))
        except ValidationError as error:
            raise RunError(f"{path} is not a dead letter: {error.errors()[0]['msg']}") from error
    return found
