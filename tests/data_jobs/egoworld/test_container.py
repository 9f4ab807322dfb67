"""Opening refuses what is no video container, and truncation shows in the outermost boxes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from data_jobs.egoworld.container import missing_bytes, open_container, picture_stream
from data_jobs.runs.errors import InputError
from tests.data_jobs.egoworld.film import even, write_film


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_missing_bytes_counts_what_was_cut_off(tmp_path, name):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    film = write_film(tmp_path / name, even(30), codec=codec, container_options={"movflags": "faststart"})
    whole = film.read_bytes()
    assert missing_bytes(str(film)) == 0
    cut = 1500
    film.write_bytes(whole[:-cut])
    # The index of a Matroska or AVI file lies behind the pictures: it belongs to the outermost box as well.
    assert missing_bytes(str(film)) == cut
    film.write_bytes(whole + b"\0" * 100 + b"padding that some cameras leave")
    assert missing_bytes(str(film)) == 0


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile '{film}'\n", "#EXTM3U\n#EXTINF:1,\n{film}\n#EXT-X-ENDLIST\n", "plain words\n"]
)
def test_playlists_and_text_cannot_reach_other_files(tmp_path, text):
    film = write_film(tmp_path / "real.mp4", even(5))
    trap = tmp_path / "trap.mp4"
    trap.write_text(text.format(film=film))
    with pytest.raises(InputError, match=r"trap\.mp4 is not a video"):
        open_container(str(trap), trap.name)


def test_a_file_name_that_looks_like_a_protocol_is_a_file_name(tmp_path):
    film = write_film(tmp_path / "concat:a|b.mp4", even(3))
    with open_container(str(film), film.name) as container:
        assert picture_stream(container, film.name).frames == 3


def test_a_forged_picture_size_is_refused_before_memory_is_taken(tmp_path):
    film = write_film(tmp_path / "a.mkv", even(3), codec="ffv1")
    with open_container(str(film), film.name) as container:

        class Forged:
            codec_context = type("Context", (), {"width": 60000, "height": 60000})
            disposition = picture_stream(container, film.name).disposition

        streams = type("Streams", (), {"video": [Forged]})
        with pytest.raises(InputError, match="claims 60000x60000"):
            picture_stream(type("Container", (), {"streams": streams}), film.name)


def test_streams_announced_late_are_opened(tmp_path):
    # A program stream names its streams in its packets; sizing options by the header alone crashed the process.
    film = write_film(tmp_path / "a.mpg", range(30), codec="mpeg2video", time_base=Fraction(1, 30))
    with open_container(str(film), film.name) as container:
        assert picture_stream(container, film.name).codec_context.name == "mpeg2video"
