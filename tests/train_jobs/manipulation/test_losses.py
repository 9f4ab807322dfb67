"""Losses: gradients against finite differences, values against closed forms, names and masks."""

import math
import pickle

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.autograd import gradcheck

from models.kinematics.rigid import rotation_about, rotation_from_axes
from train_jobs.manipulation import contact_losses as contact
from train_jobs.manipulation import monitors, solids
from train_jobs.manipulation import pose_losses as pose
from train_jobs.manipulation.errors import Collapsed, UnknownLoss
from train_jobs.manipulation.weighting import LOSSES, SCHEDULES, Weighting

CAMERA = torch.tensor([[150.0, 0, 112], [0, 150, 112], [0, 0, 1]]).double()


def draw(*shape: int, seed: int = 0, scale: float = 0.05, **more) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    values = scale * torch.randn(*shape, generator=rng, dtype=torch.float64)
    return (values + torch.tensor([0, 0, 0.5]).double() if more.get("ahead") else values).requires_grad_(True)


def rotations(count: int, seed: int = 0) -> torch.Tensor:
    return torch.as_tensor(Rotation.random(count, rng=seed).as_matrix())


def yes(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.bool)


KINDS = torch.tensor([solids.BOX, solids.CYLINDER, solids.BALL, -1])
HALF = torch.tensor([[0.02, 0.03, 0.04], [0.03, 0.03, 0.05], [0.03, 0.03, 0.03], [0.02, 0.02, 0.02]]).double()


def adaptive(predicted: torch.Tensor, log_weights: torch.Tensor) -> torch.Tensor:
    loss = pose.AdaptiveMpjpe().double()
    return torch.func.functional_call(
        loss, {"log_weights": log_weights}, (predicted, torch.zeros_like(predicted), yes(2, 21))
    )


def turning(axes: torch.Tensor) -> torch.Tensor:
    return pose.rotation_loss(rotation_from_axes(axes), rotations(4), KINDS, yes(4))


def projecting(joints: torch.Tensor) -> torch.Tensor:
    return pose.reprojection_loss(joints, CAMERA.expand(2, 3, 3), torch.full((2, 21, 2), 90.0), yes(2, 21), 224)


def bones_inside(points: torch.Tensor) -> torch.Tensor:
    place = torch.eye(4).double().repeat(3, 1, 1)
    place[:, :3, :3] = rotations(3)
    return contact.penetration_loss(contact.distance_to(points, place, KINDS[:3], HALF[:3]), yes(3))


def touching(points: torch.Tensor) -> torch.Tensor:
    near = contact.distance_to(points, torch.eye(4).double().expand(3, 4, 4), KINDS[:3], HALF[:3])
    return contact.contact_point_loss(points, torch.zeros_like(points), near, yes(3, 10))


GRADIENTS = {
    "adaptive mpjpe": (adaptive, (draw(2, 21, 3), draw(21, scale=1.0))),
    "position": (lambda p: pose.position_loss(p, torch.zeros_like(p), yes(5)), (draw(5, 3),)),
    "position at 0": (lambda p: pose.position_loss(p, p.detach(), yes(5)), (draw(5, 3),)),
    "rotation": (turning, (draw(4, 3, 2, scale=1.0),)),
    "reprojection": (projecting, (draw(2, 21, 3, ahead=True),)),
    "pointing": (
        lambda x: pose.pointing_loss(x, torch.full((2, 3, 2), 9.3), yes(2, 3), 32),
        (draw(2, 3, 16, scale=1.0),),
    ),
    "joint limits": (lambda p: pose.joint_limit_loss(p, yes(2)), (draw(2, 21, 3),)),
    "penetration": (bones_inside, (draw(3, 21, 3, scale=0.02),)),
    "contact points": (touching, (draw(3, 10, 3, scale=0.04),)),
    "contact confidence": (
        lambda x: contact.confidence_loss(x, torch.arange(20).view(2, 10) % 3 == 0, yes(2, 10)),
        (draw(2, 10, scale=1.0),),
    ),
    "contact type": (
        lambda x: contact.type_loss(x, torch.arange(20).view(2, 10) % 4, yes(2, 10)),
        (draw(2, 10, 4, scale=1.0),),
    ),
    "contact force": (lambda x: contact.force_loss(x, torch.zeros_like(x), yes(2, 10)), (draw(2, 10, 3, scale=8.0),)),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_finite_differences(name):
    loss, inputs = GRADIENTS[name]
    assert gradcheck(loss, inputs, eps=1e-7, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0, math.pi - 1e-9, math.pi])
def test_a_rotation_costs_its_angle_and_its_gradient_is_finite_everywhere(angle):
    axis = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.8]]).double(), dim=-1)
    turn = rotation_about(axis, torch.tensor([angle]).double()).requires_grad_(True)
    value = pose.rotation_loss(turn, torch.eye(3).double()[None], torch.tensor([-1]), yes(1))
    value.backward()
    assert float(value.detach()) == pytest.approx(angle, abs=1e-7)
    assert torch.isfinite(turn.grad).all() and turn.grad.norm() < 10


