"""Overlays: what is drawn where, and a video whose times are the clip's."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from data_jobs.egoworld.clip_tables import ClipTables, HandRow, MaskRow
from data_jobs.egoworld.manifest import build_manifest, clips
from data_jobs.egoworld.overlay import OBJECT_RGB, SIDE_RGB, draw, even_sized, shrunk, write_overlay_video
from data_jobs.egoworld.splitters import FixedStride
from data_jobs.runs.errors import InputError

GREY = 128
# Milliseconds between frames, none like the next: a variable frame rate.
STEPS_MS = (33, 34, 33, 120, 10, 33, 250, 33, 33, 47, 33, 33)


def grey(height=240, width=320):
    return np.full((height, width, 3), GREY, np.uint8)


def square(top, left, side, shape=(240, 320)):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def hand_at(x, y, side="left"):
    joints = np.arange(21, dtype=np.float32)
    return HandRow(0, side, 0.9, np.stack([x + 3 * (joints % 5), y + 4 * (joints // 4)], axis=1))


def rle_of(mask):
    coded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return json.dumps({"size": list(coded["size"]), "counts": coded["counts"].decode()})


def mask_entry(frame_index, pts, mask, object_id=0):
    return {
        "frame_index": frame_index,
        "pts": pts,
        "object_id": object_id,
        "class": "" if object_id < 0 else "cup",
        "score": 0.8,
        "mask_rle": rle_of(mask),
    }


def write_vfr(path, width=320, height=240):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", options={"crf": "10"})
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = Fraction(1, 1000)
        pts = 0
        for step in STEPS_MS:
            frame = av.VideoFrame.from_ndarray(grey(height, width), format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            container.mux(stream.encode(frame))
            pts += step
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_vfr(folder / "vfr.mp4")
    return next(clips(build_manifest([folder], FixedStride()).clip_table))


def decoded(path):
    with av.open(str(path)) as container:
        return [(frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_a_mask_of_this_frame_tints_its_inside_and_nothing_far_away():
    picture = draw(grey(), [], [MaskRow(1, "cup", 0.8, square(100, 150, 60))])
    inside = picture[130, 180].astype(int)
    towards = np.array(OBJECT_RGB[1]) - GREY
    assert np.all(np.sign(inside - GREY) == np.sign(towards))
    assert np.array_equal(picture[220, 20], grey()[220, 20])


def test_an_older_mask_is_an_outline_that_fades_but_stays():
    mask = square(100, 150, 60)
    strengths = []
    for age_s in (0.2, 1.0, 2.0, 60.0):
        picture = draw(grey(), [], [MaskRow(0, "cup", 0.8, mask, age_s)])
        assert np.array_equal(picture[130, 180], grey()[130, 180])  # the inside is untouched
        strengths.append(int(np.abs(picture[159, 160:200].astype(int) - GREY).max()))
    assert strengths[0] > strengths[1] > strengths[2] > 20
    assert strengths[2] == strengths[3]


def test_objects_keep_their_colour_wherever_they_are_listed():
    rows = [MaskRow(n, "cup", 0.8, square(20 + 70 * n, 100, 40)) for n in range(3)]
    forwards, backwards = draw(grey(), [], rows), draw(grey(), [], rows[::-1])
    for n in range(3):
        centre = (40 + 70 * n, 120)
        assert np.array_equal(forwards[centre], backwards[centre])


def test_left_and_right_hands_differ_in_more_than_their_letters():
    left, right = draw(grey(), [hand_at(150, 100)], []), draw(grey(), [hand_at(150, 100, "right")], [])
    for picture, own, other in ((left, "left", "right"), (right, "right", "left")):
        pixels = picture.reshape(-1, 3)
        assert (pixels == SIDE_RGB[own]).all(axis=1).any()
        assert not (pixels == SIDE_RGB[other]).all(axis=1).any()


def test_the_given_image_is_not_changed():
    image = grey()
    image.flags.writeable = False
    draw(image, [hand_at(150, 100)], [MaskRow(0, "cup", 0.8, square(10, 10, 50))])
    assert (image == GREY).all()


def test_a_mask_of_another_size_is_refused_by_name():
    with pytest.raises(ValueError, match="object 7"):
        draw(grey(), [], [MaskRow(7, "cup", 0.8, square(0, 0, 5, (10, 10)))])


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(2, 200),
    width=st.integers(2, 200),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
    label=st.text(max_size=40),
)
def test_anything_can_be_drawn_on_any_size(height, width, x, y, label):
    mask = np.zeros((height, width), bool)
    mask[0, 0] = mask[-1, -1] = True
    hands = [hand_at(x, y), hand_at(x, y, "right")]
    picture = draw(grey(height, width), hands, [MaskRow(n, label, 0.5, mask, n / 2) for n in range(3)])
    assert picture.shape == (height, width, 3)
    assert even_sized(picture).shape[0] % 2 == even_sized(picture).shape[1] % 2 == 0
    assert max(shrunk(picture, 50).shape[:2]) <= 50


def test_labels_do_not_cover_each_other():
    masks = [MaskRow(n, "a cup", 0.8, square(100, 100, 40)) for n in range(4)]
    together = draw(grey(), [], masks)
    # Four labels at one place: each solid box keeps a row of its own colour.
    for n in range(4):
        assert (together.reshape(-1, 3) == OBJECT_RGB[n]).all(axis=1).sum() > 300


def test_masks_are_those_of_the_last_prompted_frame_with_their_age():
    base = Fraction(1, 1000)
    empty = np.zeros((240, 320), bool)
    tables = ClipTables([], [mask_entry(1, 100, square(0, 0, 9)), mask_entry(5, 500, empty, object_id=-1)])
    assert tables.masks_at(99, base) == []
    assert [row.age_s for row in tables.masks_at(100, base)] == [0.0]
    assert [row.age_s for row in tables.masks_at(350, base)] == [0.25]
    assert tables.masks_at(500, base) == []  # looked at, nothing found: the old outline ends
    assert dict(tables.prompted_frames()) == {1: 1, 5: 0}


def test_the_videos_times_are_the_clips_and_masks_are_in_it(clip, tmp_path):
    tables = ClipTables([], [mask_entry(0, clip.start_pts, square(100, 150, 60))])
    path = tmp_path / "deeper" / "overlay.mp4"
    write_overlay_video(clip, tables, path, comment="what it was drawn from")
    frames = decoded(path)
    wanted = np.cumsum([0, *STEPS_MS[:-1]])
    assert [round(time * 1000) for time, _ in frames] == wanted.tolist()
    assert np.abs(frames[0][1][130, 180].astype(int) - (np.array(OBJECT_RGB[0]) * 0.42 + GREY * 0.58)).max() < 12
    assert np.abs(frames[5][1][130, 180].astype(int) - GREY).max() < 6
    assert [entry.name for entry in path.parent.iterdir()] == ["overlay.mp4"]
    with av.open(str(path)) as container:
        assert container.metadata["comment"] == "what it was drawn from"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_a_browser_can_start_before_the_file_has_come(clip, tmp_path):
    write_overlay_video(clip, ClipTables([], []), tmp_path / "overlay.mp4")
    raw = (tmp_path / "overlay.mp4").read_bytes()
    assert 0 < raw.index(b"moov") < raw.index(b"mdat")


def test_the_same_clip_gives_the_same_bytes(clip, tmp_path):
    tables = ClipTables([], [mask_entry(0, clip.start_pts, square(100, 150, 60))])
    for name in ("a.mp4", "b.mp4"):
        write_overlay_video(clip, tables, tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_lost_video_is_an_input_error_and_leaves_nothing(tmp_path):
    write_vfr(tmp_path / "lost.mp4")
    clip = next(clips(build_manifest([tmp_path], FixedStride()).clip_table))
    (tmp_path / "lost.mp4").write_bytes(b"no video")
    with pytest.raises(InputError):
        write_overlay_video(clip, ClipTables([], []), tmp_path / "out" / "overlay.mp4")
    assert list((tmp_path / "out").iterdir()) == []
