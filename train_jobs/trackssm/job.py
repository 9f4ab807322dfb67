"""A phase on Ray Train: read data, start or resume, train until patience ends, write the best and the last.

In: a Request. Out: files of files.py and a summary. Called by __main__.py. Ray starts the workers, joins them for
distributed gradients and starts them anew when one dies (they then resume from `last.pt`); with no workers the same
loop runs in this process. What a step does is trainer.py's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import train as ray_train
from tensorboardX import SummaryWriter

from models.trackssm.checkpoint import fill, read_checkpoint
from train_jobs.errors import CannotStart
from train_jobs.fit import fit, here
from train_jobs.trackssm.config import PhaseConfig
from train_jobs.trackssm.errors import BadTracks
from train_jobs.trackssm.files import PhaseFiles
from train_jobs.trackssm.objective import Objective, fresh_network
from train_jobs.trackssm.tracks import check_one_rate, read_folder
from train_jobs.trackssm.trainer import Trainer
from train_jobs.trackssm.windows import Windows


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    phase: str  # pretrain, phase1 or phase2
    config: PhaseConfig
    data: Path
    output: Path
    start: Path | None  # weights to start from; None: random ones
    workers: int
    rate_hz: float | None  # of label files
    gpu: bool = False


def run(request: Request) -> dict[str, Any]:
    """Train the phase to its end. Raises ModelError when it cannot start; returns the last report."""
    check(request)
    plain = {**{name: getattr(request, name) for name in Request.__slots__}, "config": request.config.model_dump()}
    return fit(loop, plain, request.output, request.phase, workers=request.workers, gpu=request.gpu)


def check(request: Request) -> None:
    """Raise before any worker starts what would otherwise be raised in one: bad data, start weights, other config."""
    trainer = build(request)
    PhaseFiles(request.output, request.phase).resume(trainer)
    if not trainer.validate():
        raise BadTracks(f"the held-out windows of {request.data} give no sample: its tracks are all too short")


def build(request: Request, shard: tuple[int, int] = (0, 1), **hosting: Any) -> Trainer:
    """Data, network and trainer."""
    config = request.config
    torch.manual_seed(config.seed)
    network = fresh_network(config)
    if request.start is not None:
        checkpoint = read_checkpoint(request.start)
        said = checkpoint.note.get("sigmoid")
        if config.form == "public" and said is not None and said != config.sigmoid:
            raise CannotStart(f"{request.start} has sigmoid {said}, the configuration {config.sigmoid}")
        fill(network, checkpoint)
    elif not config.train_encoder:
        raise CannotStart("the decoder alone cannot be trained under a random encoder; give start weights with --init")
    trained, held_out = read_folder(request.data, request.rate_hz)
    if config.form == "public":
        check_one_rate([*trained, *held_out], "the public form counts frames, not seconds: train the residual form")
    train, hold = (Windows(part, config.sequence_length, config.num_queries) for part in (trained, held_out))
    return Trainer(Objective(network), config, train, hold, shard=shard, **hosting)


def loop(plain: Mapping[str, Any]) -> None:
    """What each worker does."""
    request = Request(**{**plain, "config": PhaseConfig.model_validate(plain["config"])})
    place = here()
    rank = place.rank
    trainer = build(request, (rank, place.workers), device=place.device, wrap=place.wrap)
    files = PhaseFiles(request.output, request.phase)
    files.resume(trainer)
    board = SummaryWriter(str(files.board), purge_step=trainer.progress.step) if rank == 0 else None
    while not trainer.progress.finished:
        numbers = trainer.step()
        step, ended = trainer.progress.step, trainer.progress.step % trainer.steps_per_epoch == 0
        if board:
            files.log({"step": step, **numbers})
            _tell(board, "train", numbers, step)
        if ended:
            validation = trainer.validate()
            if not math.isfinite(validation["loss"]):
                raise CannotStart(f"the validation loss is {validation['loss']} after step {step}; choose a lower rate")
            better = trainer.judge(validation["loss"])
            if board:
                files.log({"step": step, "epoch": trainer.epoch, "validation": validation})
                _tell(board, "val", validation, step)
                if better:
                    files.save_best(trainer, validation)
        if board and (ended or step % request.config.checkpoint_every == 0):
            files.save_last(trainer)
        if ended:
            ray_train.report({"epoch": trainer.epoch, "step": step, "best": trainer.progress.best, **validation})
    if board:
        board.close()


def _tell(board: Any, part: str, numbers: Mapping[str, float], step: int) -> None:
    for name, value in numbers.items():
        board.add_scalar(name if name == "lr" else f"{name}/{part}", value, step)