def test_symmetric_objects_are_not_asked_for_what_cannot_be_seen():
    true = rotations(1)
    about_z = rotation_about(torch.tensor([[0.0, 0, 1]]).double(), torch.tensor([0.7]).double())
    over = torch.diag(torch.tensor([1.0, -1, -1])).double()[None]
    eighth = rotation_about(torch.tensor([[1.0, 0, 0]]).double(), torch.tensor([0.2]).double())

    def cost(turned, kind):
        return float(pose.rotation_loss(true @ turned, true, torch.tensor([kind]), yes(1)))

    assert cost(about_z, solids.CYLINDER) == pytest.approx(0, abs=1e-7)
    assert cost(over, solids.CYLINDER) == pytest.approx(0, abs=1e-7)
    assert cost(eighth, solids.CYLINDER) == pytest.approx(0.2)
    assert cost(about_z, solids.BOX) == pytest.approx(0.7)
    assert cost(over, solids.BOX) == pytest.approx(0, abs=1e-7)
    assert cost(over, -1) == pytest.approx(math.pi)
    assert cost(over @ eighth, solids.BALL) == 0


def test_learned_joint_weights_balance_the_joints_instead_of_leaving_them():
    loss = pose.AdaptiveMpjpe()
    size = torch.linspace(0.005, 0.05, 21)
    guess = torch.stack([size, size * 0, size * 0], -1)[None]
    assert [name for name, _ in loss.named_parameters()] == ["log_weights"]
    optimiser = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        (1000 * loss(guess, torch.zeros_like(guess), yes(1, 21))).backward()
        optimiser.step()
    shares = loss.weights() * loss.importance * pose.rounded_norm(guess)[0]
    assert torch.allclose(shares, shares.mean().expand(21), rtol=0.02)
    assert float(loss.weights().detach().log().mean()) == pytest.approx(0, abs=1e-6)


def test_without_importance_and_weights_it_is_the_mean_error():
    loss = pose.AdaptiveMpjpe()
    guess = torch.zeros(3, 21, 3)
    guess[..., 0] = 0.03
    assert float(loss(guess, torch.zeros_like(guess), yes(3, 21)).detach()) == pytest.approx(0.03, rel=0.05)


def test_what_is_not_labelled_costs_nothing_even_if_it_is_not_a_number():
    guess, true = draw(2, 21, 3), torch.zeros(2, 21, 3).double()
    true[1] = float("nan")
    labelled = yes(2, 21)
    labelled[1] = False
    value = pose.position_loss(guess, true, labelled)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(guess.grad).all() and not guess.grad[1].any()
    assert float(pose.position_loss(guess, true, ~yes(2, 21)).detach()) == 0


def test_the_projection_is_the_pinhole_and_what_is_behind_is_left_out():
    joints = torch.tensor([[[0.1, -0.05, 0.5], [0, 0, -1.0]]]).double()
    at = torch.tensor([[[112 + 30.0, 112 - 15.0], [0.0, 0.0]]]).double()
    assert float(pose.reprojection_loss(joints, CAMERA[None], at, yes(1, 2), 224)) == pytest.approx(0, abs=1e-9)
    off = at + torch.tensor([22.4, 0])
    assert float(pose.reprojection_loss(joints, CAMERA[None], off, yes(1, 2), 224)) == pytest.approx(0.1, abs=0.001)


def test_signed_distance_by_hand():
    points = torch.tensor([[0.0, 0, 0], [0.05, 0, 0], [0, 0, 0.1], [0.05, 0.07, 0]]).double()
    box = solids.signed_distance(torch.tensor(solids.BOX), HALF[0], points)
    assert torch.allclose(box, torch.tensor([-0.02, 0.03, 0.06, 0.05]).double())
    can = solids.signed_distance(torch.tensor(solids.CYLINDER), HALF[1], points)
    assert torch.allclose(can, torch.tensor([-0.03, 0.02, 0.05, math.hypot(0.05, 0.07) - 0.03]).double())
    ball = solids.signed_distance(torch.tensor(solids.BALL), HALF[2], points)
    assert torch.allclose(ball, torch.tensor([-0.03, 0.02, 0.07, math.hypot(0.05, 0.07) - 0.03]).double())


@pytest.mark.parametrize("kind", range(3))
def test_surface_points_lie_on_the_surface(kind):
    points = solids.surface_points(kind, HALF[kind])
    assert solids.signed_distance(torch.tensor(kind), HALF[kind], points).abs().max() < 1e-8
    assert points.mean(0).norm() < 0.01


