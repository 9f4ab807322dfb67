"""Stage 1: train joints, objects and contacts of one picture on synthetic hands; go on where a kill left it; report.

In: a Request. Out: `manipulation.safetensors` (the averaged weights), `report.json`, `log.jsonl`, TensorBoard's `runs/`
and `last.pt`, which the same command goes on from. Called by __main__.py. The floor, the error of giving the mean pose
for every picture, is said first. Ray Train runs the loop: in this process, or in workers that share each batch and are
started anew from `last.pt` when one dies.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import typer
from ray import train as ray_train
from tensorboardX import SummaryWriter

from models.errors import ModelError
from models.manipulation import checkpoint
from models.manipulation.network import ManipulationTransformer, build
from models.manipulation.size import SIZES
from train_jobs.errors import CannotStart
from train_jobs.fit import fit, here
from train_jobs.manipulation import evaluate
from train_jobs.manipulation.config import StageConfig
from train_jobs.manipulation.pictures import synthetic
from train_jobs.manipulation.samples import Samples
from train_jobs.manipulation.solids import KINDS
from train_jobs.manipulation.synthetic import VERSION, Split
from train_jobs.manipulation.trainer import HOW_LONG, Trainer
from train_jobs.place import Place
from train_jobs.whole import write_whole


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
    workers: int = 0  # of Ray Train; 0: in this process

    @property
    def weights(self) -> Path:
        """Where the averaged weights go in the end."""
        return self.output / "manipulation.safetensors"


Say = Callable[[str], None]


def run(request: Request, say: Say) -> dict[str, Any]:
    """Train to the end, or until time is up. Returns the report, or where it stopped. Raises ModelError."""
    _network(request)  # what cannot be built is told before a picture is drawn
    train, held_out = _pictures(request, "train", say), _pictures(request, "val", say)
    floor = evaluate.hand_rows(evaluate.mean_answer(train, len(held_out)), held_out, absolute=False)
    say(f"floor, the mean pose for every picture: {floor['root']['mpjpe_mm']:.1f} mm from the wrist, "
        f"{floor['procrustes']['mpjpe_mm']:.1f} mm aligned")  # fmt: skip
    # What cannot start or go on is told before any worker is.
    trainer, last = _trainer(request, train, Place()), request.output / "last.pt"
    if resume(trainer, last):
        say(f"going on from step {trainer.step_number}")
    plain = {field.name: getattr(request, field.name) for field in fields(request)}
    plain |= {"config": request.config.model_dump(), "output": request.output.absolute()}
    gpu = request.device.startswith("cuda")
    fit(loop, plain, request.output, "stage1", workers=request.workers, gpu=gpu)
    if resume(trainer, last) < trainer.steps:  # Ray keeps no metrics of workers that report no checkpoint
        return {"stopped_at_step": trainer.step_number, "of": trainer.steps}
    network, note = checkpoint.load(request.weights)
    found = evaluate.report(network, train, _pictures(request, "test", say), request.landmark_weights)
    (request.output / "report.json").write_text(json.dumps({**note, **found}, indent=1) + "\n")
    return found


def _pictures(request: Request, split: Split, say: Say) -> Samples:
    config = request.config
    count = {"train": config.pictures, "val": config.validation_pictures, "test": request.test_pictures}[split]
    return synthetic(split, count, SIZES[config.size].image_px, request.output / "pictures", say)


def _network(request: Request) -> ManipulationTransformer:
    torch.manual_seed(request.config.seed)
    return build(SIZES[request.config.size], request.backbone, request.config.sigma_reparam)


def _trainer(request: Request, train: Samples, place: Place) -> Trainer:
    return Trainer(_network(request), request.config, train.to(place.device), place)


def loop(plain: Mapping[str, Any]) -> None:
    """What each worker does."""
    request = Request(**{**plain, "config": StageConfig.model_validate(plain["config"])})
    # Heads without labels (types and forces of contacts, shape) take no part: gradients are not waited for.
    place = here(find_unused_parameters=True) if request.workers > 1 else Place(torch.device(request.device))
    train, held_out = (_pictures(request, split, typer.echo) for split in ("train", "val"))
    trainer = _trainer(request, train, place)
    resume(trainer, request.output / "last.pt")
    go_on(request, trainer, held_out.to(place.device))
    ray_train.report({"step": trainer.step_number, "of": trainer.steps})


def go_on(request: Request, trainer: Trainer, held_out: Samples) -> None:
    """Step until the end, or until time is up. The first worker writes what the next call goes on with."""
    last, log, leads = request.output / "last.pt", request.output / "log.jsonl", trainer.place.rank == 0
    until = time.monotonic() + (float("inf") if request.most_seconds is None else request.most_seconds)
    if leads:
        _forget_after(log, trainer.step_number)
    board = SummaryWriter(str(request.output / "runs"), purge_step=trainer.step_number) if leads else None
    while trainer.step_number < trainer.steps and not _over(until, trainer.place):
        numbers, step = trainer.step(), trainer.step_number
        if board is None:
            continue
        ended = step % trainer.steps_per_epoch == 0 or step == trainer.steps
        row: dict[str, Any] = {"step": step, **numbers, **(trainer.look(held_out) if ended else {})}
        _tell(board, log, row)
        if ended or step % request.config.checkpoint_every == 0:
            write_whole(last, trainer.state())
    if board is None:
        return
    write_whole(last, trainer.state())
    board.close()
    if trainer.step_number == trainer.steps:
        note = {"config": request.config.model_dump(), "data": f"synthetic hands, version {VERSION}",
                "steps": trainer.step_number, "classes": list(KINDS)}  # fmt: skip
        checkpoint.save(trainer.average, request.weights, note)


def _over(until: float, place: Place) -> bool:
    """Is time up? All workers stop at the same step: the first one's clock decides."""
    over = time.monotonic() >= until
    if place.workers == 1 or until == float("inf"):
        return over
    told = torch.tensor([float(over)], device=place.device)
    torch.distributed.broadcast(told, 0)
    return bool(told)


def _tell(board: Any, log: Path, row: dict[str, Any]) -> None:
    if "root_mm" in row:
        errors = f"{row['root_mm']:.1f} mm from the wrist, {row['absolute_mm']:.1f} mm in all"
        typer.echo(f"step {row['step']}: loss {row['loss']:.3f}, held out {errors}, spread {row['spread']:.2f}")
    for name, value in row.items():
        board.add_scalar(name, value, row["step"])
    with log.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _forget_after(log: Path, step: int) -> None:
    """Drop the lines of steps that will be made again."""
    if log.is_file():
        lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
        log.write_text("".join(line + "\n" for line in lines))


def resume(trainer: Trainer, last: Path) -> int:
    """Go on from the last state, if there is one; its step. Raises CannotStart if it is another training's."""
    if not last.is_file():
        return 0
    state = torch.load(last, map_location="cpu", weights_only=True)
    if state["fingerprint"] != trainer.config.fingerprint(but=HOW_LONG):
        raise CannotStart(f"{last} was begun with another configuration; give the same one, or another --output")
    try:
        trainer.restore(state)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{last} does not fit size {trainer.config.size}: {str(error).splitlines()[0]}") from error
    return trainer.step_number
