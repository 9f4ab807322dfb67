"""What the jobs' command lines share: two consoles, exit codes, and bad news in one sentence instead of a traceback.

Exit codes: 0 everything is accounted for; 1 refused or failed, one sentence on standard error; 2 wrong usage;
3 the proof does not hold; 4 everything is accounted for, but nothing could be done; 5 everything is accounted for, but
failures or empty results are beyond the config's thresholds. Called by egoworld/__main__.py and
nuscenes/__main__.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import typer
from rich.console import Console

from data_jobs.runs.errors import InputError, RunError, TransientError

NOT_ACCOUNTED, NOTHING_DONE, BEYOND_THRESHOLDS = 3, 4, 5

out = Console()
err = Console(stderr=True)


def plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a person can mend into one sentence and exit code 1; let real bugs show their traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        from models.errors import ModelError

        try:
            command(*args, **kwargs)
        except (RunError, InputError, ModelError) as error:
            err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from None
        except TransientError as error:
            err.print(f"error: {error}; run the same command again to resume", markup=False, soft_wrap=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            err.print("interrupted: run the same command again to resume", markup=False)
            raise typer.Exit(130) from None

    return wrapped
