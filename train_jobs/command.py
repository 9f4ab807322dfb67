"""What every training's command line does with an error of ours: one sentence on standard error, exit code 1.

In: the work. Out: its result. Called by every __main__.py below.
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
        raise refusal(str(error)) from None
    except OSError as error:
        raise refusal(f"{error.filename or ''} {error.strerror or error}".strip()) from None


def refusal(sentence: str) -> typer.Exit:
    """Say the sentence; what to raise then."""
    typer.echo(f"error: {sentence}", err=True)
    return typer.Exit(1)
