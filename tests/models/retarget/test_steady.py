"""steady.py: stills jitter, hardly lags, and keeps what is missing missing."""

import numpy as np
import pytest
import torch

from models.retarget.keypoints import from_wrist
from models.retarget.steady import STEADINESS, nothing_seen, seen_from_wrist, steadied, steady_step
from train_jobs.manipulation.human_hand import hand_track

TIPS = [4, 8, 12, 16, 20]


@pytest.fixture(scope="module")
def track():
    return hand_track(4.0, seed=2)


def live(points, time_s):
    memory, out = nothing_seen(), []
    for k, now in enumerate(points):
        now, memory = steady_step(now, time_s[k] - time_s[k - 1] if k else 1.0, memory)
        out.append(now)
    return np.array(out)


def test_points_are_those_seen_from_the_wrist(track):
    want = from_wrist(torch.as_tensor(track.keypoints_m), "right").points_m.numpy()
    np.testing.assert_array_equal(seen_from_wrist(track.keypoints_m, "right"), want)


def test_a_still_hand_with_jitter_becomes_stiller(track):
    rng = np.random.default_rng(0)
    still = seen_from_wrist(track.keypoints_m[:1], "right") + rng.normal(0, 0.003, (90, 21, 3))
    time = np.arange(90) / 30
    for filtered in (live(still, time), steadied(still, "right", time)):
        assert filtered[30:, TIPS].std(axis=0).mean() < 0.5 * still[30:, TIPS].std(axis=0).mean()


def test_a_quick_hand_is_hardly_late_and_both_ways_not_at_all(track):
    # A finger tip that swings 3 cm to and fro once per second, 19 cm/s at most.
    time = np.arange(120) / 30
    points = np.tile(seen_from_wrist(track.keypoints_m[:1], "right"), (120, 1, 1))
    points[:, 8, 0] += 0.03 * np.sin(2 * np.pi * time)

    def late_s(filtered):
        steps = np.arange(-10, 11)
        centre = points[30:90, 8, 0]
        off = [np.square(filtered[30 + k : 90 + k, 8, 0] - centre).sum() for k in steps]
        return steps[int(np.argmin(off))] / 30

    assert late_s(live(points, time)) <= 0.1
    assert late_s(steadied(points, "right", time)) == 0.0


def test_missing_points_stay_missing_and_spoil_nothing_after_them(track):
    points = track.keypoints_m[:40].copy()
    points[10:12, 8] = np.nan
    points[20] = np.nan
    filtered = steadied(points, "right", track.time_s[:40])
    gone = np.isnan(filtered).any(axis=-1)
    assert gone[10:12, 8].all() and gone[20].all() and gone.sum() == 2 + 21
    want = seen_from_wrist(points, "right")
    assert np.nanmax(np.linalg.norm(filtered - want, axis=-1)) < 0.03


def test_the_first_frame_and_constant_points_pass_unchanged(track):
    first = seen_from_wrist(track.keypoints_m[0], "right")
    once, memory = steady_step(first, 1 / 30, nothing_seen(), STEADINESS)
    np.testing.assert_array_equal(once, first)
    np.testing.assert_allclose(steady_step(first, 1 / 30, memory)[0], first, atol=1e-15)


def test_times_that_do_not_rise_are_refused(track):
    with pytest.raises(ValueError, match="increasing"):
        steadied(track.keypoints_m[:3], "right", np.zeros(3))
