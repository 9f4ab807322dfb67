"""stage3.py: gradients against finite differences, limits, and that training beats the trivial answer."""

import json

import pytest
import torch
from typer.testing import CliRunner

from models.kinematics import ur
from models.retarget.hand import HandRetargeter
from models.retarget.head import RetargetHead
from train_jobs.manipulation.__main__ import app
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
    words = ["stage3", "--output", str(tmp_path), "--tracks", "3", "--steps", "150"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    head, solver, middle = (report[name] for name in ("head", "solver", "middle of the ranges"))
    assert solver["tip_error_mm_mean"] <= head["tip_error_mm_mean"] < 0.7 * middle["tip_error_mm_mean"]
    assert head["limit_violations"] == solver["limit_violations"] == 0
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
