"""What is known of a video without decoding it whole: reference files, hostile files, and films made here."""

from __future__ import annotations

import csv
import hashlib
import random
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_jobs.egoworld.decode import Decoder
from data_jobs.egoworld.probe import probe
from data_jobs.runs.errors import InputError
from tests.data_jobs.egoworld.film import TIME_BASE, even, write_film


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_reference_videos_have_the_known_frames_times_and_hashes(shared_dir):
    for row in rows(shared_dir / "data/videos/videos.csv"):
        video = probe(str(shared_dir / "data/videos" / row["file"]), row["file"])
        assert video.frame_count == int(row["frames_decoded"]), row["file"]
        assert (video.width, video.height) == (int(row["width"]), int(row["height"])), row["file"]
        assert float(video.pts[0] * video.time_base) == float(row["first_pts_s"]), row["file"]
        assert float(video.pts[-1] * video.time_base) == pytest.approx(float(row["last_pts_s"]), abs=1e-5), row["file"]
        assert video.fps == pytest.approx(float(row["fps"]), abs=1e-5), row["file"]
        assert (video.codec, video.pixel_format) == (row["codec"], row["pix_fmt"]), row["file"]
        assert video.has_audio == (int(row["audio_streams"]) > 0), row["file"]
        assert video.content_sha256 == row["sha256"], row["file"]


def test_hostile_files_are_read_or_refused_as_their_table_says(shared_dir):
    for row in rows(shared_dir / "data/videos_bad/manifest.csv"):
        path = str(shared_dir / "data/videos_bad" / row["file"])
        if row["expected"] == "input_error":
            with pytest.raises(InputError) as refused:
                probe(path, row["file"])
            assert row["file"] in str(refused.value)
            assert "\n" not in str(refused.value)
            continue
        video = probe(path, row["file"])
        shown = (int(row["frames"]), int(row["shown_width"]), int(row["shown_height"]))
        assert (video.frame_count, video.width, video.height) == shown, row["file"]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("zero_bytes.mp4", "is empty"),
        ("text.mp4", "is not a video"),
        ("moov_missing.mp4", "no index"),
        ("cut_mid_mdat.mp4", "promises 60 frames, 30 are there"),
        ("audio_only.mp4", "no picture stream"),
        ("directory.mp4", "is a folder"),
        ("absent.mp4", "No such file"),
    ],
)
def test_a_refusal_says_what_is_wrong(shared_dir, file, reason):
    with pytest.raises(InputError, match=f"{file}.*{reason}"):
        probe(str(shared_dir / "data/videos_bad" / file), file)


def test_variable_rate_times_are_the_true_ones(shared_dir):
    folder = shared_dir / "data/videos_bad"
    truth = [float(row["time_s"]) for row in rows(folder / "variable_rate_times.csv")]
    video = probe(str(folder / "variable_rate.mp4"), "variable_rate.mp4")
    np.testing.assert_allclose(video.pts * float(video.time_base), truth, atol=1e-6)


FILMS = {
    "b_frames.mp4": {"options": {"x264-params": "keyint=12:bframes=3"}},
    "open_gop.mkv": {"options": {"x264-params": "keyint=12:bframes=3:open-gop=1"}},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "stream.ts": {"options": {"x264-params": "keyint=12:bframes=3:open-gop=1"}},
    "hidden_frames.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "400k"}},
    "old.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
}


@pytest.mark.parametrize("name", FILMS)
def test_every_frame_is_listed_at_the_time_it_was_written_for(tmp_path, name):
    constant = name.endswith((".avi", ".ts"))  # AVI knows no other
    gaps = random.Random(7)
    times = (
        list(even(50)) if constant else np.cumsum([gaps.choice([500, 1001, 2000, 40_000]) for _ in range(50)]).tolist()
    )
    unit = Fraction(1, 30) if name.endswith(".avi") else TIME_BASE
    times = [time // 1000 for time in times] if name.endswith(".avi") else times
    video = probe(str(write_film(tmp_path / name, times, time_base=unit, **FILMS[name])), name)
    written = (np.array(times) - times[0]) * float(unit)
    read = (video.pts - video.pts[0]) * float(video.time_base)
    assert video.frame_count == 50
    np.testing.assert_allclose(read, written, atol=0.00101)  # Matroska rounds each time to a millisecond
    with Decoder(str(tmp_path / name), name) as decoder:
        assert [pts for pts, _ in decoder.frames_from(int(video.pts[0]))] == video.pts.tolist()


def test_equal_content_has_one_identity_whatever_it_is_called(tmp_path):
    film = write_film(tmp_path / "a.mp4", even(5))
    shutil.copy(film, tmp_path / "b.mov")
    first, second = probe(str(film), "a.mp4"), probe(str(tmp_path / "b.mov"), "b.mov")
    assert first.video_id == second.video_id == hashlib.sha256(film.read_bytes()).hexdigest()[:16]


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    film = write_film(tmp_path / "a.mp4", even(5))
    from data_jobs.egoworld import probe as module

    hashed = module._content_hash

    def slow_hash(path: str, name: str) -> str:
        digest = hashed(path, name)
        with film.open("ab") as file:
            file.write(b"more")
        return digest

    monkeypatch.setattr(module, "_content_hash", slow_hash)
    with pytest.raises(InputError, match=r"a\.mp4 was changed while"):
        probe(str(film), "a.mp4")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_truncated_film_is_refused_wherever_it_is_cut(tmp_path, name, share):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    film = write_film(tmp_path / name, even(60), codec=codec, container_options={"movflags": "faststart"})
    whole = film.read_bytes()
    film.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=f"{name} is truncated or damaged"):
        probe(str(film), name)


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_read_or_refused_but_never_crashes(tmp_path, seed):
    chance = random.Random(seed)
    film = write_film(tmp_path / "a.mp4", even(20))
    data = bytearray(film.read_bytes())
    for _ in range(chance.choice([1, 10, 200])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    film.write_bytes(data)
    try:
        video = probe(str(film), "a.mp4")
    except InputError as refused:
        message = str(refused)
    else:
        message = "a.mp4 was read"
        assert video.frame_count > 0
        assert (np.diff(video.pts) > 0).all()
    assert "a.mp4" in message
