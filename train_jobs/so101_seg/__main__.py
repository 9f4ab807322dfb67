"""The command line: render, train, export, evaluate. `python -m train_jobs.so101_seg --help`.

Exit codes: 0 done; 1 refused, one sentence on standard error; 2 wrong usage. The same command again resumes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from train_jobs.command import plainly
from train_jobs.settings import CONFIGS

# The name by which contracts ask for these weights (configs/contracts/so101_lift.yaml).
RUN = "so101_seg_sim"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Output = Annotated[Path, typer.Option(help="the same folder resumes")]


@app.callback()
def main() -> None:
    """Segmentation of the SO-101's wrist camera, trained on rendered frames."""


@app.command()
def render(
    output: Output,
    count: Annotated[int, typer.Option(min=1)] = 8000,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    width: Annotated[int, typer.Option(min=32)] = 160,
    height: Annotated[int, typer.Option(min=32)] = 120,
) -> None:
    """Render labelled frames."""
    from train_jobs.so101_seg.frames import Plan, render

    plainly(lambda: render(output, Plan(count, seed, width, height), lambda done: typer.echo(f"{done} of {count}")))


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="a folder of `render`")],
    output: Output,
    config: Annotated[Path, typer.Option()] = CONFIGS / "so101_seg.yaml",
    steps: Annotated[int | None, typer.Option(min=1, help="instead of the configuration's")] = None,
    start: Annotated[Path | None, typer.Option(help="weights to go on from; default: random ones")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Ray Train workers; 0 trains in this process")] = 0,
    gpu: Annotated[bool, typer.Option("--gpu", help="one GPU per worker")] = False,
) -> None:
    """Train the network."""
    from train_jobs.settings import read_settings
    from train_jobs.so101 import job
    from train_jobs.so101_seg.trainer import SegSettings

    def work() -> dict[str, Any]:
        settings = read_settings(config, SegSettings, {} if steps is None else {"steps": steps})
        request = {
            "settings": settings.model_dump(),
            "data": str(data.absolute()),
            "start": None if start is None else str(start.absolute()),
        }
        return job.run(build, request, output, workers=workers, gpu=gpu)

    typer.echo(", ".join(f"{name} {value:.4g}" for name, value in plainly(work).items()))


def build(request: dict[str, Any], place: Any) -> Any:
    """A trainer from plain values, in this process or in a worker."""
    from models.so101_seg import load_checkpoint
    from train_jobs.so101_seg.frames import read
    from train_jobs.so101_seg.trainer import SegSettings, SegTrainer

    start = None if request["start"] is None else load_checkpoint(Path(request["start"]))
    return SegTrainer(SegSettings.model_validate(request["settings"]), read(Path(request["data"])), place, start)


@app.command()
def export(
    output: Annotated[Path, typer.Argument(help="an --output of `train`")],
    data: Annotated[Path, typer.Option(help="the frames that it was trained on")],
    to: Annotated[Path, typer.Option(help="a .safetensors file")],
) -> None:
    """Write the network as it is shipped."""
    import torch

    from models import shipped
    from train_jobs.so101_seg.frames import read

    def work() -> None:
        state = torch.load(output / "last.pt", map_location="cpu", weights_only=True)
        plan = read(data).plan
        note = {"run": RUN, "num_classes": 6, "img_height": plan.height_px, "img_width": plan.width_px}
        shipped.write(to, state["average"], {**note, "steps": state["steps_done"]})

    plainly(work)


@app.command()
def evaluate(
    weights: Annotated[Path | None, typer.Option(help="default: the shipped ones")] = None,
    frames: Annotated[int, typer.Option(min=1)] = 2000,
    workers: Annotated[int | None, typer.Option(min=0, help="0: in this process; default: all cores")] = None,
) -> None:
    """mIoU on held-out frames, per class, with a baseline."""
    from models import shipped
    from train_jobs.so101_seg.evaluate import evaluate

    told = plainly(lambda: evaluate(weights or shipped.SO101_SEGMENTER, frames, workers=workers))
    typer.echo(f"{told.pop('frames')} held-out frames")
    for name, values in told.items():
        typer.echo(f"{name}: " + ", ".join(f"{part} {value:.3f}" for part, value in values.items()))


if __name__ == "__main__":
    sys.exit(app())
