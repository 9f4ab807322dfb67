"""Clips by the clock hold every frame once; the configuration block is read strictly."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_jobs.egoworld.config import EgoworldConfig
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.records import Video
from data_jobs.egoworld.splitters import FixedStride, SceneDetect
from data_jobs.runs.errors import InputError, RunError
from data_jobs.runs.strict import parse
from tests.data_jobs.egoworld.film import even, write_film
from tests.data_jobs.egoworld.test_decode import damage_packet


def video_at(times, time_base=Fraction(1, 1000)) -> Video:
    return Video(
        "0" * 16, "0" * 64, "/a.mp4", "a.mp4", 1, 4, 4, 0, "h264", "yuv420p", time_base, np.array(times), False
    )


intervals = st.lists(st.integers(1, 5000), min_size=0, max_size=120)
lengths = st.integers(1, 80).map(lambda n: n / 8)


@given(intervals=intervals, start=st.integers(-5000, 10**12), length=lengths, shortest=st.integers(0, 20))
def test_without_overlap_clips_partition_the_frames(intervals, start, length, shortest):
    video = video_at(np.cumsum([start, *intervals]))
    ranges = FixedStride(clip_length_s=length, min_clip_s=shortest / 8).split(video).ranges
    assert [frame for first, end in ranges for frame in range(first, end)] == list(range(video.frame_count))
    seconds = video.pts / 1000
    for first, end in ranges[:-1]:
        assert first < end
        assert seconds[end - 1] - seconds[first] < length
        assert (seconds[end] - seconds[0]) // length > (seconds[first] - seconds[0]) // length
    first, end = ranges[-1]
    assert seconds[end - 1] - seconds[first] < (2 * length if shortest else length)


@given(intervals=intervals, length=lengths, share=st.integers(1, 7))
def test_with_overlap_no_frame_is_lost_and_neighbours_share_the_overlap(intervals, length, share):
    video = video_at(np.cumsum([0, *intervals]))
    overlap = length * share / 8
    ranges = FixedStride(clip_length_s=length, overlap_s=overlap, min_clip_s=0).split(video).ranges
    assert {frame for first, end in ranges for frame in range(first, end)} == set(range(video.frame_count))
    assert list(ranges) == sorted(ranges)
    for first, end in ranges:
        assert first < end
        assert (video.pts[end - 1] - video.pts[first]) / 1000 < length
    assert all(one[1] < other[1] for one, other in itertools.pairwise(ranges))  # none lies within the one before


def test_real_times_decide_where_a_gap_falls():
    video = video_at([0, 400, 800, 5000, 5400, 6100])
    assert FixedStride(clip_length_s=1.0, min_clip_s=0).split(video).ranges == ((0, 3), (3, 5), (5, 6))
    assert FixedStride(clip_length_s=1.0, min_clip_s=0.9).split(video).ranges == ((0, 3), (3, 6))
    after_a_gap = video_at([0, 400, 800, 5000, 5400])
    assert FixedStride(clip_length_s=1.0, min_clip_s=0.9).split(after_a_gap).ranges == ((0, 3), (3, 5))


def test_a_clip_length_in_decimal_is_exact_at_broadcast_rates():
    video = video_at(np.arange(3000) * 1001, Fraction(1, 30_000))
    ranges = FixedStride(clip_length_s=10.01).split(video).ranges
    assert ranges == tuple((first, first + 300) for first in range(0, 3000, 300))


def test_a_gap_of_centuries_costs_one_step():
    video = video_at([0, 40, 2**62])
    assert FixedStride(min_clip_s=0).split(video).ranges == ((0, 2), (2, 3))


def test_a_single_frame_is_a_clip():
    assert FixedStride().split(video_at([7])).ranges == ((0, 1),)


def test_shots_with_overlap_reach_back_by_time(shared_dir):
    video = probe(str(shared_dir / "data/videos/shots_known.mp4"), "shots_known.mp4")
    split = SceneDetect(overlap_s=0.2).split(video)
    assert split.ranges == ((0, 48), (43, 88), (83, 172), (167, 262), (257, 292))
    assert not split.scenedetect_failed


def test_where_detection_fails_the_whole_video_is_one_marked_clip_or_an_error(tmp_path):
    film = write_film(tmp_path / "a.mp4", even(60), options={"x264-params": "keyint=12:bframes=0"})
    video = probe(str(film), "a.mp4")
    damage_packet(film, 40)
    split = SceneDetect().split(video)
    assert split.ranges == ((0, 60),)
    assert split.scenedetect_failed
    with pytest.raises(InputError, match=r"a\.mp4 is damaged"):
        SceneDetect(fallback_full_clip=False).split(video)


def chosen(config):
    """The splitter that a run config chooses."""
    return parse(EgoworldConfig, config, "config").chosen_splitter()


def test_the_earlier_tools_block_is_accepted():
    block = {"method": "scenedetect", "min_scene_len_s": 1.0, "fallback_full_clip": True, "overlap_s": 1.0}
    assert chosen({"scenedetect": block}) == SceneDetect()
    assert chosen({"scenedetect": block | {"method": "none"}}).split(video_at([0, 40])).ranges == ((0, 2),)
    assert chosen({}) == FixedStride()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"method": "hand_sped"}, "does not match any of the expected tags"),
        ({"method": "fixed_stride", "clip_lenght_s": 5}, "did you mean 'clip_length_s'"),
        ({"clip_length_s": 0}, "greater than 0"),
        ({"clip_length_s": float("inf")}, "finite number"),
        ({"clip_length_s": 5, "overlap_s": 5}, "overlap_s 5.0 must be below clip_length_s 5.0"),
        ({"method": "none", "fallback_full_clip": False}, "method none needs fallback_full_clip: true"),
    ],
)
def test_a_wrong_block_is_refused_with_what_would_be_right(block, message):
    with pytest.raises(RunError, match=message.replace("(", r"\(")):
        chosen({"splitter": {"method": "fixed_stride"} | block})


def test_labels_tell_splitters_apart():
    labels = {FixedStride().label, SceneDetect().label, SceneDetect(method="none").label}
    assert len(labels) == 3
    assert FixedStride().label == "fixed_stride/1"
