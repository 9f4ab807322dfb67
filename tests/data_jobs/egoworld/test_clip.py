"""Windows hold exactly the clip's frames, whatever the window, the threads and the entry point; bad files are told."""

from __future__ import annotations

import gc
import itertools
import os
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.probe import probe
from data_jobs.runs.errors import InputError
from tests.data_jobs.egoworld.film import clip_of, even, number_of, write_film
from tests.data_jobs.egoworld.test_decode import damage_packet

FRAMES = 50


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    times = np.cumsum([1000 + 700 * (number % 3) for number in range(FRAMES)]).tolist()
    options = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=1"}
    return probe(str(write_film(path, times, options=options)), "a.mp4")


@pytest.fixture(scope="module")
def whole(video):
    (window,) = ClipReader(clip_of(video), FRAMES).windows()
    assert [number_of(image) for image in window.images] == list(range(FRAMES))
    return window.images


spans = st.tuples(st.integers(0, FRAMES - 1), st.integers(1, FRAMES)).map(lambda s: (s[0], min(FRAMES, s[0] + s[1])))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(span=spans, window_frames=st.integers(1, 60), threads=st.integers(1, 4))
def test_pixels_and_times_depend_on_the_frame_alone(video, whole, span, window_frames, threads):
    start, end = span
    windows = list(ClipReader(clip_of(video, start, end), window_frames, threads).windows())
    assert all(len(window.images) == window_frames for window in windows[:-1])
    np.testing.assert_array_equal(np.concatenate([window.frame_index for window in windows]), np.arange(start, end))
    np.testing.assert_array_equal(np.concatenate([window.pts for window in windows]), video.pts[start:end])
    np.testing.assert_array_equal(np.concatenate([window.images for window in windows]), whole[start:end])
    seconds = video.pts[start:end] * float(video.time_base)
    np.testing.assert_allclose(np.concatenate([window.timestamp_s for window in windows]), seconds, rtol=1e-12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(span=spans, data=st.data())
def test_chosen_frames_equal_the_same_frames_of_the_windows(video, whole, span, data):
    start, end = span
    chosen = data.draw(st.lists(st.integers(start, end - 1), max_size=6))
    windows = list(ClipReader(clip_of(video, start, end), 4).frames_at(chosen))
    assert [int(window.frame_index[0]) for window in windows] == sorted(set(chosen))
    for window in windows:
        np.testing.assert_array_equal(window.images[0], whole[window.frame_index[0]])
        assert window.pts[0] == video.pts[window.frame_index[0]]


def test_a_chosen_frame_outside_the_clip_is_a_mistake_of_the_caller(video):
    with pytest.raises(ValueError, match=r"frames 9\.\.9 reach outside 10\.\.19"):
        list(ClipReader(clip_of(video, 10, 20), 4).frames_at([9]))


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.ts", "mpeg2video")])
def test_containers_that_are_silent_about_times_give_the_same(tmp_path, name, codec):
    options = {"bf": "2", "g": "12"}
    film = write_film(tmp_path / name, range(40), codec, options, time_base=Fraction(1, 30))
    video = probe(str(film), name)
    reader = ClipReader(clip_of(video, 7, 33), 5)
    frames = [
        (int(i), image)
        for window in reader.windows()
        for i, image in zip(window.frame_index, window.images, strict=True)
    ]
    assert [(index, number_of(image)) for index, image in frames] == [(i, i) for i in range(7, 33)]
    for window in reader.frames_at([32, 8, 20]):
        np.testing.assert_array_equal(window.images[0], dict(frames)[int(window.frame_index[0])])
    np.testing.assert_allclose(reader.times_s(), video.pts[7:33] * float(video.time_base))


@pytest.mark.parametrize("file", ["cooking_droid_speed.mp4", "vtest_head.avi", "sintel.mp4"])
def test_real_videos_read_by_clip_equal_the_video_read_whole(shared_dir, file):
    video = probe(str(shared_dir / "data/videos" / file), file)
    edges = [0, 1, 30, 77, 101]
    digests = [hash(image.tobytes()) for w in ClipReader(clip_of(video, 0, 101), 16).windows() for image in w.images]
    for start, end in itertools.pairwise(edges):
        windows = ClipReader(clip_of(video, start, end), 7, decode_threads=2).windows()
        assert [hash(image.tobytes()) for w in windows for image in w.images] == digests[start:end]


def test_times_are_told_without_decoding(video):
    np.testing.assert_allclose(ClipReader(clip_of(video, 5, 30), 4).times_s(), video.pts[5:30] * float(video.time_base))


def test_windows_cannot_be_written_to(video):
    window = next(ClipReader(clip_of(video), 4).windows())
    with pytest.raises(ValueError, match="read-only"):
        window.images[0, 0, 0] = 0


def open_files(path: str) -> int:
    return sum(os.path.realpath(link) == os.path.realpath(path) for link in Path("/proc/self/fd").iterdir())


def test_leaving_early_ends_the_thread_and_closes_the_file(video):
    threads = threading.active_count()
    windows = ClipReader(clip_of(video), 2).windows()
    next(windows)
    assert open_files(video.path) == 1
    windows.close()
    chosen = ClipReader(clip_of(video), 2).frames_at([3, 30])
    next(chosen)
    chosen.close()
    gc.collect()
    assert open_files(video.path) == 0
    assert threading.active_count() == threads


def test_only_the_next_window_is_decoded_ahead(video, monkeypatch):
    made = []
    real = ClipReader._empty_images
    monkeypatch.setattr(ClipReader, "_empty_images", lambda self, count: made.append(count) or real(self, count))
    windows = ClipReader(clip_of(video), 5).windows()
    next(windows)
    threading.Event().wait(0.3)  # long enough to decode the whole film, if nothing held the thread back
    assert len(made) == 2
    windows.close()


def test_too_few_frames_are_told_with_the_first_missing_time(video):
    clip = clip_of(video, 10, 20)
    with pytest.raises(InputError, match=r"a\.mp4: expected 11 frames up to pts \d+, decoded 10; the last one at pts"):
        list(ClipReader(replace(clip, frame_end=21), 4).windows())
    with pytest.raises(InputError, match=r"expected 9 frames up to pts \d+, decoded 9"):
        list(ClipReader(replace(clip, frame_end=19), 4).windows())


def test_a_damaged_picture_is_an_input_error_for_its_clip_only(tmp_path):
    options = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=0"}
    film = write_film(tmp_path / "a.mp4", even(60), options=options)
    video = probe(str(film), "a.mp4")
    damage_packet(film, 30)
    with pytest.raises(InputError, match=r"a\.mp4"):
        list(ClipReader(clip_of(video, 24, 40), 4).windows())
    for start, end in ((0, 24), (36, 60)):
        frames = [
            number_of(image)
            for window in ClipReader(clip_of(video, start, end), 4).windows()
            for image in window.images
        ]
        assert frames == list(range(start, end))


def test_a_file_cut_or_gone_after_it_was_listed_is_an_input_error(tmp_path):
    film = write_film(tmp_path / "a.mp4", even(60), container_options={"movflags": "faststart"})
    video = probe(str(film), "a.mp4")
    film.write_bytes(film.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"a\.mp4"):
        list(ClipReader(clip_of(video), 8).windows())
    film.unlink()
    with pytest.raises(InputError, match=r"a\.mp4 cannot be read: No such file"):
        list(ClipReader(clip_of(video), 8).windows())
    with pytest.raises(InputError, match=r"a\.mp4 cannot be read: No such file"):
        list(ClipReader(clip_of(video), 8).frames_at([1]))


def test_a_window_of_no_frames_is_refused(video):
    with pytest.raises(ValueError, match="window_frames is 0, expected 1 or more"):
        ClipReader(clip_of(video), 0)
