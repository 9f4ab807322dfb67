"""The differentiable contact model against MuJoCo: the same scenes, how far apart the object's ways are.

    python -m benchmarks.contact_model

A box and a ball fall on a table; a box slides until friction stops it; two balls on stiff slides pinch a box and lift
it, with much friction and with little. One line each: the largest distance between both rollouts, and where each ends.
Then gradients of the lifted box's place against finite differences.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import mujoco
import numpy as np
import torch
from torch import Tensor

from models.retarget.contact import RUBBER, Block, Material, Motion, at_rest, roll_out

STEP_S, RADIUS_M = 0.002, 0.012
HALF_M = (0.02, 0.02, 0.03)
FLAT_M = (0.03, 0.03, 0.01)
MASS_KG, TABLE_FRICTION, DROP_M, SLIDE_M_S = 0.1, 0.6, 0.05, 0.5
NOWHERE = (10.0, 10.0, 10.0)
NUDGE = 1e-7

Ways = tuple[np.ndarray, np.ndarray]  # places (T, 3) of the object: ours, MuJoCo's


def still_tips(steps: int) -> Tensor:
    """One tip (T, 1, 1, 3) that is far away."""
    return torch.tensor([NOWHERE], dtype=torch.float64).expand(steps, 1, 1, 3).clone()


def pinching_tips(steps: int, lift_m: float | Tensor = 0.05, squeeze_m: float | Tensor = 0.001,
                  shift_m: float | Tensor = 0.0) -> Tensor:  # fmt: skip
    """Two tips (T, 1, 2, 3) that close on the box within 0.2 s, then lift it for half a second, then hold."""
    time = torch.arange(steps, dtype=torch.float64) * STEP_S
    gap = HALF_M[0] + RADIUS_M + 0.005 - (0.005 + squeeze_m) * (time / 0.2).clamp(0, 1)
    share = ((time - 0.3) / 0.5).clamp(0, 1)
    z = HALF_M[2] + lift_m * share * share * (3 - 2 * share)
    tips = [torch.stack([sign * gap + shift_m, 0 * z, z], 1) for sign in (1, -1)]
    return torch.stack(tips, 1)[:, None]


def ours(half: tuple[float, ...], tips: Tensor, start: Motion, how: Material, ball: bool = False) -> np.ndarray:
    """Places (T, 3) in our model."""
    block = Block(torch.tensor([half], dtype=torch.float64), torch.tensor([MASS_KG], dtype=torch.float64), ball)
    motions = roll_out(block, start, tips, RADIUS_M, STEP_S, how)
    return torch.cat([motion.place_m for motion in motions]).numpy()


def mujocos(half: tuple[float, ...], tips: Tensor, start: Motion, how: Material, ball: bool = False) -> np.ndarray:
    """Places (T, 3) in MuJoCo, with tips on stiff slides."""
    spec = mujoco.MjSpec()
    spec.option.timestep, spec.option.impratio = STEP_S, 10
    spec.option.cone, spec.option.integrator = mujoco.mjtCone.mjCONE_ELLIPTIC, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    world, sphere = spec.worldbody, mujoco.mjtGeom.mjGEOM_SPHERE
    table = (how.table_friction, 0, 0)
    world.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1, 1, 0.1), friction=table, conaffinity=0)
    body = world.add_body(name="object", pos=start.place_m[0].numpy())
    body.add_freejoint()
    kind, size = (sphere, (half[0], 0, 0)) if ball else (mujoco.mjtGeom.mjGEOM_BOX, half)
    # MuJoCo takes the larger friction of the two that touch: the object's is the least of all.
    least = (min(how.friction, how.table_friction), 0, 0)
    body.add_geom(type=kind, size=size, mass=MASS_KG, friction=least, conaffinity=3, contype=0)
    for k in range(tips.shape[2]):
        tip = world.add_body(name=f"tip{k}", gravcomp=1)
        tip.add_geom(type=sphere, size=(RADIUS_M, 0, 0), mass=1.0, friction=(how.friction, 0, 0), contype=2,
                     conaffinity=0)  # fmt: skip
        for axis in range(3):
            joint = tip.add_joint(name=f"{k}{axis}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=np.eye(3)[axis])
            actuator = spec.add_actuator(name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            actuator.set_to_position(kp=3e4, kv=350.0)
    data = mujoco.MjData(model := spec.compile())
    data.qvel[:6] = start.velocity[0].numpy()
    paths = tips.numpy()
    data.qpos[7:] = paths[0].flatten()
    found = []
    for now in paths:
        data.ctrl[:] = now.flatten()
        found.append(data.qpos[:3].copy())
        mujoco.mj_step(model, data)
    return np.array(found)


def resting(height_m: float, speed_m_s: float = 0.0) -> Motion:
    """An object at a height, moving along x."""
    start = at_rest(torch.tensor([[0.0, 0.0, height_m]], dtype=torch.float64))
    start.velocity[0, 0] = speed_m_s
    return start


def both(half: tuple[float, ...], tips: Tensor, start: Motion, how: Material = RUBBER, ball: bool = False) -> Ways:
    """Our way and MuJoCo's."""
    return ours(half, tips, start, how, ball), mujocos(half, tips, start, how, ball)