def test_touching_is_free_and_only_bones_inside_cost():
    place, kind, half = torch.eye(4).double()[None], KINDS[2:3], HALF[2:3]
    for out, cost in ((0.035, 0.0), (0.0301, 0.0), (0.02, 0.01)):
        points = torch.tensor([[[out, 0, 0]]]).double()
        found = contact.penetration_loss(contact.distance_to(points, place, kind, half), yes(1))
        assert float(found) == pytest.approx(cost, abs=1e-9)


def test_pointing_is_cheapest_at_the_true_pixel_and_costs_nothing_beyond_the_picture():
    # Four by four patches of eight pixels: (11.5, 19.5) is the centre of column 1, row 2.
    at, true = torch.tensor([[[11.5, 19.5]]]), torch.full((1, 1, 16), -20.0)
    true[..., 4 * 2 + 1] = 20.0
    assert float(pose.pointing_loss(true, at, yes(1, 1), 32)) == pytest.approx(0, abs=1e-6)
    assert float(pose.pointing_loss(true, at + 8, yes(1, 1), 32)) == pytest.approx(40, rel=1e-4)
    # Half way between two centres both are right: nothing is cheaper than one bit.
    both = torch.full((1, 1, 16), -20.0)
    both[..., 4 * 2 + 1] = both[..., 4 * 2 + 2] = 20.0
    between = at + torch.tensor([4.0, 0.0])
    assert float(pose.pointing_loss(both, between, yes(1, 1), 32)) == pytest.approx(math.log(2), rel=1e-4)
    assert float(pose.pointing_loss(true, at + 40, yes(1, 1), 32)) == 0
    assert float(pose.pointing_loss(true, at + 8, ~yes(1, 1), 32)) == 0


def test_bends_of_a_straight_and_of_a_broken_finger():
    straight = torch.zeros(21, 3).double()
    for finger, base in enumerate((5, 9, 13, 17)):
        straight[base : base + 4, 1] = torch.tensor([0.08, 0.12, 0.15, 0.17]).double()
        straight[base : base + 4, 0] = -0.02 * finger + 0.03
        straight[0, 0] = 0
    assert pose.finger_bends(straight)[[1, 2, 4, 5, 7, 8, 10, 11]].abs().max() < 1e-9
    assert float(pose.joint_limit_loss(straight[None], yes(1))) == 0
    broken = straight.clone()
    broken[7] = broken[6] + torch.tensor([0, -0.03, 0.001]).double()  # folded back upon itself
    assert float(pose.joint_limit_loss(broken[None], yes(1))) > 0.01


def test_a_weight_that_matches_no_loss_is_an_error():
    with pytest.raises(UnknownLoss, match="did you mean 'hand_refined'"):
        Weighting({"hand_refind": 1.0}, {})
    with pytest.raises(UnknownLoss, match="watched, not optimised"):
        Weighting({"diversity": 0.01}, {})
    with pytest.raises(UnknownLoss, match="there are constant, refined, physics"):
        Weighting({}, {"penetration": "cosine"})
    with pytest.raises(UnknownLoss, match="unknown loss 'mesh'"):
        Weighting({}, {}).total({"mesh": torch.zeros(())}, 0)
    pickle.loads(pickle.dumps(UnknownLoss("x")))


def test_schedules_are_those_of_the_recipe():
    assert [round(SCHEDULES["refined"](e), 3) for e in (0, 15, 21, 90)] == [0.3, 0.8, 1.0, 1.0]
    assert [SCHEDULES["physics"](e) for e in (0, 25, 50, 90)] == [0, 0.5, 1, 1]
    weighting = Weighting({"penetration": 4.0}, {"penetration": "physics"})
    assert weighting.at("penetration", 25) == 2
    parts = {"penetration": torch.tensor(0.5), "hand_coarse": torch.tensor(1.0)}
    assert float(weighting.total(parts, 25)) == pytest.approx(1 + LOSSES["hand_coarse"])


def test_the_collapse_detector_stops_a_constant_and_lets_a_varied_run_live():
    true = draw(16, 21, 3).detach()
    constant = true[:1].expand(16, 21, 3)
    lives = monitors.CollapseDetector()
    for _ in range(10):
        assert lives.look(0.5 * true, true) == pytest.approx(0.5)
    lost = monitors.CollapseDetector()
    for _ in range(3):
        lost.look(constant, true)
    with pytest.raises(Collapsed, match="one pose for every picture"):
        lost.look(constant, true)
    with pytest.raises(Collapsed, match="hand_coarse"):
        monitors.finite({"hand_coarse": torch.tensor(float("nan"))})


def test_attention_entropy_is_0_at_one_place_and_1_spread_evenly():
    assert monitors.attention_entropy(torch.eye(8)) == pytest.approx(0, abs=1e-6)
    assert monitors.attention_entropy(torch.full((2, 4, 8, 8), 1 / 8)) == pytest.approx(1)
