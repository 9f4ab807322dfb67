"""How often the lift succeeds: episodes that no training saw, by start distance and light, against its rivals.

In: a contender, conditions, a number of episodes. Out: Results and the table of them. Called by __main__.py. Success
is counted, never return: episodes end at success, so that return falls when a policy gets better. Every contender plays
the same episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from models.drqv2 import load_snapshot
from robot.contract import PolicyContract, load_contract
from train_jobs.so101.ranges import HELD_OUT_LOOK, TRAIN_LOOK
from train_jobs.so101.spread import spread, wilson
from train_jobs.so101_policy.networks import NetworkDriver, NetworkEyes
from train_jobs.so101_policy.rollout import Driver, Eyes, Moment, TrueEyes, play
from train_jobs.so101_policy.world import Conditions, World

JUDGE_SEED = 500  # dagger.py trains on another
WORLDS = 4
Contender = Literal["policy", "policy on true classes", "expert", "random"]
CONTENDERS: tuple[Contender, ...] = get_args(Contender)
NEAR_M, FAR_M = 0.13, 0.19


@dataclass(frozen=True, slots=True)
class Trial:
    """What is judged, and under which conditions."""

    contender: Contender
    contract: str
    policy: Path
    segmenter: Path
    conditions: Conditions = field(default_factory=Conditions)
    held_out_look: bool = False
    class_ids: tuple[int, ...] | None = None  # instead of the contract's: a wrong class map

    @property
    def terms(self) -> PolicyContract:
        """The contract, with the wrong class map where one is asked for."""
        contract = load_contract(self.contract)
        if self.class_ids is None:
            return contract
        classes = contract.image.classes.model_copy(update={"policy_ids": self.class_ids})
        return contract.model_copy(update={"image": contract.image.model_copy(update={"classes": classes})})


@dataclass(frozen=True, slots=True)
class Result:
    """One episode."""

    number: int
    success: bool
    seconds: float
    distance_m: float  # from tool to cube at the start
    brightness: float


def judge(trial: Trial, episodes: int, workers: int | None = None) -> list[Result]:
    """Results of episodes 0 … in order."""
    parts = spread(partial(play_some, trial), range(episodes), workers)
    return sorted((result for part in parts for result in part), key=lambda result: result.number)


def play_some(trial: Trial, numbers: list[int]) -> list[Result]:
    """The numbered episodes, in this process."""
    torch.set_num_threads(1)
    eyes, drive = parts(trial)
    terms = trial.terms
    count = min(WORLDS, len(numbers)) if eyes else 1  # only networks gain by batches, and worlds take memory
    worlds = [world_of(trial) for _ in range(count)]
    try:
        return [
            Result(p.number, p.success, p.seconds, p.distance_m, p.brightness)
            for p in play(worlds, numbers, terms, eyes, drive)
        ]
    finally:
        for world in worlds:
            world.close()


def world_of(trial: Trial) -> World:
    """A table for the trial, with a camera for those who look."""
    look = HELD_OUT_LOOK if trial.held_out_look else TRAIN_LOOK
    size_px = None if trial.contender in ("expert", "random") else (160, 120)
    return World(trial.terms, trial.conditions, look, JUDGE_SEED, size_px)


def parts(trial: Trial) -> tuple[Eyes | None, Driver]:
    """What looks and what decides."""
    if trial.contender == "expert":
        return None, lambda moments: [moment.teach for moment in moments]
    if trial.contender == "random":
        return None, _random
    driver = NetworkDriver(load_snapshot(trial.policy).network)
    eyes: Eyes = TrueEyes() if trial.contender == "policy on true classes" else NetworkEyes(trial.segmenter)
    return eyes, driver


def _random(moments: Sequence[Moment]) -> list[np.ndarray]:
    return [
        np.random.default_rng([JUDGE_SEED, moment.number, moment.tick]).uniform(-1, 1, 4).astype(np.float32)
        for moment in moments
    ]


def sweeps(trial: Trial) -> dict[str, Trial]:
    """Conditions that a real arm meets, one at a time, by name."""
    plain = trial.conditions
    changes: dict[str, Conditions] = {
        **{f"latency {ticks * 20} ms": replace(plain, latency_ticks=ticks) for ticks in (0, 2, 5, 10)},
        **{f"{50 / every:.0f} decisions a second": replace(plain, every=every) for every in (5, 3, 1)},
        "camera shakes 2 mm, 1°": replace(plain, shake_m=0.002, shake_rad=np.deg2rad(1)),
        "camera shakes 5 mm, 3°": replace(plain, shake_m=0.005, shake_rad=np.deg2rad(3)),
        "depth noise 2 %": replace(plain, depth_noise=0.02),
        "depth noise 10 %": replace(plain, depth_noise=0.10),
    }
    named = {name: replace(trial, conditions=conditions) for name, conditions in changes.items()}
    named["looks of the held-out ranges"] = replace(trial, held_out_look=True)
    named["wrong class map: table and cube, and the fingers, exchanged"] = replace(trial, class_ids=WRONG_IDS)
    return named


WRONG_IDS = (0, 0, 2, 1, 4, 3)


def share(results: Sequence[Result]) -> str:
    """`81.0 % (76.1 to 85.1) of 300`: success with its 95 % Wilson interval."""
    return share_of(sum(result.success for result in results), len(results))


def share_of(won: int, of: int) -> str:
    """The same of counts."""
    if not of:
        return "no episodes"
    low, high = wilson(won, of)
    return f"{100 * won / of:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of {of}"


def seconds(results: Sequence[Result]) -> str:
    """Median and 90th percentile of the time to success, as a sentence."""
    times = times_to_success(results)
    return "none succeeded" if times is None else "{:.1f} s, 90 % within {:.1f} s".format(*times)


def times_to_success(results: Sequence[Result]) -> tuple[float, float] | None:
    """Median and 90th percentile, None where none succeeded."""
    times = [result.seconds for result in results if result.success]
    return (float(np.median(times)), float(np.quantile(times, 0.9))) if times else None


def groups(results: Sequence[Result]) -> dict[str, list[Result]]:
    """By start distance and by light."""
    dim, bright = np.quantile([result.brightness for result in results], [1 / 3, 2 / 3])
    return {
        f"start within {NEAR_M * 100:.0f} cm": [r for r in results if r.distance_m < NEAR_M],
        f"start at {NEAR_M * 100:.0f} to {FAR_M * 100:.0f} cm": [r for r in results if NEAR_M <= r.distance_m < FAR_M],
        f"start beyond {FAR_M * 100:.0f} cm": [r for r in results if r.distance_m >= FAR_M],
        "darkest third": [r for r in results if r.brightness < dim],
        "middle third": [r for r in results if dim <= r.brightness < bright],
        "brightest third": [r for r in results if r.brightness >= bright],
    }
