"""Episodes: the same by number, an expert that succeeds, rivals that do not, intervals, faults that show."""

import numpy as np
import pytest
from scipy.stats import binomtest

from train_jobs.so101.spread import wilson
from train_jobs.so101_policy import dagger, expert
from train_jobs.so101_policy.evaluate import NEAR_M, Trial, groups, judge, play_some, share, sweeps
from train_jobs.so101_policy.rollout import TrueEyes, play
from train_jobs.so101_policy.world import Conditions, Truth, World


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    nowhere = tmp_path_factory.mktemp("nothing") / "none"
    return Trial("expert", "pick101_v19", nowhere, nowhere)


def test_the_expert_succeeds_from_anywhere_and_chance_does_not(trial):
    results = play_some(trial, list(range(8)))
    assert sum(result.success for result in results) >= 7
    assert len({result.distance_m for result in results}) == 8 and max(r.distance_m for r in results) > NEAR_M
    chance = Trial("random", trial.contract, trial.policy, trial.segmenter)
    assert not any(result.success for result in play_some(chance, [0, 1]))


def test_an_episode_is_the_same_whoever_else_plays(trial):
    alone, among = play_some(trial, [3]), play_some(trial, [1, 2, 3])
    assert alone[0] == next(result for result in among if result.number == 3)
    assert judge(trial, 4, workers=0) == sorted(play_some(trial, [0, 1, 2, 3]), key=lambda result: result.number)


def test_samples_hold_what_the_policy_sees_and_the_expert_says(contract):
    world = World(contract, Conditions(seconds=0.4), None, 5, (64, 48))
    played = next(play([world], [0], contract, TrueEyes(), dagger._Disturbed(), keep=True))
    world.close()
    assert len(played.planes) == len(played.teach) == len(played.seen) == 10, "0.4 s at 25 decisions a second"
    planes = np.stack(played.planes)
    assert planes.shape == (10, 2, 84, 84) and planes[:, 0].max() <= 4 and planes[:, 1].max() > 100
    # the 18 numbers: the last but six are the tool's place, and so the cube's
    tool = np.stack(played.low_dim)[:, 12:15]
    cube = tool + np.stack(played.beside)
    assert np.abs(cube - cube[0]).max() < 2e-3, "an untouched cube lies still"


def test_the_expert_looks_for_a_cube_that_it_may_not_know():
    here = np.array([0.3, 0.1, 0.05])
    truth = Truth(here, np.array([0.0, 1.0, 0.0]), here + 0.02, 0.0, 0.0, False, False)
    action = expert.decide(truth, seen=False)
    assert np.sign(action[:3]).tolist() == np.sign(expert.LOOKOUT_M - here).tolist()
    assert np.abs(action).max() <= 1.0


def test_latency_delays_the_first_movement(contract):
    moved = []
    for ticks in (0, 4):
        world = World(contract, Conditions(every=1, latency_ticks=ticks, seconds=1.0), None, 5, None)
        world.begin(0)
        start = world.joints().position_rad
        still = 0
        while np.abs(world.joints().position_rad[0] - start[0]) < 1e-3 and not world.over:
            world.act(np.array([0.0, 1.0, 0.0, 0.0]))
            still += 1
        moved.append(still)
    assert moved[1] == moved[0] + 4


def test_a_shaking_camera_and_noisy_depth_change_the_picture_and_nothing_else(contract):
    sights = []
    for change in ({}, {"shake_m": 0.005}, {"depth_noise": 0.1}):
        world = World(contract, Conditions(**change), None, 5, (64, 48))
        world.begin(0)
        sights.append(world.look())
        assert np.array_equal(world.joints().position_rad, world.start.joints_rad)
        world.close()
    plain, shaken, noisy = sights
    assert not np.array_equal(plain.rgb, shaken.rgb) and np.array_equal(plain.rgb, noisy.rgb)
    assert not np.array_equal(plain.depth_m, noisy.depth_m)


def test_every_sweep_changes_something(trial):
    for name, changed in sweeps(trial).items():
        assert changed != trial or name == "latency 0 ms"
    wrong = sweeps(trial)["wrong class map: table and cube, and the fingers, exchanged"]
    assert wrong.terms.image.classes.policy_ids == (0, 0, 2, 1, 4, 3)


@pytest.mark.parametrize("won, of", [(7, 10), (0, 5), (5, 5), (930, 1000)])
def test_intervals_are_wilsons(won, of):
    want = binomtest(won, of).proportion_ci(0.95, method="wilson")
    assert wilson(won, of) == pytest.approx((want.low, want.high), abs=1e-6)


def test_groups_cover_every_episode_once_per_question(trial):
    results = play_some(trial, list(range(6)))
    parts = groups(results)
    assert sum(len(part) for name, part in parts.items() if name.startswith("start")) == 6
    assert sum(len(part) for name, part in parts.items() if name.endswith("third")) == 6
    assert share([]) == "no episodes" and "of 6" in share(results)
