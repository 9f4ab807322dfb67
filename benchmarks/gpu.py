"""What a GPU makes of it, in one run: `python -m benchmarks.gpu [NAME …]`, or `make bench-gpu`.

In: names of SUITE, all of them when none is given. Out: benchmarks/results/gpu.json in the form of the other results,
and made of it the table in docs/gpu.md. A measurement whose weights are missing becomes a row that names the command
that gets them; one that fails becomes a row too, and the exit code says so. `--device cpu --small --random-weights
--output FILE` tries all of it on a machine without GPU and hub; what it prints is not to be quoted.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import gpu_robot, gpu_tracker, sam2_operator
from benchmarks.__main__ import RESULTS, ROOT, keep, read, section, with_table
from benchmarks.on_device import Setting
from benchmarks.paired import Comparison, Fact
from models.errors import MissingWeight

FILE, PAGE = RESULTS / "gpu.json", ROOT / "docs" / "gpu.md"
BEGIN = "<!-- measured by `make bench-gpu` -->"
COMMAND = "make bench-gpu"
SUITE: dict[str, Callable[[Setting], Iterator[Comparison | Fact]]] = {
    "following": gpu_tracker.following,
    "masks": gpu_tracker.masks,
    "acquisition": gpu_tracker.acquisition,
    "depth": gpu_robot.depth,
    "segmentation": gpu_robot.segmentation,
    "operator": sam2_operator.comparisons,
    "egoworld": sam2_operator.speed_of_light,
}
FAILED = "failed: "


def measured(names: list[str], setting: Setting) -> Iterator[Comparison | Fact]:
    """Everything that can be measured, and a row for what cannot."""
    for name in names:
        try:
            for found in SUITE[name](setting):
                typer.echo(f"{name}: {found.what}")
                yield found
        except MissingWeight as error:
            yield Fact(name, f"not measured: {error}", COMMAND)
        except Exception as error:  # noqa: BLE001  the other rows are worth keeping; the exit code tells
            traceback.print_exc()
            said = (str(error).splitlines() or ["it says nothing"])[0]  # a bare assertion has no text
            yield Fact(name, f"{FAILED}{type(error).__name__}: {said[:200]}", COMMAND)


def table() -> str:
    """The page's table."""
    told = read(FILE)
    return "\n".join(section(told["machine"]["device"], told)) if told else "*No GPU has been measured yet.*\n"


def named(device: str) -> str:
    """What torch calls the device. Exits with one sentence when it is not there."""
    if device == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        sys.exit(
            f"torch sees no GPU here, so {device!r} cannot be measured; run `make bench-gpu` on a machine with one, or "
            "try the code with `python -m benchmarks.gpu --device cpu --small --random-weights --output out/gpu.json`"
        )
    return torch.cuda.get_device_name(device)


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(SUITE)}")] = None,
    device: Annotated[str, typer.Option(help="cuda, cuda:1 …, or cpu")] = "cuda",
    small: Annotated[bool, typer.Option("--small", help="inputs of a few pixels: tries the code")] = False,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="where the hub's are missing; rows say so")
    ] = False,
    output: Annotated[Path, typer.Option(help="the result; docs/gpu.md shows the default one")] = FILE,
) -> None:
    """Measure, write the result, print its table."""
    if unknown := sorted(set(names or []) - set(SUITE)):
        raise typer.BadParameter(f"there is no {', '.join(unknown)}; choose from {', '.join(SUITE)}")
    about: dict[str, Any] = {"device": named(device), "torch": torch.__version__, "small": small}
    setting = Setting(device, small, random_weights)
    told = keep(output, lambda: measured(list(names or SUITE), setting), about)
    typer.echo("\n".join(section(about["device"], told)))
    if output == FILE:
        PAGE.write_text(with_table(PAGE, table(), BEGIN), encoding="utf-8")
    if any(each.get("found", "").startswith(FAILED) for each in told["comparisons"]):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
