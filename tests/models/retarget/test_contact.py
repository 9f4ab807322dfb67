"""contact.py against closed forms, MuJoCo's rollouts of the same scenes, and finite differences."""

import numpy as np
import pytest
import torch

from benchmarks.contact_model import DROP_M, HALF_M, SCENES, SLIDE_M_S, STEP_S, TABLE_FRICTION, gradients
from models.retarget.contact import GRAVITY_M_S2, Block


@pytest.fixture(scope="module")
def ways():
    return {name: scene() for name, scene in SCENES.items()}


@pytest.mark.parametrize("name", ["a box falls 5 cm", "a ball falls 5 cm"])
def test_what_falls_falls_as_galileo_says_and_rests_as_in_mujoco(ways, name):
    ours, theirs = ways[name]
    fallen = GRAVITY_M_S2 * (np.arange(45) * STEP_S) ** 2 / 2
    np.testing.assert_allclose(ours[:45, 2], ours[0, 2] - fallen, atol=1e-3)
    assert abs(ours[-1, 2] - (ours[0, 2] - DROP_M)) < 1e-3
    assert abs(ours[-1, 2] - theirs[-1, 2]) < 1e-3
    assert np.abs(ours - theirs).max() < 8e-3  # how high it bounces


def test_a_box_slides_as_far_as_coulomb_says_and_as_in_mujoco(ways):
    ours, theirs = ways["a box slides"]
    assert ours[-1, 0] == pytest.approx(SLIDE_M_S**2 / (2 * TABLE_FRICTION * GRAVITY_M_S2), rel=0.05)
    assert np.linalg.norm(ours - theirs, axis=1).max() < 2e-3


@pytest.mark.parametrize("name, lifted", [("a pinched box is lifted", True), ("too little friction", False)])
def test_a_pinched_box_comes_along_or_not_as_in_mujoco(ways, name, lifted):
    ours, theirs = ways[name]
    assert (ours[-1, 2] > HALF_M[2] + 0.04) == (theirs[-1, 2] > HALF_M[2] + 0.04) == lifted
    assert np.linalg.norm(ours - theirs, axis=1).max() < 4e-3


def test_gradients_are_finite_differences():
    for name, (exact, numeric) in gradients().items():
        assert exact == pytest.approx(numeric, rel=1e-3, abs=1e-6), name
        assert name == "mass_kg" or abs(exact) > 1e-2  # the box follows the tips


def test_distance_and_normal_of_a_box_are_those_of_its_nearest_point():
    half = torch.tensor([[0.02, 0.03, 0.04]], dtype=torch.float64)
    block = Block(half, torch.ones(1, dtype=torch.float64))
    points = torch.tensor(np.random.default_rng(0).uniform(-0.08, 0.08, (1, 500, 3)))
    apart, normal = block.outside(points)
    torch.testing.assert_close(normal.norm(dim=-1), torch.ones_like(apart), atol=1e-6, rtol=0)
    # Along the normal by the distance lies a point of the surface.
    surface = points - apart[..., None] * normal
    touching = (surface.abs() - half[:, None]).amax(-1)
    torch.testing.assert_close(touching, torch.zeros_like(touching), atol=1e-6, rtol=0)
    outside = (points.abs() > half[:, None]).any(-1)
    assert ((apart > 0) == outside).all()
