"""Both trainings: losses by closed form, resume equals never having stopped, refusals, the folded first layer."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from models import shipped
from models.drqv2 import DrQv2, load_snapshot
from models.errors import UnexpectedModel
from train_jobs.errors import CannotStart
from train_jobs.place import Place
from train_jobs.settings import CONFIGS, BadSettings, read_settings
from train_jobs.so101.average import Average
from train_jobs.so101.job import _resume, go_on
from train_jobs.so101.rate import rate_share
from train_jobs.so101_policy import pool
from train_jobs.so101_policy.__main__ import app as policy_app
from train_jobs.so101_policy.rollout import Played
from train_jobs.so101_policy.trainer import Learner, PolicySettings, PolicyTrainer
from train_jobs.so101_seg.__main__ import app as seg_app
from train_jobs.so101_seg.trainer import SegSettings, SegTrainer, segmentation_loss


@pytest.fixture(scope="module")
def seg_settings():
    tiny = {"steps": 4, "batch_size": 2, "kept_back": 2, "measure_every": 2, "warmup_steps": 1, "cooldown_steps": 2}
    return read_settings(CONFIGS / "so101_seg.yaml", SegSettings, tiny)


@pytest.fixture(scope="module")
def policy_settings():
    tiny = {
        "steps": (4,),
        "episodes": (2,),
        "predicted": (0.0,),
        "batch_size": 4,
        "measure_every": 2,
        "warmup_steps": 1,
        "cooldown_steps": (2,),
    }
    return read_settings(CONFIGS / "so101_policy.yaml", PolicySettings, tiny)


@pytest.fixture
def samples(tmp_path):
    """Two made-up episodes."""
    rng = np.random.default_rng(0)
    for number, length in ((0, 9), (1, 30)):
        played = Played(number, True, 1.0, 0.1, 1.0)
        for tick in range(length):
            planes = np.stack([rng.integers(0, 5, (84, 84)), rng.integers(0, 256, (84, 84))]).astype(np.uint8)
            planes[0, 0, 0], planes[1, 0, 0] = number, tick
            played.planes.append(planes)
            played.low_dim.append(rng.normal(size=18).astype(np.float32))
            played.teach.append(np.array([0.2, -0.1, 0.3, -0.5], np.float32))
            played.beside.append(np.array([0.05, 0.02, -0.1], np.float32))
            played.seen.append(tick > 3)
        pool.save(tmp_path, played)
    return pool.read([tmp_path])


def test_stacks_repeat_the_first_frame_and_never_cross_episodes(samples):
    image, low_dim = samples.stack(np.array([0, 1, 9, 12]), 3)
    assert image[:, :, 0, 0, 0].tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert image[:, :, 1, 0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0], [1, 2, 3]]
    assert np.array_equal(low_dim[3, 2], samples.low_dim[12])


def test_training_on_fewer_frames_than_are_kept_back_is_refused(seg_settings, frames):
    all_kept = seg_settings.model_copy(update={"kept_back": len(frames)})
    with pytest.raises(CannotStart, match=f"{len(frames)} frames: {len(frames)} are kept back"):
        SegTrainer(all_kept, frames, Place())


def test_the_rate_rises_stays_and_falls():
    shares = [rate_share(done, steps=10, warmup=2, cooldown=4) for done in range(10)]
    assert shares == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert [rate_share(done, steps=2, warmup=0, cooldown=0) for done in range(2)] == [1, 1]


def trainers(kind, seg_settings, policy_settings, frames, samples, contract):
    if kind == "seg":
        return lambda: SegTrainer(seg_settings, frames, Place())
    return lambda: PolicyTrainer(policy_settings, contract, 0, samples, Place())


@pytest.mark.parametrize("kind", ["seg", "policy"])
def test_stopped_and_resumed_equals_never_stopped(
    kind, seg_settings, policy_settings, frames, samples, contract, tmp_path
):
    make = trainers(kind, seg_settings, policy_settings, frames, samples, contract)
    whole, told = make(), []
    go_on(whole, tmp_path / "whole", report=told.append)
    assert [row["step"] for row in told] == [2, 4]

    class Killed(Exception):
        pass

    def die(row):
        raise Killed

    with pytest.raises(Killed):
        go_on(make(), tmp_path / "cut", report=die)
    second = make()
    _resume(second, tmp_path / "cut")
    assert second.steps_done == 2
    go_on(second, tmp_path / "cut", report=told.append)
    assert told[1] == told[2]
    before, after = whole.average.network.state_dict(), second.average.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "curve.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_other_settings_do_not_go_on(seg_settings, frames, tmp_path):
    go_on(SegTrainer(seg_settings, frames, Place()), tmp_path, report=lambda row: None)
    other = SegTrainer(seg_settings.model_copy(update={"learning_rate": 0.5}), frames, Place())
    with pytest.raises(CannotStart, match="other settings"):
        _resume(other, tmp_path)
    longer = SegTrainer(seg_settings.model_copy(update={"steps": 6}), frames, Place())
    _resume(longer, tmp_path)
    assert longer.steps_done == 4, "training may go on for longer than was first asked"


def test_the_whole_job_runs_in_this_process_resumes_and_keeps_a_board(frames_folder, tmp_path):
    """Ray Train without workers, by the command that a person gives; then the same command for longer."""
    config, output = tmp_path / "tiny.yaml", tmp_path / "out"
    config.write_text(
        "steps: 2\nbatch_size: 2\nlearning_rate: 0.001\nweight_decay: 0.01\nwarmup_steps: 1\ncooldown_steps: 1\n"
        "averaging: 0.9\nkept_back: 2\nmeasure_every: 1\n"
    )
    arguments = ["train", "--data", str(frames_folder), "--output", str(output), "--config", str(config)]
    arguments += ["--start", str(shipped.SO101_SEGMENTER)]
    for steps in (2, 3):
        result = CliRunner().invoke(seg_app, [*arguments, "--steps", str(steps)])
        assert result.exit_code == 0 and f"step {steps}" in result.output, result.output
    rows = [json.loads(line) for line in (output / "curve.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["table"] > 0.9, "it went on from weights that know a table"
    written = b"".join(path.read_bytes() for path in (output / "runs").glob("events.out.tfevents.*"))
    assert b"train/loss" in written and b"held/miou" in written


def test_the_loss_counts_only_classes_that_are_there():
    ids = torch.tensor([[[2, 2, 3, 3]]])
    right = 40.0 * F.one_hot(ids, 6).permute(0, 3, 1, 2).float()
    assert segmentation_loss(right, ids, torch.ones(6)) == pytest.approx(0.0, abs=1e-5)
    even = torch.zeros(1, 6, 1, 4)
    # soft IoU of a class with 2 of 4 pixels at 1/6 each: (2/6) / (2 + 4/6 - 2/6)
    assert segmentation_loss(even, ids, torch.ones(6)) == pytest.approx(np.log(6) + 1 - 1 / 7, abs=1e-5)


def test_learning_lowers_the_loss(policy_settings, samples, contract):
    longer = policy_settings.model_copy(update={"steps": (12,)})
    trainer = PolicyTrainer(longer, contract, 0, samples, Place())
    losses = [sum(trainer.step().values()) for _ in range(12)]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_the_folded_policy_is_the_same_function_on_the_contracts_own_picture(samples, contract):
    torch.manual_seed(0)
    learner = Learner(contract).eval()
    image, low_dim = (torch.from_numpy(part) for part in samples.stack(np.arange(6), 3))
    plain = DrQv2(frames=3, planes=2, low_dim=18, actions=4, critics=False)
    plain.load_state_dict(learner.folded())
    stretched = image.float()
    stretched[:, :, 0] *= 255 / 4
    with torch.inference_mode():
        assert torch.allclose(plain.act(image.float(), low_dim), learner.policy.act(stretched, low_dim), atol=1e-4)


def test_a_shipped_policy_loads_through_the_public_reader_and_nothing_else_does(contract, tmp_path):
    torch.manual_seed(1)
    network, path = Learner(contract).policy, tmp_path / "p.safetensors"
    shipped.write(path, network.state_dict(), {"env": {"obs_type": "seg_depth"}, "frame_stack": 3, "steps": 7})
    loaded = load_snapshot(path)
    assert loaded.iterations == 7 and loaded.network.actions == 4
    image, low_dim = torch.rand(2, 3, 2, 84, 84) * 255, torch.randn(2, 3, 18)
    with torch.inference_mode():
        assert torch.allclose(loaded.network.act(image, low_dim), network.act(image, low_dim), atol=5e-3)
    weights = network.state_dict()
    weights.pop("actor_model.out_mlp.0.bias")
    shipped.write(path, weights, {"frame_stack": 3})
    with pytest.raises(UnexpectedModel, match="1 tensors missing"):
        load_snapshot(path)
    path.write_bytes(b"not safetensors at all, but long enough to look")
    with pytest.raises(UnexpectedModel, match="not a weights file"):
        load_snapshot(path)


def test_the_average_of_a_standing_network_is_the_network():
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    average = Average(layer, 0.9)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    for step in range(1, 300):
        average.update(layer, step)
    assert torch.allclose(average.network.weight, torch.ones(2, 3), atol=1e-5)


@pytest.mark.parametrize(
    "app, arguments, said",
    [
        (seg_app, ["train", "--data", "nowhere", "--output", "x"], "no rendered frames"),
        (seg_app, ["train", "--data", "nowhere", "--output", "x", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (seg_app, ["evaluate", "--weights", "nowhere.ckpt"], "nowhere.ckpt"),
        (policy_app, ["train", "--output", "x", "--segmenter", "nowhere"], "nowhere"),
        (policy_app, ["export", "nowhere", "--round", "0", "--to", "x"], "has not been trained"),
        (policy_app, ["evaluate", "--policy", "nowhere.pt", "--episodes", "1", "--workers", "0"], "nowhere.pt"),
    ],
)
def test_refusals_are_one_sentence(app, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and said in result.output and "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_wrong_key_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("batchsize: 3")
    with pytest.raises(BadSettings, match="batchsize"):
        read_settings(path, SegSettings, {})
