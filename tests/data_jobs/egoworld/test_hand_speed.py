"""Cuts at slow hands: on tracks whose minima are known, and on film of hands."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_jobs.egoworld.config import EgoworldConfig
from data_jobs.egoworld.hand_speed import hand_speed, slow_moments, wrist_tracks
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.splitters import HandSpeed
from data_jobs.runs.errors import RunError
from data_jobs.runs.strict import parse
from tests.data_jobs.egoworld.test_splitters import intervals, video_at

RATE_HZ, PALM_PX = 10.0, 80.0


def reaching(seconds=12.0, still_every_s=3.0, jitter_px=0.5):
    """A right wrist that goes from place to place and stands still every few seconds; times and wrists."""
    times = np.arange(0, seconds, 1 / RATE_HZ)
    x = 400 + 150 * (times - still_every_s / (2 * np.pi) * np.sin(2 * np.pi * times / still_every_s))
    wrists = np.full((len(times), 2, 3), np.nan)
    noise = np.random.default_rng(0).normal(0, jitter_px, (len(times), 2))
    wrists[:, 1] = np.column_stack([x + noise[:, 0], 300 + noise[:, 1], np.full(len(times), PALM_PX)])
    return times, wrists


def test_cuts_fall_where_the_hand_stands_still():
    times, wrists = reaching()
    speed = hand_speed(times, wrists, 0.1)
    assert speed.max() == pytest.approx(2 * 150 / PALM_PX, rel=0.1)
    assert times[slow_moments(times, speed, 0.5, 0.5)] == pytest.approx([3.0, 6.0, 9.0], abs=0.21)
    ranges = HandSpeed().ranges(video_at((times * 1000).astype(int)), times, speed)
    assert [first for first, _ in ranges] == pytest.approx([0, 30, 60, 90], abs=2)


def test_a_moving_hand_counts_though_the_other_rests():
    times, wrists = reaching()
    wrists[:, 0] = (100.0, 100.0, PALM_PX)
    alone = wrists.copy()
    alone[:, 0] = np.nan
    assert np.allclose(hand_speed(times, wrists, 0.1), hand_speed(times, alone, 0.1))


def test_a_hand_that_is_gone_is_no_slow_hand():
    times, wrists = reaching()
    wrists[40:60] = np.nan
    speed = hand_speed(times, wrists, 0.1)
    assert np.isnan(speed[42:58]).all()
    assert not [i for i in slow_moments(times, speed, 0.5, 0.5) if 40 <= i < 60]


def test_a_still_hand_is_one_clip_up_to_the_longest():
    times = np.arange(0, 30, 0.1)
    video = video_at((times * 1000).astype(int))
    assert HandSpeed(max_clip_s=40).ranges(video, times, np.zeros(300)) == ((0, 300),)
    assert HandSpeed(max_clip_s=10).ranges(video, times, np.full(300, np.nan)) == ((0, 100), (100, 200), (200, 300))


@settings(max_examples=40)
@given(intervals=intervals, shortest=st.integers(0, 8), data=st.data())
def test_clips_hold_every_frame_once_and_none_is_too_short(intervals, shortest, data):
    video = video_at(np.cumsum([0, *intervals]))
    speed = np.array(data.draw(st.lists(st.floats(0, 9), min_size=video.frame_count, max_size=video.frame_count)))
    ranges = HandSpeed(min_clip_s=shortest / 4, max_clip_s=4).ranges(video, video.pts / 1000, speed)
    assert [frame for first, end in ranges for frame in range(first, end)] == list(range(video.frame_count))
    cuts = [video.pts[first] / 1000 for first, _ in ranges]
    # Between frames that lie far apart an even cut falls on the next frame, later than asked for.
    gap_s = max(intervals, default=0) / 1000
    assert all(b - a >= shortest / 4 - gap_s - 1e-9 for a, b in pairwise(cuts))


def test_real_hands_are_slower_at_the_cuts(shared_dir, weights):
    for name in ("palm_detection_lite", "hand_landmark_lite"):
        weights(name)
    video = probe(str(shared_dir / "data/videos/blocks.mp4"), "blocks.mp4")
    splitter = HandSpeed(min_clip_s=0.5)
    split = splitter.split(video)
    assert split.ranges == splitter.split(video).ranges and len(split.ranges) > 1
    times, wrists = wrist_tracks(video, splitter.sample_hz)
    speed = hand_speed(times, wrists, splitter.smooth_s)
    at = [int(np.argmin(np.abs(times - float(video.pts[a] * video.time_base)))) for a, _ in split.ranges[1:]]
    assert np.nanmax(speed[at]) < np.nanmedian(speed)


def test_the_config_chooses_it_and_refuses_what_cannot_be():
    config = parse(EgoworldConfig, {"splitter": {"method": "hand_speed"}}, "config")
    assert config.chosen_splitter().label.startswith("hand_speed/1+")
    with pytest.raises(RunError, match=r"max_clip_s 1\.0 must be at least twice min_clip_s 1.0"):
        parse(EgoworldConfig, {"splitter": {"method": "hand_speed", "max_clip_s": 1.0}}, "config")
