"""Plays episodes, several at a time so that the networks see batches: expert, policy or both, with labels on the way.

In: worlds, eyes (where class ids come from), a driver. Out: one Played per episode. Used by dagger.py (collecting) and
evaluate.py (judging). Every picture goes through the live loop's own pipeline and contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from robot.contract import SEGMENTER_CLASSES, PolicyContract
from robot.observation import ObservationPipeline, Planes, policy_planes
from robot.records import Observation, PolicyInput
from train_jobs.so101_policy import expert
from train_jobs.so101_policy.world import Sight, Truth, World

# Policy pixels of the cube from which on it counts as seen.
SEEN_PX = 6
CUBE = SEGMENTER_CLASSES.index("cube")


class Eyes(Protocol):
    """Class ids for a batch of pictures."""

    def see(self, sights: Sequence[Sight]) -> list[np.ndarray]:
        """One (H, W) uint8 of SEGMENTER_CLASSES each."""


class TrueEyes:
    """What the renderer says."""

    def see(self, sights: Sequence[Sight]) -> list[np.ndarray]:
        """The truth."""
        return [sight.class_ids for sight in sights]


@dataclass(slots=True)
class Moment:
    """One decision."""

    number: int  # of the episode
    tick: int  # of the world
    given: PolicyInput | None  # None in a world without a camera
    truth: Truth
    seen: bool
    teach: np.ndarray  # (4,) what the expert would do


Driver = Callable[[Sequence[Moment]], Sequence[np.ndarray]]


@dataclass(slots=True)
class Played:
    """One whole episode."""

    number: int
    success: bool
    seconds: float
    distance_m: float
    brightness: float
    planes: list[np.ndarray] = field(default_factory=list)  # (2, 84, 84) uint8 each
    low_dim: list[np.ndarray] = field(default_factory=list)  # (18,) float32
    teach: list[np.ndarray] = field(default_factory=list)  # (4,) float32
    beside: list[np.ndarray] = field(default_factory=list)  # (3,) cube from the tool, in the base frame
    seen: list[bool] = field(default_factory=list)


@dataclass(slots=True)
class _Lane:
    world: World
    pipeline: ObservationPipeline
    played: Played
    sight: Sight | None = None


def play(
    worlds: Sequence[World],
    numbers: Iterable[int],
    contract: PolicyContract,
    eyes: Eyes | None,
    drive: Driver,
    *,
    keep: bool = False,
    prepare: Callable[[World, int], None] = lambda world, number: None,
) -> Iterator[Played]:
    """Play all `numbers` on the given worlds, in batches. `eyes` None: nothing is rendered. `keep`: record samples.

    `prepare` may set a world's conditions for an episode before it begins.
    """
    left = iter(numbers)
    lanes = [lane for world in worlds if (lane := _begin(world, left, contract, prepare))]
    while lanes:
        moments = _moments(lanes, contract, eyes, keep)
        for lane, action in zip(lanes, drive(moments), strict=True):
            lane.world.act(action)
        for lane in [lane for lane in lanes if lane.world.over]:
            lane.played.success, lane.played.seconds = lane.world.success, lane.world.seconds
            yield lane.played
            lanes.remove(lane)
            if (fresh := _begin(lane.world, left, contract, prepare)) is not None:
                lanes.append(fresh)


def _begin(
    world: World, left: Iterator[int], contract: PolicyContract, prepare: Callable[[World, int], None]
) -> _Lane | None:
    number = next(left, None)
    if number is None:
        return None
    prepare(world, number)
    world.begin(number)
    played = Played(number, False, 0.0, world.start.distance_m, world.brightness)
    return _Lane(world, ObservationPipeline(contract, None), played)


def _moments(lanes: Sequence[_Lane], contract: PolicyContract, eyes: Eyes | None, keep: bool) -> list[Moment]:
    if eyes is None:
        return [_blind(lane) for lane in lanes]
    sights = [lane.world.look() for lane in lanes]
    ids = eyes.see(sights)
    return [_moment(lane, s, i, contract, keep) for lane, s, i in zip(lanes, sights, ids, strict=True)]


def _blind(lane: _Lane) -> Moment:
    truth = lane.world.truth()
    return Moment(lane.played.number, lane.world.ticks, None, truth, True, expert.decide(truth, True))


def _moment(lane: _Lane, sight: Sight, ids: np.ndarray, contract: PolicyContract, keep: bool) -> Moment:
    disparity = 1.0 / (sight.depth_m + np.float32(contract.image.disparity.depth_epsilon_m))
    planes = policy_planes(Planes(ids, disparity), contract.image)
    observation = Observation(lane.world.joints(), None)
    given = lane.pipeline.push_planes(planes, observation)
    truth = lane.world.truth()
    side = sight.class_ids.shape[0]
    left = (sight.class_ids.shape[1] - side) // 2
    shown_px = (sight.class_ids[:, left : left + side] == CUBE).sum() * (contract.image.size_px / side) ** 2
    seen = bool(shown_px >= SEEN_PX)
    teach = expert.decide(truth, seen)
    if keep:
        assert given.low_dim is not None
        played = lane.played
        played.planes.append(planes)
        played.low_dim.append(given.low_dim[-1])
        played.teach.append(teach)
        played.beside.append((truth.cube_m - truth.tool_m).astype(np.float32))
        played.seen.append(seen)
    return Moment(lane.played.number, lane.world.ticks, given, truth, seen, teach)
