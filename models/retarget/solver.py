"""Batched Levenberg–Marquardt over joint angles within their limits: all poses take a step together.

In: Targets, a start and an anchor per pose. Out: angles that never leave the limits, and what they cost. Called by
hand.py. The robust terms are reweighted at each step (huber as a weighted square), joints that press against a limit
are taken out of the step, and a step that does not help raises that pose's damping alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.kinematics.tree import TreeKinematics
from models.retarget.objective import Objective, Targets

FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-6, 1e4
# Poses whose step gains less than this share of their cost are done.
ENOUGH = 1e-5
# Solved poses leave the batch once they are this share of it.
LEAVE = 0.3


@dataclass(frozen=True, slots=True)
class Solved:
    """B solutions."""

    angles_rad: Tensor  # (B, J) within the limits
    cost: Tensor  # (B,) huber terms and the cost of leaving the anchor
    steps: int


@dataclass(slots=True)
class _State:
    """Poses still being solved."""

    stay: float
    rows: Tensor  # (b,) where they stand in the whole batch
    angles: Tensor
    anchor: Tensor
    targets: Targets
    damping: Tensor
    cost: Tensor
    gradient: Tensor
    curvature: Tensor

    def kept(self, which: Tensor) -> _State:
        given = Targets(self.targets.vectors_m[which], self.targets.weights[which])
        return _State(self.stay, self.rows[which], self.angles[which], self.anchor[which], given, self.damping[which],
                      self.cost[which], self.gradient[which], self.curvature[which])  # fmt: skip


class Solver:
    """Minimises one objective on one hand."""

    def __init__(self, kinematics: TreeKinematics, objective: Objective, lower: Tensor, upper: Tensor) -> None:
        self.kinematics, self.objective = kinematics, objective
        self.lower, self.upper = lower, upper
        start, end = (torch.tensor(ends) for ends in zip(*objective.pairs, strict=True))
        self.start, self.end = start, end
        # How vectors hang on links: +1 where a vector ends, −1 where it starts.
        links = int(max(start.max(), end.max())) + 1
        self.ends = (torch.eye(links)[end] - torch.eye(links)[start]).to(lower)  # (P, links)
        self.crossed = (self.ends[:, :, None] * self.ends[:, None, :]).flatten(1)  # (P, links²)

    def cost(self, angles: Tensor, targets: Targets, anchor: Tensor | None = None) -> Tensor:
        """Cost (B,) of angles (B, J); without an anchor the huber terms alone."""
        points = self.kinematics(angles)
        apart = (points[:, self.end] - points[:, self.start] - targets.vectors_m).norm(dim=-1)
        matched = (targets.weights * huber(apart, self.objective.huber_m)).sum(-1)
        return matched if anchor is None else matched + self.objective.stay * ((angles - anchor) ** 2).sum(-1)

    @torch.no_grad()
    def solve(
        self, targets: Targets, start: Tensor, anchor: Tensor, most_steps: int = 30, stay: float | None = None
    ) -> Solved:
        """Angles (B, J) from a start (B, J) that cost least, staying near an anchor (B, J).

        `stay` replaces the objective's cost of leaving the anchor, where the anchor is only a place to begin.
        """
        result = torch.minimum(torch.maximum(start, self.lower), self.upper)
        costs = torch.empty(len(start), dtype=start.dtype, device=start.device)
        state = self._begin(result, anchor, targets, self.objective.stay if stay is None else stay)
        taken = 0
        while taken < most_steps:
            taken += 1
            done = self._step(state)
            if done.float().mean() >= LEAVE or taken == most_steps:
                result[state.rows[done]], costs[state.rows[done]] = state.angles[done], state.cost[done]
                if bool(done.all()):
                    break
                state = state.kept(~done)
        result[state.rows], costs[state.rows] = state.angles, state.cost
        return Solved(result, costs, taken)

    def _begin(self, angles: Tensor, anchor: Tensor, targets: Targets, stay: float) -> _State:
        rows = torch.arange(len(angles), device=angles.device)
        damping = torch.full((len(angles),), FIRST_DAMPING, dtype=angles.dtype, device=angles.device)
        terms = self._linearise(angles, anchor, targets, stay)
        return _State(stay, rows, angles.clone(), anchor, targets, damping, *terms)

    def _linearise(
        self, angles: Tensor, anchor: Tensor, targets: Targets, stay: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cost (B,), gradient (B, J) and Gauss–Newton curvature (B, J, J).

        Every joint moves one finger tip only. So the curvature between two joints is the product of their columns
        times how strongly their tips are tied to each other, and the large Jacobian is never built.
        """
        points, columns = self.kinematics.with_columns(angles)
        off = points[:, self.end] - points[:, self.start] - targets.vectors_m
        apart, delta = off.norm(dim=-1), self.objective.huber_m
        leave = angles - anchor
        cost = (targets.weights * huber(apart, delta)).sum(-1) + stay * (leave**2).sum(-1)
        weight = targets.weights / apart.clamp(min=delta)  # (B, P): the huber term as a weighted square
        own, links = self.kinematics.own, self.ends.shape[1]
        pull = self.ends.T @ (weight[..., None] * off)  # (B, links, 3)
        gradient = (columns * pull[:, own]).sum(-1) + 2 * stay * leave
        tied = (weight @ self.crossed).unflatten(1, (links, links))[:, own][:, :, own]
        curvature = (columns @ columns.mT) * tied
        curvature.diagonal(dim1=1, dim2=2).add_(2 * stay)
        return cost, gradient, curvature

    def _step(self, state: _State) -> Tensor:
        """One step of every pose; which of them are done (b,)."""
        pressed = ((state.angles <= self.lower) & (state.gradient > 0)) | (
            (state.angles >= self.upper) & (state.gradient < 0)
        )
        free = (~pressed).to(state.angles.dtype)
        matrix = state.curvature * free[:, :, None] * free[:, None, :]
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        diagonal += state.damping[:, None] + pressed
        factor, _ = torch.linalg.cholesky_ex(matrix)
        move = -torch.cholesky_solve((state.gradient * free)[..., None], factor)[..., 0]
        tried = torch.minimum(torch.maximum(state.angles + move, self.lower), self.upper)
        cost, gradient, curvature = self._linearise(tried, state.anchor, state.targets, state.stay)
        better = cost < state.cost
        done = (better & (state.cost - cost <= ENOUGH * state.cost)) | (state.damping >= MOST_DAMPING)
        done |= (tried - state.angles).abs().amax(-1) < ENOUGH
        state.angles = torch.where(better[:, None], tried, state.angles)
        state.gradient = torch.where(better[:, None], gradient, state.gradient)
        state.curvature = torch.where(better[:, None, None], curvature, state.curvature)
        state.cost = torch.where(better, cost, state.cost)
        state.damping = torch.where(better, state.damping * 0.1, state.damping * 10).clamp(LEAST_DAMPING, MOST_DAMPING)
        return done


def huber(apart: Tensor, delta: float) -> Tensor:
    """Smooth L1: apart² / 2δ below δ, apart − δ/2 above; metres."""
    return torch.where(apart < delta, apart**2 / (2 * delta), apart - delta / 2)
