"""Which losses there are, what each weighs, and how that changes over a run: by name, and no other name goes through.

In: weights and schedules by name (from a configuration), an epoch. Out: the sum of the weighted parts. Called by
objective.py and config.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from train_jobs.manipulation.errors import UnknownLoss

# Name → default weight: losses in metres weigh more than those in radians or nats, so that none drowns another.
LOSSES: dict[str, float] = {
    "hand_pointing": 0.3,
    "hand_coarse": 10.0,
    "hand_refined": 12.0,
    "hand_absolute": 1.0,
    "hand_confidence": 0.1,
    "object_pointing": 0.1,
    "object_position": 2.0,
    "object_rotation": 0.1,
    "object_confidence": 0.3,
    "object_class": 0.05,
    "contact_confidence": 0.3,
    "contact_points": 1.0,
    "contact_type": 0.1,
    "contact_force": 0.01,
    "penetration": 1.0,
    "joint_limits": 0.1,
    "reprojection": 2.0,
}
# Names that a reader of the published recipe may try, and why they have no weight.
NOT_LOSSES = {
    "diversity": "it is watched, not optimised: the spread of wrong answers has no upper end",
    "attention_entropy": "it is watched, not optimised: there is no entropy that attention should have",
    "kl": "the reparametrisation of attention has no such term",
    "contact": "it has parts: contact_confidence, contact_points, contact_type, contact_force",
    "physics": "it has parts: penetration, joint_limits, contact_force",
}
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda epoch: 1.0,
    "refined": lambda epoch: min(1.0, 0.3 + epoch / 30),
    "physics": lambda epoch: min(1.0, epoch / 50),
}


@dataclass(frozen=True, slots=True)
class Weighting:
    """Weights and schedules; what is not named keeps its default weight and stays constant."""

    weights: Mapping[str, float]
    schedules: Mapping[str, str]

    def __post_init__(self) -> None:
        """Raises UnknownLoss for a name that is no loss or no schedule."""
        for name in (*self.weights, *self.schedules):
            if name not in LOSSES:
                raise UnknownLoss(_sentence(name))
        for name, schedule in self.schedules.items():
            if schedule not in SCHEDULES:
                raise UnknownLoss(f"schedule {schedule!r} of {name}: there are {', '.join(SCHEDULES)}")

    def at(self, name: str, epoch: float) -> float:
        """What the loss weighs in an epoch."""
        if name not in LOSSES:
            raise UnknownLoss(_sentence(name))
        return self.weights.get(name, LOSSES[name]) * SCHEDULES[self.schedules.get(name, "constant")](epoch)

    def total(self, parts: Mapping[str, Tensor], epoch: float) -> Tensor:
        """The weighted sum; every part must be a known loss."""
        weighted = [self.at(name, epoch) * value for name, value in parts.items()]
        return sum(weighted[1:], start=weighted[0])


def _sentence(name: str) -> str:
    if name in NOT_LOSSES:
        return f"{name!r} is no loss: {NOT_LOSSES[name]}"
    near = difflib.get_close_matches(name, LOSSES, n=1)
    return f"unknown loss {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(LOSSES)}")
