"""Seeking lands on the frame that was asked for, in containers and group structures that make it hard."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from data_jobs.egoworld.decode import Decoder
from data_jobs.egoworld.probe import probe
from data_jobs.runs.errors import InputError
from tests.data_jobs.egoworld.film import even, write_film

GROUPS = "keyint=12:min-keyint=12:scenecut=0"
FILMS = {
    "closed.mp4": {"options": {"x264-params": f"{GROUPS}:bframes=3"}},
    "open.mp4": {"options": {"x264-params": f"{GROUPS}:bframes=3:open-gop=1"}},
    "open.mkv": {"options": {"x264-params": f"{GROUPS}:bframes=3:open-gop=1"}},
    "open.ts": {"options": {"x264-params": f"{GROUPS}:bframes=3:open-gop=1"}},
    "refresh.mp4": {"options": {"x264-params": f"{GROUPS}:bframes=0:intra-refresh=1"}},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": f"{GROUPS}:bframes=3:open-gop=1:log-level=none"},
    },
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "late.mp4": {"start": 900_000},
}


@pytest.fixture(params=FILMS)
def film(request, tmp_path):
    kind = dict(FILMS[request.param])
    start = kind.pop("start", 0)
    if kind.get("codec") in ("mpeg4", "mpeg2video"):
        return write_film(tmp_path / request.param, range(60), time_base=Fraction(1, 30), **kind)
    return write_film(tmp_path / request.param, [start + time for time in even(60)], **kind)


def pixels(frame):
    return frame.to_ndarray(format="rgb24").tobytes()


def test_from_any_frame_on_the_rest_is_the_same_to_the_last_bit(film):
    pts = probe(str(film), film.name).pts.tolist()
    with Decoder(str(film), film.name) as decoder:
        whole = [(time, pixels(frame)) for time, frame in decoder.frames_from(pts[0])]
        assert [time for time, _ in whole] == pts
        for at in (59, 1, 11, 12, 13, 23, 24, 35, 36, 47, 58):
            frames = decoder.frames_from(pts[at])
            assert [(time, pixels(frame)) for (time, frame), _ in zip(frames, range(14), strict=False)] == whole[
                at : at + 14
            ]


def test_a_time_between_frames_gives_the_next_frame_and_one_after_the_end_none(film):
    pts = probe(str(film), film.name).pts.tolist()
    step = pts[31] - pts[30]
    with Decoder(str(film), film.name) as decoder:
        if step > 1:
            assert next(decoder.frames_from(pts[30] + 1))[0] == pts[31]
        assert next(decoder.frames_from(pts[-1] + 100 * step), None) is None


def test_packet_times_are_the_frames_or_not_given_at_all(film):
    pts = probe(str(film), film.name).pts.tolist()
    with Decoder(str(film), film.name) as decoder:
        packets = decoder.packets_between(pts[10], pts[40], 31)
        assert packets is None or [packet.pts for packet in packets] == pts[10:41]
        if film.suffix in (".mp4", ".mkv"):
            assert packets, "these containers name the time of every packet"
            assert decoder.packets_between(pts[10], pts[40], 30) is None


def test_closing_frees_the_file_and_may_be_repeated(tmp_path):
    film = write_film(tmp_path / "a.mp4", even(3))
    decoder = Decoder(str(film), "a.mp4")
    assert is_open(film)
    decoder.close()
    decoder.close()
    assert not is_open(film)


def is_open(path):
    """Whether this process holds the file (Linux: /proc/self/fd)."""
    return path.resolve() in {link.resolve() for link in Path("/proc/self/fd").iterdir()}


def test_damage_is_reported_up_to_the_next_keyframe_and_no_further(tmp_path):
    film = write_film(tmp_path / "a.mp4", even(60), options={"x264-params": f"{GROUPS}:bframes=0"})
    pts = probe(str(film), film.name).pts.tolist()
    damage_packet(film, 18)
    with Decoder(str(film), film.name) as decoder:
        with pytest.raises(InputError, match=r"a\.mp4 is damaged"):
            list(decoder.frames_from(pts[0]))
        with pytest.raises(InputError, match=r"a\.mp4 is damaged"):
            next(decoder.frames_from(pts[20]))  # it would be built on the damaged one
        assert next(decoder.frames_from(pts[24]))[0] == pts[24]


def damage_packet(film, number):
    """Overwrite what the numbered packet holds, leaving its length and every index as they are."""

    with av.open(str(film)) as container:
        packet = [p for p in container.demux(video=0) if p.size][number]
        place, size = packet.pos, packet.size
    data = bytearray(film.read_bytes())
    data[place + 4 : place + size] = b"\xff" * (size - 4)
    film.write_bytes(data)
