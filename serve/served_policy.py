"""The policy that the service offers, held to its contract. A plain class; app.py makes it the actor `policy`.

In: image and low_dim as the contract says. Out: a chunk of actions. Asked by policy.py, once per observation.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from robot.contract import load_contract, policy_mismatches
from robot.errors import ContractError, PolicyError
from robot.networks import NetworkPolicy
from robot.policies import Policy, StandStill
from robot.records import N_JOINTS, Joints, Observation, PolicyInput
from serve.errors import BadMessage, ServiceError
from serve.settings import PolicySettings


class ServedPolicy:
    """Four verbs: load, warm_up, decide, close. One call at a time."""

    def __init__(self, settings: PolicySettings) -> None:
        self.contract = load_contract(settings.contract)
        self._kind, self._device = settings.kind, settings.device
        self._policy: Policy | None = None

    def load(self) -> None:
        """Make the policy and hold it against the contract. Raises ContractError naming every difference."""
        policy = self._made()
        found = policy_mismatches(self.contract, policy.offer())
        if found:
            raise ContractError(
                f"{self._kind} does not fit contract {self.contract.name}: {'; '.join(map(str, found))}"
            )
        self._policy = policy

    def warm_up(self) -> None:
        """One decision on zeros."""
        self._loaded.warm_up()

    def describe(self) -> dict[str, Any]:
        """The offer's fields, with the contract's hash."""
        offer = dataclasses.asdict(self._loaded.offer())
        return {**offer, "contract_sha256": self.contract.sha256}

    def decide(self, image: np.ndarray | None, low_dim: np.ndarray | None) -> np.ndarray:
        """(T, A) float32 in the contract's space; T is 1 for a policy that decides step by step.

        Raises BadMessage for an observation that does not fit.
        """
        self._check(image, low_dim)
        image = None if image is None else image.astype(np.float32)
        try:
            actions = np.atleast_2d(np.asarray(self._loaded.decide(PolicyInput(image, low_dim, NOWHERE)), np.float32))
        except PolicyError as error:
            raise BadMessage(str(error)) from error
        size = self.contract.action.size
        if actions.ndim != 2 or actions.shape[1] != size or not np.isfinite(actions).all():
            raise ServiceError(f"the policy answered {actions!r}, expected rows of {size} finite numbers")
        return actions

    def close(self) -> None:
        """Free it."""
        if self._policy is not None:
            self._policy.close()

    @property
    def _loaded(self) -> Policy:
        if self._policy is None:
            raise RuntimeError("load() the policy before using it")
        return self._policy

    def _made(self) -> Policy:
        if self._kind == "stand_still":
            return StandStill(self.contract)
        path = Path(self._kind)
        if path.suffix != ".pt":
            raise ContractError(
                f"policy kind {self._kind!r} cannot be served; choose stand_still or a *_snapshot.pt "
                "(the scripted pick reads the simulator's truth, which does not travel)"
            )
        from actors.so101_policy import So101Policy

        actor = So101Policy(path, self._device)
        actor.load()
        return NetworkPolicy(actor)

    def _check(self, image: np.ndarray | None, low_dim: np.ndarray | None) -> None:
        terms = self.contract.image
        planes = (terms.stack, 2, terms.size_px, terms.size_px)
        shape = planes if terms.layout == "time_planes" else (2 * terms.stack, terms.size_px, terms.size_px)
        _fits("image", image, shape, ("uint8", "float32"))
        _fits("low_dim", low_dim, (terms.stack, self.contract.low_dim_size), ("float32",))
        needed = self._loaded.offer().image_channels is not None
        if needed and (image is None or low_dim is None):
            raise BadMessage("this policy needs image and low_dim")


# Served policies see tensors only; the observation that they were made from stays with the robot.
NOWHERE = Observation(Joints(np.zeros(N_JOINTS), np.zeros(N_JOINTS), 0), None)


def _fits(name: str, array: np.ndarray | None, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
    if array is None:
        return
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.name not in dtypes:
        what = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise BadMessage(f"{name} is {what}; the contract wants {' or '.join(dtypes)} {shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadMessage(f"{name} holds NaN or infinity")
