"""The command line: pretrain, phase1, phase2, export. `python -m train_jobs.trackssm --help`.

Exit codes: 0 done; 1 refused, one sentence on standard error; 2 wrong usage. The same command again resumes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from train_jobs.command import plainly, refusal
from train_jobs.settings import CONFIGS, read_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Data = Annotated[Path, typer.Option(help="a conversion of data_jobs.nuscenes, a MOT folder or TrackSSM label files")]
Output = Annotated[Path, typer.Option(help="folder for weights, state, logs and runs; the same folder resumes")]
Config = Annotated[Path | None, typer.Option(help="default configs/trackssm_PHASE.yaml")]
Init = Annotated[Path | None, typer.Option(help="start weights: any public layout, or a file of an earlier phase")]
Form = Annotated[str | None, typer.Option(help="residual or public, instead of the configuration's")]
Size = Annotated[str | None, typer.Option(help="small or full, instead of the configuration's")]
Seed = Annotated[int | None, typer.Option(help="instead of the configuration's")]
Epochs = Annotated[int | None, typer.Option(help="max_epochs, instead of the configuration's")]
Workers = Annotated[int, typer.Option(min=0, help="Ray Train workers; 0 trains in this process")]
Rate = Annotated[float | None, typer.Option(help="frame rate of label files, Hz")]
Gpu = Annotated[bool, typer.Option("--gpu", help="one GPU per worker")]


@app.callback()
def main() -> None:
    """Train TrackSSM: everything from scratch, or two phases from start weights."""


@app.command()
def pretrain(
    data: Data, output: Output, config: Config = None, init: Init = None, form: Form = None, size: Size = None,
    seed: Seed = None, epochs: Epochs = None, workers: Workers = 0, rate: Rate = None, gpu: Gpu = False,
) -> None:  # fmt: skip
    """Train everything, from random weights unless told otherwise: where no public weights fit."""
    _run("pretrain", data, output, config, init, (form, size, seed, epochs), workers, rate, gpu)


@app.command()
def phase1(
    data: Data, output: Output, config: Config = None, init: Init = None, form: Form = None, size: Size = None,
    seed: Seed = None, epochs: Epochs = None, workers: Workers = 0, rate: Rate = None, gpu: Gpu = False,
) -> None:  # fmt: skip
    """Train the decoder; the encoder stays as --init has it (default: this output's pretrain)."""
    init = init or _made_by(output, "pretrain", "phase 1 keeps the encoder of its start weights")
    _run("phase1", data, output, config, init, (form, size, seed, epochs), workers, rate, gpu)


@app.command()
def phase2(
    data: Data, output: Output, config: Config = None, init: Init = None, form: Form = None, size: Size = None,
    seed: Seed = None, epochs: Epochs = None, workers: Workers = 0, rate: Rate = None, gpu: Gpu = False,
) -> None:  # fmt: skip
    """Train everything from the best of phase 1, the encoder more slowly."""
    init = init or _made_by(output, "phase1", "phase 2 goes on from phase 1")
    _run("phase2", data, output, config, init, (form, size, seed, epochs), workers, rate, gpu)


@app.command()
def export(
    weights: Annotated[Path, typer.Argument(help="a best file of any phase")],
    to: Annotated[Path, typer.Argument(help="the .safetensors file to write")],
) -> None:
    """Write weights without the optimiser, as they are shipped."""
    from train_jobs.trackssm.files import export as write

    def work() -> dict[str, Any]:
        write(weights, to)
        return {}

    plainly(work)


def _made_by(output: Path, phase: str, why: str) -> Path:
    from train_jobs.trackssm.files import PhaseFiles

    path = PhaseFiles(output, phase).best
    if not path.is_file():
        raise refusal(f"{why}: there is no {path}; run `{phase}` with this --output first, or give --init FILE")
    return path


def _run(
    phase: str, data: Path, output: Path, config: Path | None, init: Path | None, chosen: tuple[Any, ...], workers: int,
    rate: float | None, gpu: bool,
) -> None:  # fmt: skip
    from train_jobs.trackssm.config import PhaseConfig

    names = ("form", "size", "seed", "max_epochs")
    overrides = {name: value for name, value in zip(names, chosen, strict=True) if value is not None}

    def work() -> dict[str, Any]:
        from train_jobs.trackssm.job import Request, run

        values = read_settings(config or CONFIGS / f"trackssm_{phase}.yaml", PhaseConfig, overrides)
        if init is not None and not init.is_file():
            raise refusal(f"there are no start weights at {init}")
        return run(Request(phase, values, data, output.absolute(), init, workers, rate, gpu))

    last = plainly(work)
    typer.echo(", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in last.items()))


if __name__ == "__main__":
    sys.exit(app())
