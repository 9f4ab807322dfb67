"""Stage 1: groups, schedule, matching, resume to the bit, overfitting, refusals, the report."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from models.errors import UnexpectedModel
from models.manipulation import checkpoint
from models.manipulation.network import build
from models.manipulation.size import SIZES
from train_jobs.errors import CannotStart
from train_jobs.manipulation import memory
from train_jobs.manipulation.__main__ import app
from train_jobs.manipulation.config import StageConfig
from train_jobs.manipulation.errors import Collapsed, UnknownLoss
from train_jobs.manipulation.evaluate import nearest
from train_jobs.manipulation.objective import Stage1Objective, match
from train_jobs.manipulation.samples import Samples
from train_jobs.manipulation.stage1 import Request, run
from train_jobs.manipulation.synthetic import generate
from train_jobs.manipulation.trainer import Trainer, parameter_groups, predict
from train_jobs.place import Place
from train_jobs.settings import CONFIGS, BadSettings, read_settings


@pytest.fixture(scope="module")
def some() -> Samples:
    return generate("train", 0, 12, 128)


def trainer_of(some: Samples, **values) -> Trainer:
    torch.manual_seed(0)
    config = StageConfig(batch_size=6, epochs=2, warmup_steps=1, **values)
    return Trainer(build(SIZES["tiny"]), config, some)


def test_the_shipped_configuration_is_valid_and_names_only_losses():
    config = read_settings(CONFIGS / "manipulation_stage1.yaml", StageConfig, {})
    assert config.size == "tiny"
    with pytest.raises(BadSettings, match="did you mean 'batch_size'"):
        read_settings(CONFIGS / "manipulation_stage1.yaml", StageConfig, {"batchsize": 3})
    with pytest.raises(UnknownLoss, match="unknown loss 'hands'"):
        read_settings(CONFIGS / "manipulation_stage1.yaml", StageConfig, {"weights": {"hands": 1.0}})


def test_every_trained_parameter_is_in_exactly_one_group_also_the_losses_own(some):
    network, objective = build(SIZES["tiny"]), Stage1Objective()
    groups = parameter_groups(network, objective, StageConfig())
    ids = [id(p) for group in groups for p in group["params"]]
    wanted = {id(p) for part in (network, objective) for p in part.parameters() if p.requires_grad}
    assert len(ids) == len(set(ids)) and set(ids) == wanted
    assert id(objective.refined.log_weights) in ids


def test_the_rate_warms_up_and_ends_at_zero(some):
    trainer = trainer_of(some)
    shares = []
    for step in range(trainer.steps):
        trainer.step_number = step
        shares.append(trainer.share())
    assert shares[0] == 1 and shares[-1] == pytest.approx(0, abs=1e-9) and shares == sorted(shares, reverse=True)


def test_objects_find_the_query_that_is_nearest_whatever_their_order(some):
    network = build(SIZES["tiny"]).eval()
    told = network(some.pictures, some.intrinsics).objects
    places = torch.zeros_like(told.positions_m)
    places[..., 2] = 5.0
    held = torch.nonzero(some.present.sum(1) >= 1)[:, 0]
    for row in held.tolist():
        for thing in torch.nonzero(some.present[row])[:, 0].tolist():
            places[row, 7 - 2 * thing] = some.object_poses[row, thing, :3, 3]
    rows, queries, things = match(replace(told, positions_m=places), some)
    assert len(rows) == int(some.present.sum())
    assert torch.equal(queries, 7 - 2 * things)


def test_a_resumed_training_is_the_undisturbed_one_to_the_bit(some):
    whole, first = trainer_of(some), trainer_of(some)
    for _ in range(4):
        whole.step()
    for _ in range(2):
        first.step()
    second = trainer_of(some)
    second.restore(first.state())
    for _ in range(2):
        second.step()
    for ours, theirs in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_half_precision_keeps_its_pixels(some):
    trainer = trainer_of(some, bf16=True)
    numbers = trainer.step()
    plain = trainer_of(some).step()
    assert numbers["reprojection"] == pytest.approx(plain["reprojection"], rel=0.05)


def test_a_batch_in_turns_has_the_gradient_of_the_whole(some):
    hands = some[some.has_hand][slice(0, 8)]
    found = []
    for pieces in (1, 4):
        trainer = trainer_of(hands, augment=False)
        for part in trainer.network.modules():  # what is normalised over a batch is another batch's business
            if isinstance(part, torch.nn.BatchNorm2d):
                part.eval()
                part.train = lambda mode=True: None
        trainer.at_once = len(hands) // pieces
        numbers, joints = trainer._gradients(hands, 0.0)
        found.append((trainer.network.hand.queries.grad.clone(), numbers["hand_coarse"], joints))
    assert torch.allclose(found[0][0], found[1][0], atol=0.02 * float(found[0][0].abs().max()))
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-4) and torch.allclose(found[0][2], found[1][2], atol=1e-5)


def test_as_many_pictures_go_through_at_once_as_the_memory_target_holds(some):
    def most(target: float) -> int:
        return trainer_of(some, memory_target_gib=target).at_once

    assert trainer_of(some).at_once == 6 == most(8.0)
    assert 1 <= most(0.07) < 6
    with pytest.raises(CannotStart, match=r"holds no picture: weights, gradients and moments take 0\.0\d GiB"):
        most(0.01)


def test_what_is_kept_for_the_way_back_is_counted_once_and_grows_with_the_pictures():
    layer = torch.nn.Linear(64, 64, bias=False)

    def work(count: int) -> torch.Tensor:
        rows = torch.ones(count, 64, requires_grad=True)
        return layer(rows).exp() + layer(rows)  # rows are kept for two, the exponential for itself

    few, more = (memory.kept_bytes(lambda n=n: work(n)) for n in (10, 20))
    assert more - few == 10 * 64 * 4 * 2  # bytes: rows and exponential
    assert few == 10 * 64 * 4 * 2 + 64 * 64 * 4


def test_workers_take_every_other_picture_of_a_batch(some):
    whole = trainer_of(some, augment=False).batch().intrinsics
    torch.manual_seed(0)
    config = StageConfig(batch_size=6, epochs=2, warmup_steps=1, augment=False)
    parts = [Trainer(build(SIZES["tiny"]), config, some, Place(rank=rank, workers=2)).batch() for rank in (0, 1)]
    assert torch.equal(torch.stack([part.intrinsics for part in parts], 1).flatten(0, 1), whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_of_ray_train_train_and_stop_together_and_tell_what_is_wrong(tmp_path):
    (tmp_path / "few.yaml").write_text("validation_pictures: 16\nbatch_size: 16\nwarmup_steps: 1\n")
    words = [sys.executable, "-m", "train_jobs.manipulation", "stage1", "--pictures", "32", "--test-pictures", "24",
             "--config", str(tmp_path / "few.yaml"), "--output", str(tmp_path / "out"), "--epochs", "2"]  # fmt: skip
    root = CONFIGS.parent
    done = subprocess.run([*words, "--workers", "2", "--minutes", "0"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "stopped at step 0 of 4" in done.stdout, done.stderr[-3000:]
    done = subprocess.run([*words, "--workers", "2"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "network: absolute" in done.stdout, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    network, note = checkpoint.load(tmp_path / "out" / "manipulation.safetensors", "tiny")
    assert note["steps"] == 4 and all(torch.isfinite(value).all() for value in network.state_dict().values())
    (tmp_path / "few.yaml").write_text("validation_pictures: 16\nbatch_size: 16\nwarmup_steps: 1\nlr: 1.0e+30\n")
    words[words.index(str(tmp_path / "out"))] = str(tmp_path / "wild")
    done = subprocess.run([*words, "--workers", "1"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 1 and "lower the learning rate" in done.stderr.splitlines()[-1]


def test_a_network_that_gives_one_pose_for_all_is_stopped(some):
    trainer = trainer_of(some, lr=1e-30)
    hand = trainer.average.hand
    for last in (hand.point_at.ask[-1], hand.offset[-1], hand.correct[-1]):  # all joints in the middle of every picture
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
    hand.mean_depths_m.zero_()
    hands = some[some.has_hand]
    for _ in range(3):
        trainer.look(hands)
    with pytest.raises(Collapsed, match="one pose for every picture"):
        trainer.look(hands)


@pytest.fixture
def all_threads():
    """As many as the machine has, however few the tests before were content with."""
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield
    torch.set_num_threads(before)


@pytest.mark.timeout(900)
def test_thirty_two_hands_are_learned_by_heart(all_threads):
    # Bounded by steps: two minutes of one core that has nothing else to do, and no clock decides.
    some = generate("train", 0, 60, 128)
    hands = some[some.has_hand][slice(0, 32)]
    torch.manual_seed(0)
    config = StageConfig(
        batch_size=16, epochs=140, warmup_steps=10, lr=2.2e-3, augment=False, ema=0.8, weight_decay=0.0
    )
    trainer, error = Trainer(build(SIZES["tiny"]), config, hands), float("inf")
    while trainer.step_number < trainer.steps and error >= 5:
        trainer.step()
        if trainer.step_number % 20 == 0:
            joints = predict(trainer.average, hands, 32)["joints_m"]
            off = joints - joints[:, :1] - hands.joints_m + hands.joints_m[:, :1]
            error = 1000 * float(off.norm(dim=-1).mean())
    assert error < 5


def test_the_nearest_picture_of_a_picture_is_itself(some):
    hands = some[some.has_hand]
    assert torch.equal(nearest(hands, hands), hands.joints_m)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stage1")
    words = ["stage1", "--output", str(folder), "--pictures", "32", "--epochs", "1", "--test-pictures", "24"]
    config = folder / "few.yaml"
    config.write_text("validation_pictures: 16\nbatch_size: 16\nwarmup_steps: 1\n")
    result = CliRunner().invoke(app, [*words, "--config", str(config)])
    assert result.exit_code == 0, result.output
    assert result.output.index("floor, the mean pose") < result.output.index("step 2")
    return folder


def test_the_report_has_the_network_beside_those_who_have_not_learned(trained):
    report = json.loads((trained / "report.json").read_text())
    assert {"network", "mean pose", "nearest picture"} <= set(report["hands"])
    scores = report["hands"]["network"]
    assert set(scores) == {"absolute", "root", "procrustes"}
    assert scores["root"]["interval_mm"][0] < scores["root"]["mpjpe_mm"] < scores["root"]["interval_mm"][1]
    assert report["objects"]["held"] > 0 and 0 < report["contacts"]["share_touching"] < 1
    rows = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and "attention_entropy" in rows[-1]


def test_a_checkpoint_comes_back_as_it_was_and_no_other_size_is_taken(trained, some, tmp_path):
    network, note = checkpoint.load(trained / "manipulation.safetensors", "tiny")
    assert note["steps"] == 2
    again = tmp_path / "again.safetensors"
    checkpoint.save(network, again, {})
    other, _ = checkpoint.load(again)
    answers = [part(some.pictures, some.intrinsics).hand.joints_m for part in (network, other)]
    assert torch.equal(*answers) and torch.isfinite(answers[0]).all()
    with pytest.raises(UnexpectedModel, match="holds size tiny, not small"):
        checkpoint.load(again, "small")
    (tmp_path / "torn").write_bytes(b"no weights")
    with pytest.raises(UnexpectedModel, match="cannot be read as safetensors"):
        checkpoint.load(tmp_path / "torn")


def test_a_training_is_stopped_by_time_and_goes_on_for_longer_with_one_line_per_step(trained, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(trained, folder)
    log = folder / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 3}\n')  # as if it had been killed after a step that was not kept
    config = StageConfig(pictures=32, validation_pictures=16, batch_size=16, warmup_steps=1, epochs=2)
    said: list[str] = []
    found = run(Request(config, folder, test_pictures=24, most_seconds=0), said.append)
    assert found == {"stopped_at_step": 2, "of": 4} and "going on from step 2" in said
    found = run(Request(config, folder, test_pictures=24), said.append)
    assert found["hands"]["network"]["root"]["mpjpe_mm"] > 0
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4]


def test_another_configuration_does_not_go_on(trained):
    config = StageConfig(pictures=32, validation_pictures=16, batch_size=16, warmup_steps=1, epochs=1, lr=0.5)
    with pytest.raises(CannotStart, match="another configuration"):
        run(Request(config, trained, test_pictures=24), lambda line: None)


@pytest.mark.parametrize(("words", "sentence"), [
    (["--size", "huge"], "size"),
    (["--size", "small"], "stands on DINOv2: name the folder"),
    (["--size", "small", "--backbone", "nowhere"], "there is no DINOv2 in nowhere"),
    (["--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
])  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, words, sentence):
    result = CliRunner().invoke(app, ["stage1", "--output", str(tmp_path / "out"), *words])
    assert result.exit_code == 1
    assert sentence in result.output and "Traceback" not in result.output
