"""Where a phase keeps its files, and how they are written so that a kill at any time leaves a whole one.

In: an output folder and a phase's name. Out: paths, atomic writes, the loss curve. Called by job.py.

`weights/phase1/phase1_decoder_best.pth`, `weights/phase2/phase2_full_best.pth` and `weights/pretrain/pretrain_best.pth`
are the files for others: the layout `epoch, model_state_dict, optimizer_state_dict, val_loss, config` of the published
fine-tuning, and a note of form and sigmoid. `state/<phase>/last.pt` is for resuming, `runs/<phase>/` for TensorBoard,
`logs/<phase>.jsonl` the loss of every step.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.trackssm.checkpoint import OWN_NOTE, read_checkpoint
from train_jobs.errors import CannotStart
from train_jobs.trackssm.trainer import Trainer
from train_jobs.whole import write_whole

BEST_NAMES = {"pretrain": "pretrain_best.pth", "phase1": "phase1_decoder_best.pth", "phase2": "phase2_full_best.pth"}


@dataclass(frozen=True, slots=True)
class PhaseFiles:
    """Paths of one phase."""

    output: Path
    phase: str

    @property
    def best(self) -> Path:
        """The weights with the lowest validation loss."""
        return self.output / "weights" / self.phase / BEST_NAMES[self.phase]

    @property
    def last(self) -> Path:
        """What training goes on from."""
        return self.output / "state" / self.phase / "last.pt"

    @property
    def curve(self) -> Path:
        """One line of JSON per step or validation."""
        return self.output / "logs" / f"{self.phase}.jsonl"

    @property
    def board(self) -> Path:
        """TensorBoard's folder."""
        return self.output / "runs" / self.phase

    def save_best(self, trainer: Trainer, validation: dict[str, float]) -> None:
        """Write the weights for others."""
        config = trainer.config
        content = {
            "epoch": trainer.epoch,
            "model_state_dict": trainer.objective.network.state_dict(),
            "optimizer_state_dict": trainer.optimiser.state_dict(),
            "val_loss": validation["loss"],
            "config": config.model_dump(mode="json"),
            OWN_NOTE: {
                "form": config.form,
                "sigmoid": config.sigmoid,
                "unposed": any(not s.way_known for s in trainer.train.sequences),
                "validation": validation,
            },
        }
        write_whole(self.best, content)

    def save_last(self, trainer: Trainer) -> None:
        """Write what training goes on from."""
        write_whole(self.last, trainer.state())

    def resume(self, trainer: Trainer) -> bool:
        """Restore the last state, if there is one. Raises CannotStart when it was begun with another configuration."""
        if not self.last.is_file():
            return False
        state = torch.load(self.last, map_location="cpu", weights_only=True)
        if state["fingerprint"] != trainer.config.fingerprint():
            raise CannotStart(
                f"{self.last} was begun with another configuration; give the same one, or another --output"
            )
        trainer.restore(state)
        self._cut_curve(trainer.progress.step)
        return True

    def _cut_curve(self, step: int) -> None:
        """Drop lines of steps that were done after the last state was written: they will be done again."""
        lines = self.curve.read_text().splitlines(keepends=True) if self.curve.is_file() else []
        whole = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        self.curve.write_text("".join(whole))

    def log(self, row: dict[str, Any]) -> None:
        """Append to the curve."""
        self.curve.parent.mkdir(parents=True, exist_ok=True)
        with self.curve.open("a") as file:
            file.write(json.dumps(row) + "\n")


def export(best: Path, to: Path) -> None:
    """A best file as safetensors: tensors and the note of form, sigmoid and validation, no optimiser."""
    checkpoint = read_checkpoint(best)
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.weights.items()}
    note = {**checkpoint.note, "epoch": checkpoint.epoch, "trained_file_sha256": checkpoint.sha256}
    to.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(to), {OWN_NOTE: json.dumps(note, sort_keys=True)})
