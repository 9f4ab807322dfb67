"""Stage 1: train joints, objects and contacts of one picture on synthetic hands; go on where a kill left it; report.

In: a Request. Out: `manipulation.safetensors` (the averaged weights), `report.json`, `log.jsonl`, TensorBoard's `runs/`
and `last.pt`, which the same command goes on from. Called by __main__.py. The floor, the error of giving the mean pose
for every picture, is said first. Nothing here needs Ray: one process, one device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tensorboardX import SummaryWriter

from models.errors import ModelError
from models.manipulation.checkpoint import save
from models.manipulation.network import build
from models.manipulation.size import SIZES
from train_jobs.errors import CannotStart
from train_jobs.manipulation import evaluate
from train_jobs.manipulation.config import StageConfig
from train_jobs.manipulation.samples import Samples, together
from train_jobs.manipulation.synthetic import VERSION, Split, generate
from train_jobs.manipulation.trainer import HOW_LONG, Trainer
from train_jobs.whole import write_whole

CHUNK = 250


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    config: StageConfig
    output: Path
    backbone: Path | None = None  # folder with DINOv2, for small and large
    device: str = "cpu"
    test_pictures: int = 500
    landmark_weights: Path | None = None  # MediaPipe's, for its row of the report
    most_seconds: float | None = None  # of this call: then it stops, to be continued


def synthetic(split: Split, count: int, size_px: int, cache: Path, say: Callable[[str], None]) -> Samples:
    """Pictures of a split, made once per folder, in chunks so that a kill loses little."""
    parts = []
    for first in range(0, count, CHUNK):
        number = min(CHUNK, count - first)
        path = cache / f"{split}_v{VERSION}_{size_px}px_{first}_{number}.safetensors"
        if not path.is_file():
            made = generate(split, first, number, size_px)
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(".part")
            save_file({name: value.contiguous() for name, value in made.tensors().items()}, str(beside))
            beside.replace(path)
            say(f"{split}: {first + number} of {count} pictures made")
        parts.append(Samples(**load_file(str(path))))
    return together(parts)


def run(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    """Train to the end, or until time is up. Returns the report, or where it stopped. Raises ModelError."""
    config, size = request.config, SIZES[request.config.size]
    torch.manual_seed(config.seed)
    network = build(size, request.backbone, config.sigma_reparam)
    cache = request.output / "pictures"
    train = synthetic("train", config.pictures, size.image_px, cache, say)
    held_out = synthetic("val", config.validation_pictures, size.image_px, cache, say).to(request.device)
    floor = evaluate.hand_rows(evaluate.mean_answer(train, len(held_out)), held_out.to("cpu"), absolute=False)
    say(f"floor, the mean pose for every picture: {floor['root']['mpjpe_mm']:.1f} mm from the wrist, "
        f"{floor['procrustes']['mpjpe_mm']:.1f} mm aligned")  # fmt: skip
    trainer = Trainer(network, config, train.to(request.device))
    if not fit(request, trainer, held_out, say):
        return {"stopped_at_step": trainer.step_number, "of": trainer.steps}
    test = synthetic("test", request.test_pictures, size.image_px, cache, say)
    found = evaluate.report(trainer.average.to("cpu"), train, test, request.landmark_weights)
    note = {"config": config.model_dump(), "data": f"synthetic hands, version {VERSION}", "steps": trainer.step_number}
    save(trainer.average, request.output / "manipulation.safetensors", note)
    (request.output / "report.json").write_text(json.dumps({**note, **found}, indent=1) + "\n")
    return found


def fit(request: Request, trainer: Trainer, held_out: Samples, say: Callable[[str], None]) -> bool:
    """Step until the end; whether it was reached. What is written goes on with the next call."""
    last, log = request.output / "last.pt", request.output / "log.jsonl"
    resume(trainer, last, say)
    _forget_after(log, trainer.step_number)
    board = SummaryWriter(str(request.output / "runs"), purge_step=trainer.step_number)
    began, until = time.monotonic(), float("inf") if request.most_seconds is None else request.most_seconds
    while trainer.step_number < trainer.steps and time.monotonic() - began < until:
        numbers = trainer.step()
        step = trainer.step_number
        ended = step % trainer.steps_per_epoch == 0 or step == trainer.steps
        row: dict[str, Any] = {"step": step, **numbers}
        if ended:
            row |= trainer.look(held_out)
            errors = f"{row['root_mm']:.1f} mm from the wrist, {row['absolute_mm']:.1f} mm in all"
            say(f"step {step}: loss {numbers['loss']:.3f}, held out {errors}, spread {row['spread']:.2f}")
        for name, value in row.items():
            board.add_scalar(name, value, step)
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if ended or step % request.config.checkpoint_every == 0:
            write_whole(last, trainer.state())
    write_whole(last, trainer.state())
    board.close()
    return trainer.step_number >= trainer.steps


def _forget_after(log: Path, step: int) -> None:
    """Drop the lines of steps that will be made again."""
    if log.is_file():
        lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
        log.write_text("".join(line + "\n" for line in lines))


def resume(trainer: Trainer, last: Path, say: Callable[[str], None]) -> None:
    """Go on from the last state, if there is one. Raises CannotStart if it is another training's."""
    if not last.is_file():
        return
    state = torch.load(last, map_location="cpu", weights_only=True)
    if state["fingerprint"] != trainer.config.fingerprint(but=HOW_LONG):
        raise CannotStart(f"{last} was begun with another configuration; give the same one, or another --output")
    try:
        trainer.restore(state)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{last} does not fit size {trainer.config.size}: {str(error).splitlines()[0]}") from error
    say(f"going on from step {trainer.step_number}")
