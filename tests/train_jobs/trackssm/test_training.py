"""Phases train, stop, resume at the exact step and keep frozen what is frozen; what cannot start says why."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from models.trackssm.checkpoint import load_d2mp, read_checkpoint
from models.trackssm.residual import load_residual
from train_jobs.errors import CannotStart
from train_jobs.settings import BadSettings, read_settings
from train_jobs.trackssm.__main__ import CONFIGS, app
from train_jobs.trackssm.config import PhaseConfig
from train_jobs.trackssm.files import PhaseFiles
from train_jobs.trackssm.job import Request, build, check
from train_jobs.trackssm.trainer import Trainer

ROOT = Path(__file__).resolve().parents[3]
QUICK = """
form: {form}
size: small
train_encoder: {encoder}
lr_encoder: 1.0e-3
lr_decoder: 1.0e-3
batch_size: 2
sequence_length: 10
num_queries: 20
max_epochs: 2
patience: 7
warmup_epochs: 1
gradient_clip: 1.0
windows_per_epoch: 8
most_samples: 64
validation_windows: 4
checkpoint_every: 3
"""


def quick(folder, form="residual", encoder="true"):
    path = folder / f"{form}_{encoder}.yaml"
    path.write_text(QUICK.format(form=form, encoder=encoder))
    return path


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def curve(output, phase):
    return [json.loads(line) for line in (output / "logs" / f"{phase}.jsonl").read_text().splitlines()]


def trainer_of(conversion, folder, **changes):
    config = read_settings(quick(folder), PhaseConfig, changes)
    return build(Request("pretrain", config, conversion, folder, None, 0, None))


@pytest.mark.parametrize("form", ["residual", "public"])
def test_both_phases_run_and_phase_1_leaves_the_encoder_alone(form, conversion, tmp_path):
    common = ("--data", conversion, "--output", tmp_path)
    for phase, encoder in (("pretrain", "true"), ("phase1", "false"), ("phase2", "true")):
        done = call(phase, *common, "--config", quick(tmp_path, form, encoder))
        assert done.exit_code == 0, done.output
    files = {phase: PhaseFiles(tmp_path, phase) for phase in ("pretrain", "phase1", "phase2")}
    assert files["phase1"].best == tmp_path / "weights/phase1/phase1_decoder_best.pth"
    assert files["phase2"].best == tmp_path / "weights/phase2/phase2_full_best.pth"
    start, frozen, free = (read_checkpoint(files[phase].best).weights for phase in ("pretrain", "phase1", "phase2"))
    encoder = [name for name in start if name.startswith("encoder.")]
    assert len(encoder) > 20
    assert all(torch.equal(start[name], frozen[name]) for name in encoder)
    assert any(not torch.equal(start[n], frozen[n]) for n in start if n.startswith("ssm_decoder."))
    assert any(not torch.equal(frozen[name], free[name]) for name in encoder)
    load = load_residual if form == "residual" else load_d2mp
    load(files["phase2"].best)
    assert call("export", files["phase2"].best, tmp_path / "ship.safetensors").exit_code == 0
    shipped = load(tmp_path / "ship.safetensors").state_dict()
    assert all(torch.equal(shipped[name], value) for name, value in free.items())
    content = torch.load(files["phase2"].best, weights_only=True)
    assert {"epoch", "model_state_dict", "optimizer_state_dict", "val_loss", "config"} < set(content)
    assert list((tmp_path / "runs/phase1").glob("events.out.tfevents.*"))
    assert [row["epoch"] for row in curve(tmp_path, "phase1") if "epoch" in row] == [1, 2]


@pytest.mark.parametrize("posed", [True, False])
def test_weights_say_whether_they_learned_without_the_cameras_way(posed, conversion, mot, tmp_path):
    words = ("pretrain", "--output", tmp_path / "out", "--config", quick(tmp_path), "--epochs", 1)
    assert call(*words, "--data", conversion if posed else mot).exit_code == 0
    assert load_residual(PhaseFiles(tmp_path / "out", "pretrain").best).unposed == (not posed)


@pytest.mark.parametrize("form", ["residual", "public"])
@pytest.mark.parametrize("encoder", [True, False])
def test_what_asks_for_a_gradient_gets_one(form, encoder, conversion, tmp_path):
    """Distributed training waits for every one of them."""
    torch.manual_seed(0)
    start = tmp_path / "start.pth"
    torch.save({"state_dict": trainer_of(conversion, tmp_path, form=form).objective.network.state_dict()}, start)
    config = read_settings(quick(tmp_path), PhaseConfig, {"form": form, "train_encoder": encoder})
    trainer = build(Request("phase2", config, conversion, tmp_path, start, 0, None))
    trainer.step()
    asked, got = (
        {name for name, p in trainer.objective.network.named_parameters() if has(p)}
        for has in (lambda p: p.requires_grad, lambda p: p.grad is not None)
    )
    assert asked == got and len(asked) > 20
    assert any(name.startswith("encoder.") for name in asked) == encoder


def test_a_step_depends_on_nothing_but_the_state(conversion, tmp_path):
    whole = trainer_of(conversion, tmp_path)
    first = [whole.step() for _ in range(6)]
    part = trainer_of(conversion, tmp_path)
    before = [part.step() for _ in range(3)]
    saved = tmp_path / "state.pt"
    torch.save(part.state(), saved)
    torch.rand(7)  # whatever happened in between
    resumed = trainer_of(conversion, tmp_path)
    resumed.restore(torch.load(saved, weights_only=True))
    assert before + [resumed.step() for _ in range(3)] == first


@pytest.mark.slow
def test_stopped_between_two_states_and_run_again_gives_the_same_curve(conversion, tmp_path, monkeypatch):
    words = ("pretrain", "--data", conversion, "--config", quick(tmp_path), "--epochs", "3", "--output")
    assert call(*words, tmp_path / "whole").exit_code == 0
    step, left = Trainer.step, iter(range(8))

    def stops(trainer):
        if next(left, None) is None:
            raise KeyboardInterrupt  # two steps after the last state
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", stops)
    call(*words, tmp_path / "broken")
    monkeypatch.undo()
    assert [row["step"] for row in curve(tmp_path / "broken", "pretrain")][-1] == 8
    assert call(*words, tmp_path / "broken").exit_code == 0
    assert curve(tmp_path / "broken", "pretrain") == curve(tmp_path / "whole", "pretrain")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_at_any_step_and_run_again_gives_the_same_curve(conversion, tmp_path):
    words = [sys.executable, "-m", "train_jobs.trackssm", "pretrain", "--data", conversion,
             "--config", quick(tmp_path), "--epochs", "4"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for output in (whole, broken):
        words_here = [str(word) for word in (*words, "--output", output)]
        if output is broken:
            log, process = broken / "logs/pretrain.jsonl", subprocess.Popen(words_here, cwd=ROOT, env=environment)
            deadline = time.monotonic() + 600
            while not (log.is_file() and len(log.read_text().splitlines()) > 7) and time.monotonic() < deadline:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert len(curve(broken, "pretrain")) < 4 * 5
        subprocess.run(words_here, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert curve(broken, "pretrain") == curve(whole, "pretrain")
    ours, theirs = (read_checkpoint(PhaseFiles(o, "pretrain").best).weights for o in (whole, broken))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_workers_of_ray_train_train_as_this_process_does(conversion, tmp_path):
    """One worker makes the very same curve; two share each batch and end after the same steps."""
    words = [sys.executable, "-m", "train_jobs.trackssm", "pretrain", "--data", conversion,
             "--config", quick(tmp_path), "--epochs", "2", "--output"]  # fmt: skip
    assert call(*words[3:], tmp_path / "0").exit_code == 0
    for workers in ("1", "2"):
        here = [str(word) for word in (*words, tmp_path / workers, "--workers", workers)]
        done = subprocess.run(here, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert list((tmp_path / workers / "runs/pretrain").glob("events.out.tfevents.*"))
    alone, one, two = (curve(tmp_path / workers, "pretrain") for workers in "012")
    assert [row["step"] for row in two] == [row["step"] for row in alone]
    for ours, theirs in zip(one, alone, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4) if "lr" in ours else ours["step"] == theirs["step"]


def test_validation_leaves_the_mode_alone_and_says_what_was_there_before(conversion, tmp_path):
    trainer = trainer_of(conversion, tmp_path)
    trainer.objective.network.eval()
    numbers, again = trainer.validate(), trainer.validate()
    assert numbers == again and not trainer.objective.network.training
    # Untrained, the residual variant is the filter.
    assert numbers["box_giou"] == pytest.approx(numbers["plain_giou"], abs=1e-6)
    trainer.objective.network.train()
    assert trainer.validate() == numbers and trainer.objective.network.training


def test_rates_follow_warm_up_and_cosine(conversion, tmp_path):
    trainer = trainer_of(conversion, tmp_path, warmup_epochs=2, max_epochs=6)
    shares = []
    for step in range(6 * trainer.steps_per_epoch):
        trainer.progress.step = step
        shares.append(trainer.share())
    warm = 2 * trainer.steps_per_epoch
    assert shares[:warm] == pytest.approx([(k + 1) / warm for k in range(warm)])
    assert shares[warm - 1] == 1 and shares[-1] == pytest.approx(0, abs=1e-9)
    assert shares[4 * trainer.steps_per_epoch - 1] == pytest.approx(0.5)


def test_patience_ends_training(conversion, tmp_path):
    trainer = trainer_of(conversion, tmp_path, patience=2, max_epochs=99)
    assert trainer.judge(1.0) and not trainer.judge(1.5) and not trainer.progress.finished
    assert trainer.judge(0.9) and not trainer.judge(math.nan) and not trainer.judge(2.0)
    assert trainer.progress.finished and trainer.progress.best == 0.9


@pytest.mark.slow
def test_learning_lowers_the_loss(conversion, tmp_path):
    trainer = trainer_of(conversion, tmp_path, max_epochs=10)
    before = trainer.validate()["loss"]
    for _ in range(40):
        trainer.step()
    after = trainer.validate()
    assert after["loss"] < before and after["box_giou"] > after["plain_giou"]


def test_the_configurations_hold_the_recipes_values():
    one, two = (read_settings(CONFIGS / f"trackssm_{phase}.yaml", PhaseConfig, {}) for phase in ("phase1", "phase2"))
    both = {"batch_size": 16, "sequence_length": 20, "num_queries": 300, "warmup_epochs": 5, "gradient_clip": 1.0}
    for config, own in (
        (one, {"lr_decoder": 1e-4, "max_epochs": 40, "patience": 7, "train_encoder": False}),
        (two, {"lr_encoder": 1e-5, "lr_decoder": 5e-5, "max_epochs": 80, "patience": 10, "train_encoder": True}),
    ):
        assert {name: getattr(config, name) for name in (both | own)} == both | own
    read_settings(CONFIGS / "trackssm_pretrain.yaml", PhaseConfig, {})


def test_what_cannot_start_says_why(conversion, tmp_path):
    common = ("--data", conversion, "--output", tmp_path / "out")
    alone = call("phase1", *common)
    assert alone.exit_code == 1 and "run `pretrain` with this --output first, or give --init FILE" in alone.output
    none = call("pretrain", "--data", tmp_path, "--output", tmp_path / "out")
    assert none.exit_code == 1 and "holds 0 sequences" in none.output
    (tmp_path / "typo.yaml").write_text("batchsize: 3\n")
    with pytest.raises(BadSettings, match="did you mean 'batch_size'"):
        read_settings(tmp_path / "typo.yaml", PhaseConfig, {})
    config = read_settings(quick(tmp_path, encoder="false"), PhaseConfig, {})
    with pytest.raises(CannotStart, match="random encoder"):
        check(Request("phase1", config, conversion, tmp_path, None, 0, None))


def test_another_configuration_does_not_go_on_where_this_one_stopped(conversion, tmp_path):
    common = ("pretrain", "--data", conversion, "--output", tmp_path, "--config", quick(tmp_path))
    assert call(*common, "--epochs", 1).exit_code == 0
    changed = call(*common, "--epochs", 1, "--seed", 9)
    assert changed.exit_code == 1 and "was begun with another configuration" in changed.output


def test_weights_of_another_size_or_form_do_not_start_a_phase(conversion, tmp_path):
    assert call("pretrain", "--data", conversion, "--output", tmp_path, "--config", quick(tmp_path),
                "--epochs", 1).exit_code == 0  # fmt: skip
    start = PhaseFiles(tmp_path, "pretrain").best
    other = call("phase1", "--data", conversion, "--output", tmp_path / "b", "--init", start, "--size", "full",
                 "--config", quick(tmp_path, encoder="false"))  # fmt: skip
    assert other.exit_code == 1 and "missing" in other.output and "layers.3" in other.output
