"""Conditions of the place, told from those of a clip: a full, read-only or forbidden disk ends the run in one sentence.

Wrapped around every write of store.py and lock.py.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from data_jobs.runs.errors import RunError

# Conditions of the place, not of the clip: they end the run instead of filling the dead letter with innocents.
PLACE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}


class place_errors:
    """Turn 'the place is full, read-only or forbidden' into one RunError sentence; other errors pass."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Translate the errnos of PLACE_ERRNOS and of a file standing where a folder is needed."""
        if isinstance(error, OSError) and error.errno in PLACE_ERRNOS:
            raise RunError(f"cannot write to {self.place}: {os.strerror(error.errno or 0).lower()}") from error
        if isinstance(error, NotADirectoryError | FileExistsError):
            raise RunError(f"cannot write to {self.place}: a file stands where a folder is needed") from error
