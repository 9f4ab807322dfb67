"""Rounds of collecting and training: first the expert drives, disturbed; then the policy, and the expert only answers.

In: PolicySettings, a segmentation checkpoint, an output folder. Out: `round_R/data/*.npz`, `round_R/last.pt`. Called by
__main__.py. Everything that is whole on disk is taken over by the next call.

Ross, Gordon, Bagnell: A reduction of imitation learning and structured prediction to no-regret online learning, 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import shipped
from models.drqv2 import DrQv2
from robot.contract import load_contract
from train_jobs.errors import CannotStart
from train_jobs.place import Place
from train_jobs.so101 import job
from train_jobs.so101.ranges import TRAIN_LOOK
from train_jobs.so101_policy import pool
from train_jobs.so101_policy.networks import NetworkDriver, NetworkEyes
from train_jobs.so101_policy.rollout import Eyes, Moment, TrueEyes, play
from train_jobs.so101_policy.trainer import Learner, PolicySettings, PolicyTrainer
from train_jobs.so101_policy.world import Conditions, World

WORLDS = 6
# Training episodes of round R are numbers R·10⁶ … of this seed; judging uses other seeds.
TRAIN_SEED = 100
ROUND = 1_000_000
# The expert is disturbed in round 0, or it would never show the way back.
SHAKEN, BURST, BURST_DECISIONS = 0.12, 0.03, 10
# Later rounds: share of decisions that the policy drives; the expert drives the rest in runs of a second.
POLICY_DRIVES = 0.8
PLAIN_LOOK = 0.2  # share of episodes in the embedded look, undressed
EVERY, MOST_LATENCY_TICKS = (1, 2, 2, 3), 4


def train(
    settings: PolicySettings, contract_name: str, segmenter: Path, output: Path, **hosting: Any
) -> dict[str, Any]:
    """All rounds; returns the last round's last measurement."""
    per_round = (settings.steps, settings.cooldown_steps, settings.episodes, settings.predicted)
    if len({len(numbers) for numbers in per_round}) > 1:
        raise CannotStart("steps, cooldown_steps, episodes and predicted need one number per round each")
    if any(settings.predicted) and not segmenter.is_file():
        raise CannotStart(f"there is no segmentation network at {segmenter}; train one, or set predicted to zeros")
    told: dict[str, Any] = {}
    for number in range(len(settings.steps)):
        collect(settings, contract_name, segmenter, output, number)
        request = {
            "settings": settings.model_dump(),
            "contract": contract_name,
            "output": str(output.absolute()),
            "round": number,
        }
        told = job.run(build, request, output / f"round_{number}", **hosting)
    return told


def build(request: dict[str, Any], place: Place) -> PolicyTrainer:
    """The trainer of one round, on the episodes of it and all before, from the network of the one before."""
    number, output = request["round"], Path(request["output"])
    samples = pool.read([output / f"round_{n}" / "data" for n in range(number + 1)])
    settings, contract = PolicySettings.model_validate(request["settings"]), load_contract(request["contract"])
    trainer = PolicyTrainer(settings, contract, number, samples, place)
    if number:
        trainer.start_from(_state(output, number - 1)["average"])
    return trainer


def _state(output: Path, number: int) -> dict[str, Any]:
    path = output / f"round_{number}" / "last.pt"
    if not path.is_file():
        raise CannotStart(f"there is no {path}: round {number} has not been trained")
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def collect(settings: PolicySettings, contract_name: str, segmenter: Path, output: Path, number: int) -> None:
    """Play the episodes of a round that are not on disk yet."""
    folder, contract = output / f"round_{number}" / "data", load_contract(contract_name)
    numbers = [number * ROUND + n for n in range(settings.episodes[number])]
    missing = [n for n in numbers if not pool.path_of(folder, n).is_file()]
    through_network = np.random.default_rng([settings.seed, number]).random(len(numbers)) < settings.predicted[number]
    batches: list[tuple[Eyes, list[int]]] = [
        (TrueEyes(), [n for n in missing if not through_network[n % ROUND]]),
    ]
    if any(through_network):
        batches.append((NetworkEyes(segmenter), [n for n in missing if through_network[n % ROUND]]))
    worlds: list[World] = []
    try:
        for eyes, wanted in batches:
            while len(worlds) < min(WORLDS, len(wanted)):
                worlds.append(World(contract, Conditions(), TRAIN_LOOK, TRAIN_SEED))
            drive = _driver(output, contract_name, number)
            for played in play(worlds, wanted, contract, eyes, drive, keep=True, prepare=_vary):
                pool.save(folder, played)
    finally:
        for world in worlds:
            world.close()


