"""The loop of both SO-101 trainings on Ray Train: start or resume, step, measure, write what the next run goes on from.

In: a function that builds a Trainer from plain values, and an output folder. Out: `last.pt` (resume), `runs/`
(TensorBoard), `curve.jsonl`. Called by the command lines. With no workers the loop runs in this process; with several
Ray joins them for distributed gradients, and one that dies is started anew from `last.pt`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from ray import train as ray_train
from tensorboardX import SummaryWriter

from train_jobs.errors import CannotStart
from train_jobs.fit import fit, here
from train_jobs.place import Place
from train_jobs.whole import write_whole


class Trainer(Protocol):
    """One training. A step is decided by its number, so that resuming equals never having stopped."""

    steps_done: int
    steps: int
    measure_every: int
    fingerprint: str

    def step(self) -> dict[str, float]:
        """One optimiser step."""

    def measure(self) -> dict[str, float]:
        """Numbers on data that is not trained on."""

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on, but for the data."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""


Build = Callable[[dict[str, Any], Place], Trainer]


def run(build: Build, request: dict[str, Any], output: Path, *, workers: int, gpu: bool) -> dict[str, Any]:
    """Train to the end. Raises CannotStart for an output of other settings; returns the last measurement."""
    output = output.absolute()
    _resume(build(request, Place()), output)  # what cannot start is told before any worker is
    plain = {"build": build, "request": request, "output": str(output)}
    return fit(loop, plain, output, output.name, workers=workers, gpu=gpu)


def loop(plain: Mapping[str, Any]) -> None:
    """What each worker does."""
    output, place = Path(plain["output"]), here()
    trainer = plain["build"](plain["request"], place)
    _resume(trainer, output)
    go_on(trainer, output, leads=place.rank == 0, report=ray_train.report)


def go_on(trainer: Trainer, output: Path, *, leads: bool = True, report: Callable[[dict[str, Any]], Any]) -> None:
    """Step to the last step; the leading worker writes."""
    board = SummaryWriter(str(output / "runs"), purge_step=trainer.steps_done) if leads else None
    if leads:
        _cut_curve(output / "curve.jsonl", trainer.steps_done)
    while trainer.steps_done < trainer.steps:
        numbers, done = trainer.step(), trainer.steps_done
        ended = done % trainer.measure_every == 0 or done == trainer.steps
        measured = trainer.measure() if ended else {}
        if board is not None:
            _tell(board, output, done, numbers, measured)
            if ended:
                write_whole(output / "last.pt", {**trainer.state(), "fingerprint": trainer.fingerprint})
        if ended:
            report({"step": done, **numbers, **measured})
    if board is not None:
        board.close()


def _resume(trainer: Trainer, output: Path) -> None:
    last = output / "last.pt"
    if not last.is_file():
        return
    state = torch.load(last, map_location="cpu", weights_only=True)
    if state["fingerprint"] != trainer.fingerprint:
        raise CannotStart(f"{last} was begun with other settings or data; give the same, or another --output")
    trainer.restore(state)


def _tell(board: Any, output: Path, step: int, numbers: Mapping[str, float], measured: Mapping[str, float]) -> None:
    for part, values in (("train", numbers), ("held", measured)):
        for name, value in values.items():
            board.add_scalar(f"{part}/{name}", value, step)
    with (output / "curve.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, **numbers, **measured}) + "\n")


def _cut_curve(path: Path, step: int) -> None:
    """Drop lines of steps that were done after the last state was written: they will be done again."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    path.write_text("".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step))
