"""A training loop on Ray Train: in this process, or in workers that are joined and started anew when one dies.

In: a loop that resumes from its own files, and what it needs as plain values. Out: the last report. Called by
so101/job.py and trackssm/job.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import train as ray_train
from ray.train.torch import TorchTrainer

# Workers that die are started anew this often; training resumes at the last state.
MOST_FAILURES = 3


def fit(
    loop: Callable[[dict[str, Any]], None], plain: dict[str, Any], output: Path, name: str, *, workers: int, gpu: bool
) -> dict[str, Any]:
    """Run `loop(plain)` to its end, with no workers in this process."""
    scratch = output.absolute() / ".ray"
    result = TorchTrainer(
        loop,
        train_loop_config=plain,
        scaling_config=ray_train.ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=ray_train.RunConfig(
            name=name,
            storage_path=str(scratch),
            failure_config=ray_train.FailureConfig(max_failures=MOST_FAILURES),
        ),
    ).fit()
    shutil.rmtree(scratch, ignore_errors=True)  # our own files say more
    return dict(result.metrics or {})
