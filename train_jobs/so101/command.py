"""What both command lines do with an error of ours: one sentence on standard error, exit code 1.

In: the work. Out: its result. Called by so101_seg/__main__.py and so101_policy/__main__.py.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from models.errors import ModelError
from robot.errors import RobotError


def plainly[T](work: Callable[[], T]) -> T:
    """The result of `work`; what it raises on purpose becomes a sentence."""
    try:
        return work()
    except (ModelError, RobotError) as error:
        raise _refusal(str(error)) from None
    except OSError as error:
        raise _refusal(f"{error.filename or ''} {error.strerror or error}".strip()) from None


def _refusal(sentence: str) -> typer.Exit:
    typer.echo(f"error: {sentence}", err=True)
    return typer.Exit(1)
