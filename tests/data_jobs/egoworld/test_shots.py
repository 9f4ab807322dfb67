"""Cuts are found at exactly their frame; flashes, dissolves and plain motion are not cuts."""

from __future__ import annotations

import csv
from fractions import Fraction

import av
import numpy as np
import pytest

from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.shots import shot_starts

ONE_SHOT = ["cups.mp4", "blocks.mp4", "robotarm.mp4", "cooking_droid_speed.mp4", "vtest_head.avi"]


@pytest.mark.parametrize("file", ["sintel.mp4", "shots_known.mp4"])
def test_every_known_cut_is_found_at_its_frame_and_nothing_else(shared_dir, file):
    with (shared_dir / "data/videos/shots.csv").open(newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["file"] == file]
    cuts = [int(row["first_frame"]) for row in rows if row["kind"] == "cut"]
    video = probe(str(shared_dir / "data/videos" / file), file)
    assert shot_starts(video, min_scene_len_s=0.0) == cuts
    far_from_the_ends = [cut for cut in cuts if cut > 25]  # a shot of two frames is shorter than a second
    assert shot_starts(video, min_scene_len_s=1.0) == far_from_the_ends


@pytest.mark.parametrize("file", ONE_SHOT)
def test_single_shots_have_no_cut(shared_dir, file):
    assert shot_starts(probe(str(shared_dir / "data/videos" / file), file), min_scene_len_s=0.0) == []


def textured(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)


def film_of(path, pictures, times):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30_000)
        for image, pts in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 30_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return probe(str(path), path.name)


def test_a_cut_is_found_by_its_frame_where_the_rate_varies(tmp_path):
    times = np.cumsum([1000 if number % 5 else 9000 for number in range(60)]).tolist()
    video = film_of(tmp_path / "a.mp4", [textured(1)] * 23 + [textured(2)] * 37, times)
    assert shot_starts(video, min_scene_len_s=0.5) == [23]


def test_a_flash_is_no_cut_but_a_short_shot_between_two_others_is(tmp_path):
    a, b, c = textured(1), textured(2), textured(3)
    times = range(0, 60_000, 1000)
    flash = film_of(tmp_path / "flash.mp4", [a] * 30 + [np.full_like(a, 250)] * 3 + [a] * 27, times)
    assert shot_starts(flash, min_scene_len_s=0.0) == []
    short = film_of(tmp_path / "short.mp4", [a] * 30 + [b] * 5 + [c] * 25, times)
    assert shot_starts(short, min_scene_len_s=0.0) == [30, 35]
    assert shot_starts(short, min_scene_len_s=0.5) == [30]