RADIUS = (HALF_M[0],) * 3
SCENES: dict[str, Callable[[], Ways]] = {
    "a box falls 5 cm": lambda: both(HALF_M, still_tips(400), resting(HALF_M[2] + DROP_M)),
    "a ball falls 5 cm": lambda: both(RADIUS, still_tips(400), resting(RADIUS[2] + DROP_M), ball=True),
    "a box slides": lambda: both(FLAT_M, still_tips(150), resting(FLAT_M[2], SLIDE_M_S)),
    "a pinched box is lifted": lambda: both(HALF_M, pinching_tips(500), resting(HALF_M[2])),
    "too little friction": lambda: both(HALF_M, pinching_tips(500), resting(HALF_M[2]), Material(friction=0.05)),
}
PARAMETERS = {"lift_m": 0.05, "squeeze_m": 0.001, "shift_m": 0.002, "mass_kg": MASS_KG}


def final(lift_m: Tensor, squeeze_m: Tensor, shift_m: Tensor, mass_kg: Tensor) -> Tensor:
    """One number of where and how the pinched box ends, as a function of four."""
    block = Block(torch.tensor([HALF_M], dtype=torch.float64), mass_kg[None])
    motion = roll_out(block, resting(HALF_M[2]), pinching_tips(250, lift_m, squeeze_m, shift_m), RADIUS_M, STEP_S)[-1]
    return (motion.place_m * torch.tensor([[1.0, 2.0, 3.0]])).sum() + motion.turn[0, 2, 0]


def gradients() -> dict[str, tuple[float, float]]:
    """Per parameter: autograd's derivative and the central difference."""
    values = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in PARAMETERS.values()]
    exact = torch.autograd.grad(final(*values), values)
    found = {}
    for k, name in enumerate(PARAMETERS):
        with torch.no_grad():
            up, down = (final(*(v + sign * NUDGE * (j == k) for j, v in enumerate(values))) for sign in (1, -1))
        found[name] = (float(exact[k]), float(up - down) / (2 * NUDGE))
    return found


def main() -> None:
    """Both tables."""
    sys.stdout.write("| scene | farthest apart, mm | ends at, mm | MuJoCo's ends at, mm |\n|---|---|---|---|\n")
    for name, scene in SCENES.items():
        mine, theirs = scene()
        apart = 1000 * np.linalg.norm(mine - theirs, axis=1).max()
        ends = (f"{1000 * way[-1, 0]:.1f}, {1000 * way[-1, 2]:.1f}" for way in (mine, theirs))
        sys.stdout.write(f"| {name} | {apart:.1f} | {' | '.join(ends)} |\n")
    sys.stdout.write("\n| derivative by | autograd | finite difference |\n|---|---|---|\n")
    for name, (exact, numeric) in gradients().items():
        sys.stdout.write(f"| `{name}` | {exact:.6f} | {numeric:.6f} |\n")


if __name__ == "__main__":
    main()
