"""A training loop on Ray Train: in this process, or in workers that are joined and started anew when one dies.

In: a loop that resumes from its own files, and what it needs as plain values. Out: the last report. Called by
so101/job.py, trackssm/job.py and manipulation/stage1.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import train as ray_train
from ray.train import TrainingFailedError
from ray.train.torch import TorchTrainer, get_device, prepare_model
from torch import nn

from models.errors import ModelError
from train_jobs.place import Place

# Workers that die are started anew this often; training resumes at the last state.
MOST_FAILURES = 3


def here(**joining: Any) -> Place:
    """Where Ray Train has put the worker that asks; `joining` goes to torch's DistributedDataParallel."""
    context = ray_train.get_context()
    workers = context.get_world_size()

    def joined(module: nn.Module) -> nn.Module:
        return prepare_model(module, parallel_strategy_kwargs=joining) if workers > 1 else module

    return Place(get_device(), context.get_world_rank(), workers, joined)


def fit(
    loop: Callable[[dict[str, Any]], None], plain: dict[str, Any], output: Path, name: str, *, workers: int, gpu: bool
) -> dict[str, Any]:
    """Run `loop(plain)` to its end, with no workers in this process. Raises what a worker raised on purpose."""
    scratch = output.absolute() / ".ray"
    trainer = TorchTrainer(
        loop,
        train_loop_config=plain,
        scaling_config=ray_train.ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=ray_train.RunConfig(
            name=name,
            storage_path=str(scratch),
            failure_config=ray_train.FailureConfig(max_failures=MOST_FAILURES),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        for failure in getattr(error, "worker_failures", {}).values():
            if (ours := _on_purpose(failure)) is not None:
                raise ours from None
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # our own files say more
    return dict(result.metrics or {})


def _on_purpose(failure: BaseException | None) -> ModelError | None:
    """The error of ours that Ray has wrapped, if there is one."""
    while failure is not None and not isinstance(failure, ModelError):
        failure = getattr(failure, "cause", None) or failure.__cause__
    return failure
