"""Metrics against hand-worked values, closed forms, and what must not change them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from train_jobs.manipulation import hand_metrics as hands
from train_jobs.manipulation import object_metrics as objects

EVERY = np.ones((1, 21), bool)


def some_hands(count: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.04, (count, 21, 3)) + np.array([0, 0, 0.6])


def test_a_shift_counts_only_without_alignment():
    true = some_hands()
    moved = true + np.array([0.03, 0.04, 0])  # 50 mm
    assert hands.score(moved, true, EVERY, "absolute").mpjpe_mm == pytest.approx(50)
    assert hands.score(moved, true, EVERY, "root").mpjpe_mm == pytest.approx(0, abs=1e-9)


def test_a_joint_that_is_off_counts_as_one_of_21():
    true = some_hands()
    moved = true.copy()
    moved[0, 8] += [0, 0, 0.021]
    found = hands.score(moved, true, EVERY, "root")
    assert found.mpjpe_mm == pytest.approx(1)
    assert found.per_joint_mm[8] == pytest.approx(21)
    assert found.pck[20] == pytest.approx(20 / 21)
    assert found.pck[25] == 1


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.2, 5))
def test_procrustes_forgives_every_similarity_but_no_mirror(seed, scale):
    true = some_hands(seed=seed)
    turn = Rotation.random(rng=seed).as_matrix()
    moved = scale * true @ turn.T + [1, 2, 3]
    assert hands.score(moved, true, EVERY, "procrustes").mpjpe_mm == pytest.approx(0, abs=1e-6)
    assert hands.score(moved * [-1, 1, 1], true, EVERY, "procrustes").mpjpe_mm > 5


def test_procrustes_is_the_best_of_all_similarities():
    true, guess = some_hands(seed=1)[0], some_hands(seed=2)[0]
    best = hands.aligned(guess, true, EVERY[0])
    least = ((best - true) ** 2).sum()
    rng = np.random.default_rng(3)
    for _ in range(50):
        turn = Rotation.from_rotvec(rng.normal(0, 0.02, 3)).as_matrix()
        middle = best.mean(axis=0)
        other = (best - middle) @ turn.T * rng.normal(1, 0.02) + middle + rng.normal(0, 1e-3, 3)
        assert ((other - true) ** 2).sum() > least


def test_the_area_has_its_closed_form():
    # Errors spread evenly over 0 to 50 mm: the curve is the diagonal, the area a half. A constant error e: 1 - e / 50.
    count = 5000
    true = np.zeros((count, 21, 3))
    spread = true.copy()
    spread[..., 0] = np.linspace(0, 0.05, count)[:, None]
    every = np.ones((count, 21), bool)
    assert hands.score(spread, true, every, "absolute").auc == pytest.approx(0.5, abs=1e-3)
    still = hands.score(true[:1] + np.array([0.02, 0, 0]), true[:1], EVERY, "absolute")
    assert still.auc == pytest.approx(0.6, abs=0.5 / 99)
    assert hands.score(true[:1], true[:1], EVERY, "absolute").auc == 1
    assert hands.score(true[:1] + np.array([1, 0, 0]), true[:1], EVERY, "absolute").auc == 0


def test_the_curve_has_a_hundred_steps_from_0_to_50_mm():
    thresholds, _ = hands.pck_curve(np.zeros((1, 21)), EVERY)
    assert (len(thresholds), thresholds[0], thresholds[-1]) == (100, 0, 0.05)


def test_unlabelled_samples_and_joints_do_not_count():
    true, labelled = some_hands(3), np.ones((3, 21), bool)
    guess = true + np.array([0.01, 0, 0])
    guess[1] += 9
    guess[2, 5] += 9
    labelled[1], labelled[2, 5] = False, False
    found = hands.score(guess, true, labelled, "absolute")
    assert found.samples == 2 and found.mpjpe_mm == pytest.approx(10)
    assert hands.score(guess, true, labelled, "procrustes").mpjpe_mm == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="no labels"):
        hands.score(guess, true, np.zeros((3, 21), bool), "root")


def test_the_interval_holds_the_mean_and_shrinks():
    few, many = (np.random.default_rng(0).normal(10, 3, n) for n in (20, 2000))
    (low, high), (near, far) = hands.bootstrap_interval(few), hands.bootstrap_interval(many)
    assert low < few.mean() < high and near < many.mean() < far
    assert far - near == pytest.approx(2 * 1.96 * 3 / 2000**0.5, rel=0.15)
    assert far - near < high - low


CUBE = np.array([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)]) * 0.05


def turned(axis: str, degrees: float, shift=(0, 0, 0)) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    pose[:3, 3] = shift
    return pose


def test_add_and_add_s_by_hand():
    assert objects.add_m(turned("z", 0, (0.003, 0.004, 0)), np.eye(4), CUBE) == pytest.approx(0.005)
    # A quarter turn about z moves each corner by the side of the square, 0.1 m; the corners as a set stay.
    assert objects.add_m(turned("z", 90), np.eye(4), CUBE) == pytest.approx(0.1)
    assert objects.add_s_m(turned("z", 90), np.eye(4), CUBE) == pytest.approx(0, abs=1e-9)
    assert objects.diameter_m(CUBE) == pytest.approx(0.1 * 3**0.5)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_add_s_is_never_more_than_add(seed):
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.random(rng=seed).as_matrix(), rng.normal(0, 0.03, 3)
    assert objects.add_s_m(pose, np.eye(4), CUBE) <= objects.add_m(pose, np.eye(4), CUBE) + 1e-12


def test_shares_and_areas_of_pose_errors():
    errors, diameters = np.array([0.0, 0.005, 0.02, 0.005]), np.array([0.1, 0.1, 0.1, 0.04])
    assert objects.right_share(errors, diameters) == 0.5
    assert objects.area_below(errors, 0.1 * diameters) == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    # The same as counting thresholds, in the limit.
    counted = np.mean([(errors <= t).mean() for t in np.linspace(0, 0.1, 20001)])
    assert objects.area_below(errors, 0.1) == pytest.approx(counted, abs=1e-4)


def test_contact_scores_by_hand():
    scores, true = np.array([0.9, 0.8, 0.7, 0.2]), np.array([True, False, True, True])
    assert objects.f1(scores, true) == pytest.approx(2 * 2 / (3 + 3))
    # Hits at ranks 1, 3, 4: a third each of 1, 2/3 and 3/4.
    assert objects.average_precision(scores, true) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert objects.average_precision(np.full(4, 0.5), true) == pytest.approx(0.75)  # equal scores: the base rate
    assert objects.f1(np.zeros(4), true) == 0
    assert objects.f1(np.zeros(4), np.zeros(4, bool)) == 1
    assert np.isnan(objects.average_precision(scores, np.zeros(4, bool)))
