"""contact.py against closed forms, MuJoCo's rollouts of the same scene, and finite differences."""

import mujoco
import numpy as np
import pytest
import torch

from models.retarget.contact import GRAVITY_M_S2, Block, Material, at_rest, roll_out

STEP_S, RADIUS_M = 0.002, 0.012
HALF_M = (0.02, 0.02, 0.03)
NOWHERE = (10.0, 10.0, 10.0)


def block(half=HALF_M, mass=0.1, ball=False):
    return Block(torch.tensor([half], dtype=torch.float64), torch.tensor([mass], dtype=torch.float64), ball)


def paths(steps, *places):
    """Tips (T, 1, K, 3) that stay."""
    return torch.tensor(places, dtype=torch.float64).expand(steps, 1, -1, 3).clone()


def pinched(steps, lift_m=0.05, squeeze_m=0.001, shift_m=0.0):
    """Two tips that close on a box from both sides within 0.2 s, then lift it for half a second, then hold."""
    time = np.arange(steps) * STEP_S
    close = np.clip(time / 0.2, 0, 1)
    gap = HALF_M[0] + RADIUS_M + 0.005 - (0.005 + squeeze_m) * close
    share = np.clip((time - 0.3) / 0.5, 0, 1)
    z = HALF_M[2] + lift_m * share * share * (3 - 2 * share)
    tips = np.stack([np.stack([sign * gap + shift_m, 0 * z, z], 1) for sign in (1, -1)], 1)
    return torch.as_tensor(tips)[:, None]


def mujocos(tips, mass=0.1, friction=1.0, velocity=(0.0, 0.0, 0.0), place=(0.0, 0.0, HALF_M[2]), ball=False):
    """Places (T, 3) of the same object in MuJoCo, between balls on stiff slides."""
    spec = mujoco.MjSpec()
    spec.option.timestep, spec.option.impratio = STEP_S, 10
    spec.option.cone, spec.option.integrator = mujoco.mjtCone.mjCONE_ELLIPTIC, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    world, sphere = spec.worldbody, mujoco.mjtGeom.mjGEOM_SPHERE
    world.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1, 1, 0.1), friction=(0.6, 0, 0), conaffinity=0)
    body = world.add_body(name="object", pos=place)
    body.add_freejoint()
    kind, size = (sphere, (HALF_M[0], 0, 0)) if ball else (mujoco.mjtGeom.mjGEOM_BOX, HALF_M)
    body.add_geom(type=kind, size=size, mass=mass, friction=(min(friction, 0.6), 0, 0), conaffinity=3, contype=0)
    count = tips.shape[2] if tips is not None else 0
    for k in range(count):
        tip = world.add_body(name=f"tip{k}", gravcomp=1)
        tip.add_geom(type=sphere, size=(RADIUS_M, 0, 0), mass=1.0, friction=(friction, 0, 0), contype=2, conaffinity=0)
        for axis in range(3):
            joint = tip.add_joint(name=f"{k}{axis}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=np.eye(3)[axis])
            actuator = spec.add_actuator(name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            actuator.set_to_position(kp=3e4, kv=350.0)
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qvel[:3] = velocity
    steps = len(tips)
    if count:
        data.qpos[7:] = tips[0].flatten()
    found = []
    for k in range(steps):
        if count:
            data.ctrl[:] = tips[k].flatten()
        found.append(data.body("object").xpos.copy() if k else np.array(place))
        mujoco.mj_step(model, data)
    return np.array(found)


def places(motions):
    return torch.cat([motion.place_m for motion in motions]).detach().numpy()


@pytest.mark.parametrize("ball", [False, True])
def test_what_falls_falls_as_galileo_says_and_rests_as_in_mujoco(ball):
    thing = block((HALF_M[0],) * 3, ball=True) if ball else block()
    rest = HALF_M[0] if ball else HALF_M[2]
    start = torch.tensor([[0.0, 0.0, rest + 0.05]], dtype=torch.float64)
    ours = places(roll_out(thing, at_rest(start), paths(400, NOWHERE), RADIUS_M, STEP_S))
    time = np.arange(45) * STEP_S
    np.testing.assert_allclose(ours[:45, 2], rest + 0.05 - GRAVITY_M_S2 * time**2 / 2, atol=1e-3)
    theirs = mujocos(paths(400, NOWHERE), place=(0.0, 0.0, rest + 0.05), ball=ball)
    assert abs(ours[-1, 2] - theirs[-1, 2]) < 1e-3
    assert np.abs(ours[:, 2] - theirs[:, 2]).max() < 6e-3


def test_a_box_slides_as_far_as_coulomb_says_and_as_in_mujoco():
    start, speed = at_rest(torch.tensor([[0.0, 0.0, HALF_M[2]]], dtype=torch.float64)), 0.5
    start.velocity[0, 0] = speed
    flat = block((0.03, 0.03, 0.01))
    start.place_m[0, 2] = 0.01
    ours = places(roll_out(flat, start, paths(150, NOWHERE), RADIUS_M, STEP_S))[-1, 0]
    assert ours == pytest.approx(speed**2 / (2 * 0.6 * GRAVITY_M_S2), rel=0.05)


@pytest.mark.parametrize("friction, lifted", [(1.0, True), (0.05, False)])
def test_a_pinched_box_comes_along_or_not_as_in_mujoco(friction, lifted):
    tips = pinched(500)
    start = at_rest(torch.tensor([[0.0, 0.0, HALF_M[2]]], dtype=torch.float64))
    ours = places(roll_out(block(), start, tips, RADIUS_M, STEP_S, Material(friction=friction)))
    theirs = mujocos(tips, friction=friction)
    assert (ours[-1, 2] > HALF_M[2] + 0.04) == (theirs[-1, 2] > HALF_M[2] + 0.04) == lifted
    assert np.linalg.norm(ours - theirs, axis=1).max() < 4e-3


def test_gradients_are_finite_differences():
    start = at_rest(torch.tensor([[0.0, 0.0, HALF_M[2]]], dtype=torch.float64))
    names = {"lift_m": 0.05, "squeeze_m": 0.001, "shift_m": 0.002, "mass": 0.1}

    def final(lift_m, squeeze_m, shift_m, mass):
        base = pinched(200, 0.05, 0.001, 0.0)
        # The path's parameters as torch sees them: tips move further up, inwards, and aside.
        up = (base[..., 2:] - HALF_M[2]) / 0.05
        inward = (base[:1, ..., :1] - base[..., :1]) / (base[:1, ..., :1] - base[-1:, ..., :1])
        x = base[:1, ..., :1] - inward * (0.005 + squeeze_m) * base[:1, ..., :1].sign() + shift_m
        tips = torch.cat([x, base[..., 1:2], HALF_M[2] + up * lift_m], -1)
        thing = Block(torch.tensor([HALF_M], dtype=torch.float64), mass[None])
        motion = roll_out(thing, start, tips, RADIUS_M, STEP_S)[-1]
        return (motion.place_m * torch.tensor([[1.0, 2.0, 3.0]])).sum() + motion.turn[0, 2, 0]

    values = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in names.values()]
    gradients = torch.autograd.grad(final(*values), values)
    for k, gradient in enumerate(gradients):
        with torch.no_grad():
            up, down = (final(*(v + sign * 1e-7 * (j == k) for j, v in enumerate(values))) for sign in (1, -1))
        assert float(gradient) == pytest.approx(float(up - down) / 2e-7, rel=1e-3, abs=1e-6), list(names)[k]
