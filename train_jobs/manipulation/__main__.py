"""The command line: stage1, stage2, stage3, ship, evaluate. `python -m train_jobs.manipulation --help`.

Exit codes: 0 done; 1 refused, one sentence on standard error; 2 wrong usage.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from models.errors import ModelError
from train_jobs.command import plainly
from train_jobs.settings import CONFIGS, read_settings

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "pretrained"

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

    report = plainly(lambda: train(Stage3(output, tracks, steps, decoder_steps, seed=seed, arm=arm), typer.echo))
    for name in ("head", "solver", "middle of the ranges"):
        typer.echo(f"{name}: {', '.join(f'{key} {value}' for key, value in report[name].items())}")
    for name, errors in report["ahead"].items():
        typer.echo(f"ahead, {name}: {', '.join(f'{key} {value}' for key, value in errors.items())}")
    typer.echo(f"{report['test_frames']} test frames, trained {report['train_s']} s: {output}")


@app.command()
def stage1(
    output: Annotated[Path, typer.Option(help="folder for weights, report, log and state; the same folder resumes")],
    config: Annotated[Path, typer.Option(help="values of the run")] = CONFIGS / "manipulation_stage1.yaml",
    size: Annotated[str | None, typer.Option(help="tiny, small or large, instead of the configuration's")] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="instead of the configuration's")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="instead of the configuration's")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="instead of the configuration's")] = None,
    backbone: Annotated[Path | None, typer.Option(help="folder with DINOv2, for small and large")] = None,
    device: Annotated[str, typer.Option(help="cpu, or a device of torch")] = "cpu",
    test_pictures: Annotated[int, typer.Option(min=20, help="of the report")] = 500,
    minutes: Annotated[float | None, typer.Option(min=0, help="stop after so many; the same command goes on")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Ray Train workers; 0 trains in this process")] = 0,
) -> None:
    """Train joints, objects and contacts on synthetic hands, and report beside those who have not learned."""
    from train_jobs.manipulation.config import StageConfig
    from train_jobs.manipulation.stage1 import Request, run

    chosen = {"size": size, "pictures": pictures, "epochs": epochs, "seed": seed}

    def work() -> dict[str, Any]:
        values = read_settings(config, StageConfig, {n: value for n, value in chosen.items() if value is not None})
        until = None if minutes is None else 60 * minutes
        return run(Request(values, output, backbone, device, test_pictures, _landmarks(), until, workers), typer.echo)

    found = plainly(work)
    if "hands" not in found:
        typer.echo(f"stopped at step {found['stopped_at_step']} of {found['of']}; the same command goes on")
        return
    for name, row in found["hands"].items():
        scores = ", ".join(f"{kind} {row[kind]['mpjpe_mm']:.1f} mm (AUC {row[kind]['auc']:.3f})" for kind in row)
        typer.echo(f"{name}: {scores}")
    for part in ("objects", "contacts", "presence"):
        typer.echo(f"{part}: {', '.join(f'{key} {value:.3g}' for key, value in found[part].items())}")


@app.command()
def stage2(
    output: Annotated[Path, typer.Option(help="the folder of stage 1")],
    clips: Annotated[int, typer.Option(min=1, help="synthetic clips to train on")] = 300,
    length: Annotated[int, typer.Option(min=4, help="frames of a clip")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="optimiser steps")] = 600,
    test_clips: Annotated[int, typer.Option(min=1, help="of the report")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="of the weights")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Ray Train workers; 0 trains in this process")] = 0,
) -> None:
    """Train what frames say together, and where the hand goes, on the frozen answers of stage 1."""
    from train_jobs.manipulation.stage2 import Request, run

    found = plainly(lambda: run(Request(output, clips, test_clips, length, steps, seed, workers), typer.echo))
    joints, ahead = found["joints_from_wrist_mm"], found["wrist_ahead_mm"]
    typer.echo("joints from the wrist: " + ", ".join(f"{name} {value:.1f} mm" for name, value in joints.items()))
    for name, row in ahead.items():
        typer.echo(f"wrist ahead, {name}: " + ", ".join(f"{k} steps {value:.1f} mm" for k, value in row.items()))


@app.command()
def ship(
    output: Annotated[Path, typer.Option(help="the folder of stages 1 and 2")],
    to: Annotated[Path, typer.Option(help="a folder; models/pretrained for those that ship")],
) -> None:
    """Write the weights of both stages as they are shipped: large matrices in half precision."""
    from train_jobs.manipulation import ship as shipping

    for path in plainly(lambda: shipping.ship(output, to)):
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@app.command()
def evaluate(
    weights: Annotated[Path, typer.Option(help="of stage 1; default: the shipped ones")] = SHIPPED
    / "manipulation_tiny.safetensors",
    pictures: Annotated[int, typer.Option(min=20, help="of the test split")] = 1000,
    bank: Annotated[int, typer.Option(min=20, help="training pictures, for the baselines")] = 2000,
    output: Annotated[Path | None, typer.Option(help="JSON file for all numbers")] = None,
) -> None:
    """Measure weights on pictures that they have not seen, beside those who have not learned; on the CPU."""
    from train_jobs.manipulation import ship as shipping

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    found = plainly(lambda: shipping.report(weights, pictures, bank, _landmarks(), tell))
    if output is not None:
        shipping.write_report(output, found)
    typer.echo(shipping.table(found))


def _landmarks() -> Path | None:
    """MediaPipe's weights if they are in the cache: a baseline is no reason to fetch."""
    from models import weights

    try:
        return weights.path_of("hand_landmark_full")
    except ModelError:
        return None


if __name__ == "__main__":
    sys.exit(app())
