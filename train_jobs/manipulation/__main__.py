"""The command line: stage3. `python -m train_jobs.manipulation --help`.

Exit codes: 0 done; 1 refused, one sentence on standard error; 2 wrong usage.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from models.errors import ModelError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """From hands to robot commands."""


@app.command()
def stage3(
    output: Annotated[Path, typer.Option(help="folder for the weights and report.json")],
    tracks: Annotated[int, typer.Option(min=1, help="synthetic tracks of 10 s to label and train on")] = 60,
    steps: Annotated[int, typer.Option(min=1, help="optimiser steps")] = 4000,
    decoder_steps: Annotated[int, typer.Option(min=1, help="optimiser steps of the action decoder")] = 1500,
    seed: Annotated[int, typer.Option(min=0, help="of data and weights")] = 0,
    arm: Annotated[str, typer.Option(help="ur3, ur5, ur10, ur3e, ur5e or ur10e")] = "ur5e",
) -> None:
    """Train the retarget head against the solver and report both, side by side."""
    from train_jobs.manipulation.stage3 import Stage3, train

    try:
        report = train(Stage3(output, tracks, steps, decoder_steps, seed=seed, arm=arm), typer.echo)
    except ModelError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    for name in ("head", "solver", "middle of the ranges"):
        typer.echo(f"{name}: {', '.join(f'{key} {value}' for key, value in report[name].items())}")
    for name, errors in report["ahead"].items():
        typer.echo(f"ahead, {name}: {', '.join(f'{key} {value}' for key, value in errors.items())}")
    typer.echo(f"{report['test_frames']} test frames, trained {report['train_s']} s: {output}")


if __name__ == "__main__":
    sys.exit(app())
