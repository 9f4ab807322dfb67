"""stage3.py: gradients against finite differences, limits, and that training beats the trivial answer."""

import json

import pytest
import torch
from typer.testing import CliRunner

from models.kinematics import ur
from models.retarget.decoder import CHUNK, HISTORY, ActionDecoder
from models.retarget.hand import HandRetargeter
from models.retarget.head import RetargetHead
from train_jobs.manipulation.__main__ import app
from train_jobs.manipulation.actions import future_loss, windows
from train_jobs.manipulation.stage3 import Labelled, label, loss, measure


@pytest.fixture(scope="module")
def solver():
    return HandRetargeter("right", "vector")


def test_the_losss_gradient_is_its_finite_difference(solver):
    arm = ur.arm_named("ur5e")
    data = label(range(1), solver, arm)
    few = Labelled(*(getattr(data, name)[:4].double() for name in Labelled.__slots__))
    torch.manual_seed(0)
    head = RetargetHead(solver.hand, width=16).double()
    exact = HandRetargeter("right", "vector")
    exact.solver.kinematics.double()
    loss(head, exact, arm, few).backward()
    generator = torch.Generator().manual_seed(1)
    for parameter in (head.fingers[0].weight, head.arm[2].weight):
        way = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-6 * way
            values.append(loss(head, exact, arm, few).item())
            with torch.no_grad():
                parameter -= sign * 1e-6 * way
        assert (values[0] - values[1]) / 2e-6 == pytest.approx((parameter.grad * way).sum().item(), rel=1e-4)


def test_a_short_training_beats_the_trivial_answer_within_limits(tmp_path):
    words = ["stage3", "--output", str(tmp_path), "--tracks", "3", "--steps", "150", "--decoder-steps", "80"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    head, solver, middle = (report[name] for name in ("head", "solver", "middle of the ranges"))
    assert solver["tip_error_mm_mean"] <= head["tip_error_mm_mean"] < 0.7 * middle["tip_error_mm_mean"]
    assert head["limit_violations"] == solver["limit_violations"] == 0
    ahead = report["ahead"]
    assert ahead["decoder and head"]["wrist_mm_10_ahead"] < ahead["last frame and head"]["wrist_mm_10_ahead"]
    assert all(errors["limit_violations"] == 0 for errors in ahead.values())
    assert solver["wrist_error_mm_mean"] < 0.01 and head["wrist_error_mm_mean"] < middle["wrist_error_mm_mean"]


def test_random_heads_never_leave_the_limits(solver):
    data = label(range(1), solver, ur.arm_named("ur5e"))
    head = RetargetHead(solver.hand)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter *= 50
    assert measure(head, solver, ur.arm_named("ur5e"), data)["head"]["limit_violations"] == 0


def test_an_unknown_arm_ends_with_one_sentence(tmp_path):
    result = CliRunner().invoke(app, ["stage3", "--output", str(tmp_path), "--arm", "kuka"])
    assert result.exit_code == 1 and result.output.count("error:") == 1 and "Traceback" not in result.output


def test_an_untrained_decoder_goes_on_at_a_fading_speed_wherever_the_hand_is():
    points, poses = (values[:5] for values in windows(range(1), 2.0))
    still = points[:, :1].expand(-1, HISTORY, -1, -1), poses[:, :1].expand(-1, HISTORY, -1, -1)
    told, where = ActionDecoder()(*still)
    assert told.shape == (5, CHUNK, 21, 3) and where.shape == (5, CHUNK, 4, 4)
    torch.testing.assert_close(told, points[:, :1].expand(-1, CHUNK, -1, -1))
    torch.testing.assert_close(where, poses[:, :1].expand(-1, CHUNK, -1, -1))


def test_the_decoder_sees_neither_where_nor_how_turned_the_room_is():
    torch.manual_seed(0)
    decoder = ActionDecoder()
    torch.nn.init.normal_(decoder.write[-1].weight, std=0.02)
    points, poses = (values[:5, :HISTORY] for values in windows(range(1), 2.0))
    moved = torch.eye(4)
    moved[:3, :3] = torch.linalg.matrix_exp(torch.tensor([[0.0, -1, 2], [1, 0, -3], [-2, 3, 0]]))
    moved[:3, 3] = torch.tensor([0.4, -2.0, 1.0])
    (told, where), (told_there, where_there) = decoder(points, poses), decoder(points, moved @ poses)
    torch.testing.assert_close(told_there, told, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(where_there, moved @ where, atol=1e-5, rtol=1e-4)
    turns = where[..., :3, :3]
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand_as(turns), atol=1e-5, rtol=0)


def test_the_decoders_gradient_is_its_finite_difference():
    torch.manual_seed(0)
    decoder = ActionDecoder(width=8).double()
    torch.nn.init.normal_(decoder.write[-1].weight, std=0.02)
    points, poses = (values[:4].double() for values in windows(range(1), 2.0))
    future_loss(decoder, points, poses).backward()
    weight = decoder.encoder.weight_ih_l0
    way, values = torch.randn(weight.shape, dtype=torch.float64), []
    for sign in (1, -2):
        with torch.no_grad():
            weight += sign * 1e-6 * way
            values.append(future_loss(decoder, points, poses).item())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx((weight.grad * way).sum().item(), rel=1e-4)
