"""The teacher: a pick that knows where the cube is, and decides from the present state alone.

In: Truth and whether the cube can be seen. Out: a (4,) action of the contract. Used by rollout.py. It keeps nothing
between decisions on purpose: a network that sees three frames cannot learn phases that are counted in the dark. Each
step follows from what can be seen: how far the cube is, how open the jaw, what touches.

Where the cube is out of sight it goes to a look-out over the table. It knows better, but its pupil would not.
"""

from __future__ import annotations

import numpy as np

from train_jobs.so101_policy.world import Truth

SCALE_M = 0.02
# Share of the way per decision, and the largest action; the controller's target adds up and the arm lags it.
GAIN, TOP = 0.22, 0.35
LOOKOUT_M = np.array([0.21, 0.0, 0.19])
# The cube's centre seen from the tool when the jaw should close: beside the fixed finger, which is thick.
BESIDE_M, ABOVE_M = 0.013, 0.004
OPEN, SQUEEZE = 0.35, -0.9
# The jaw closes by this much of its range ahead of where it is: quick, but it does not snap.
AHEAD = 0.12
FUNNEL_FROM_M, FUNNEL_SLOPE, FUNNEL_TOP_M = 0.008, 2.5, 0.07
CLOSE_XY_M, CLOSE_Z_M = 0.011, 0.010
LIFT_TO_M = 0.13


def decide(truth: Truth, seen: bool) -> np.ndarray:
    """(4,) float32: towards the present goal, and the jaw."""
    goal_m, jaw = _goal(truth, seen)
    step = GAIN * (goal_m - truth.tool_m) / SCALE_M
    largest = np.abs(step).max()
    return np.append(step * min(1.0, TOP / max(largest, 1e-9)), jaw).astype(np.float32)


def _goal(truth: Truth, seen: bool) -> tuple[np.ndarray, float]:
    sideways = truth.across * np.array([1.0, 1.0, 0.0])
    sideways /= max(float(np.linalg.norm(sideways)), 1e-6)
    grasp_m = truth.cube_m - BESIDE_M * sideways + np.array([0.0, 0.0, ABOVE_M])
    away_m = grasp_m - truth.tool_m
    beside_m = float(np.linalg.norm(away_m[:2]))
    if truth.touches_static and truth.touches_moving and beside_m < 2 * CLOSE_XY_M:
        return np.array([*truth.tool_m[:2], LIFT_TO_M]), SQUEEZE
    if not seen:
        return LOOKOUT_M, OPEN
    if beside_m < CLOSE_XY_M and abs(away_m[2]) < CLOSE_Z_M:
        return grasp_m, max(SQUEEZE, truth.opening - AHEAD)
    funnel_m = min(FUNNEL_TOP_M, FUNNEL_SLOPE * max(0.0, beside_m - FUNNEL_FROM_M))
    return grasp_m + np.array([0.0, 0.0, funnel_m]), OPEN