def _vary(world: World, number: int) -> None:
    rng = np.random.default_rng([TRAIN_SEED, number, 2])
    every, latency = int(rng.choice(EVERY)), int(rng.integers(0, MOST_LATENCY_TICKS + 1))
    world.conditions = Conditions(every=every, latency_ticks=latency, seconds=6.0)
    world.wear(None if rng.random() < PLAIN_LOOK else TRAIN_LOOK)


def _driver(output: Path, contract_name: str, number: int) -> Callable[[Sequence[Moment]], list[np.ndarray]]:
    if number == 0:
        return _Disturbed()
    return _Mixed(NetworkDriver(_policy(contract_name, output, number - 1)))


def _policy(contract_name: str, output: Path, number: int) -> DrQv2:
    """The averaged policy of a trained round, for the contract's own pictures."""
    learner = Learner(load_contract(contract_name))
    learner.load_state_dict(_state(output, number)["average"])
    learner.policy.load_state_dict(learner.folded())
    return learner.policy


def export(contract_name: str, output: Path, number: int, to: Path) -> None:
    """A round's policy as it is shipped: encoder and actor, in the public layout."""
    contract = load_contract(contract_name)
    note = {
        "env": {"obs_type": "seg_depth"},  # what actors/so101_policy.py asks a snapshot for
        "frame_stack": contract.image.stack,
        "contract": contract_name,
        "round": number,
        "steps": _state(output, number)["steps_done"],
    }
    shipped.write(to, _policy(contract_name, output, number).state_dict(), note)


class _Disturbed:
    """The expert with noise on its hand, and bursts that throw it off."""

    def __init__(self) -> None:
        self._turn: dict[int, tuple[np.random.Generator, int, np.ndarray]] = {}

    def __call__(self, moments: Sequence[Moment]) -> list[np.ndarray]:
        return [self._one(moment) for moment in moments]

    def _one(self, moment: Moment) -> np.ndarray:
        start = (np.random.default_rng([TRAIN_SEED, moment.number, 3]), 0, np.zeros(4, np.float32))
        rng, left, push = self._turn.get(moment.number, start)
        if left == 0 and rng.random() < BURST:
            left, push = BURST_DECISIONS, np.append(rng.uniform(-0.4, 0.4, 3), rng.uniform(-0.3, 0.3))
        shove = push if left else np.append(rng.normal(0, SHAKEN, 3), 0.0)
        self._turn[moment.number] = (rng, max(0, left - 1), push)
        return np.clip(moment.teach + shove, -1.0, 1.0).astype(np.float32)


class _Mixed:
    """The policy, with the expert in between."""

    def __init__(self, policy: NetworkDriver) -> None:
        self._policy = policy
        self._seen: dict[int, int] = {}

    def __call__(self, moments: Sequence[Moment]) -> list[np.ndarray]:
        return [
            action if self._drives(moment.number) else moment.teach
            for moment, action in zip(moments, self._policy(moments), strict=True)
        ]

    def _drives(self, number: int) -> bool:
        at = self._seen[number] = self._seen.get(number, -1) + 1
        return bool(np.random.default_rng([TRAIN_SEED, number, 4, at // 25]).random() < POLICY_DRIVES)
