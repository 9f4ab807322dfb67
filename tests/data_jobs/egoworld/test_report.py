"""The report of a run: one safe file, whose numbers, pictures and timelines are those of the tables."""

import base64
import json
import re
from fractions import Fraction
from html.parser import HTMLParser

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from data_jobs.egoworld.clip_tables import read_clip_tables
from data_jobs.egoworld.manifest import build_manifest, clips
from data_jobs.egoworld.manifest_files import write_manifest
from data_jobs.egoworld.report import write_report
from data_jobs.egoworld.report_clips import TIMELINE_WIDTH, chosen_frames, lanes_of, runs_of
from data_jobs.egoworld.report_data import summarise
from data_jobs.egoworld.schemas import schema_of
from data_jobs.egoworld.splitters import FixedStride
from data_jobs.runs.errors import RunError
from data_jobs.runs.outcome import DeadLetter

ODD_NAME = "a <b>bold<i> & 'odd' \"näme\" #1 %20.mp4"
HOSTILE = "<script>alert('x')</script><img src=http://example.org/x.png onerror=alert(1)>"
VOID = {"meta", "img", "rect", "link", "br"}
FRAMES, RATE_HZ = 40, 20


class Page(HTMLParser):
    """Collects elements and their attributes, and checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def write_video(path, frames=FRAMES):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE_HZ)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for index in range(frames):
            image = np.full((120, 160, 3), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def times(clip, frame):
    step = (clip.end_pts - clip.start_pts) // (clip.frame_count - 1)
    pts = clip.start_pts + (frame - clip.frame_start) * step
    return {"frame_index": frame, "pts": pts, "timestamp_s": float(pts * clip.time_base)}


def hand(clip, frame, side):
    landmarks = np.column_stack([np.linspace(40, 90, 21), np.linspace(30, 80, 21), np.zeros(21)]).ravel()
    return times(clip, frame) | {
        "pose": [0.0] * 63,
        "hand_id": 0,
        "handedness": side,
        "handedness_score": 0.9,
        "score": 0.8,
        "landmarks_px": landmarks.tolist(),
        "box": [40.0, 30.0, 90.0, 80.0],
    }


def mask(clip, frame, object_id):
    pixels = np.zeros((120, 160), np.uint8)
    pixels[20:100, 30:120] = object_id >= 0
    coded = coco_mask.encode(np.asfortranarray(pixels))
    rle = json.dumps({"size": list(coded["size"]), "counts": coded["counts"].decode()})
    return times(clip, frame) | {
        "mask_rle": rle,
        "object_id": object_id,
        "class": "held_object" if object_id >= 0 else "",
        "score": 0.7,
        "box": [30.0, 20.0, 120.0, 100.0],
        "predicted_iou": 0.9,
        "stability": 0.9,
        "prompt": "hand_box" if object_id >= 0 else "",
    }


def publish(run, clip, hands, masks):
    folder = run / f"video_id={clip.video_id}" / f"clip_id={clip.clip_id}"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(hands, schema_of("hand_pose")), folder / "hand_pose.parquet")
    pq.write_table(pa.Table.from_pylist(masks, schema_of("masks")), folder / "masks.parquet")
    (folder / "meta.json").write_text("{}", encoding="utf-8")
    return folder


def new_run(tmp_path, names=(ODD_NAME,), record=None):
    """A run folder with a manifest of freshly made videos and nothing done yet."""
    videos, run = tmp_path / "videos", tmp_path / "out" / "run_id=one"
    videos.mkdir()
    run.mkdir(parents=True)
    for extra, name in enumerate(names):
        write_video(videos / name, FRAMES + extra)
    manifest = build_manifest([videos], FixedStride())
    write_manifest(manifest, run / "manifests")
    (run / "run_manifest.json").write_text(json.dumps(record or {"run_id": "one"}), encoding="utf-8")
    return run, list(clips(manifest.clip_table))


def bury(run, name, **changes):
    letter = {
        "video_path": "/videos/x.mp4",
        "video_id": None,
        "clip_id": None,
        "stage": "sam2",
        "cause": "input",
        "error_type": "InputError",
        "message": "damaged",
        "attempts": 1,
        "traceback_sha256": "",
        "repro": "python -m data_jobs.egoworld retry --run RUN_FOLDER --clip c --engine local",
    } | changes
    (run / "dead_letter").mkdir(exist_ok=True)
    (run / "dead_letter" / f"{name}.json").write_bytes(DeadLetter(**letter).to_bytes())


def found_some(run, clip):
    hands = [hand(clip, frame, "left") for frame in range(4, 12)] + [
        hand(clip, frame, "right") for frame in (*range(8, 10), *range(30, 40))
    ]
    masks = [mask(clip, 0, -1), mask(clip, 10, 0), mask(clip, 10, 1), mask(clip, 20, 0), mask(clip, 30, -1)]
    return publish(run, clip, hands, masks)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    run, (clip,) = new_run(
        tmp_path_factory.mktemp("run"),
        record={
            "run_id": HOSTILE,
            "state": "finished",
            "proof": "planned 3 = done 1 + dead 2",
            "tree_sha256": "ab" * 32,
            "stages": {"hamer": {"attempts": 4, "failed": 1, "seconds": 10.0}},
            "speed_of_light": {"frames_per_s": 31.4, "bare_frames_per_s": 33.0, "ratio": 0.951, "sample_clips": 1},
        },
    )
    found_some(run, clip)
    bury(run, "a", message=HOSTILE, video_path=f"/videos/{ODD_NAME}")
    bury(run, "b", message=HOSTILE, video_path=f"/videos/{ODD_NAME}")
    return run, clip, Page(write_report(run).read_text(encoding="utf-8"))


def test_the_page_asks_nothing_of_a_network(reported):
    run, _, page = reported
    raw = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    for _, attrs in page.elements:
        for name in ("src", "href", "srcset", "data", "action"):
            assert re.match(r"^(data:image/jpeg;base64,|overlay/)", attrs.get(name, "overlay/"))
    style = raw[raw.index("<style>") : raw.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_names_and_messages_stay_text(reported):
    _, _, page = reported
    assert HOSTILE in page.text
    assert ODD_NAME in page.text
    assert len(page.all("b")) == 7  # the tiles, none from the name
    assert page.all("i") == []
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)


def test_headline_counts_are_those_of_the_tables(reported):
    run, _, page = reported
    summary = summarise(run)
    assert (summary.videos, summary.planned_clips, len(summary.clips), summary.dead_count) == (1, 1, 1, 2)
    assert (summary.frames, summary.hand_rows, summary.mask_rows) == (FRAMES, 20, 3)
    for words in ("20 hand poses", "3 masks", "2 dead letters", "planned 3 = done 1 + dead 2", "ab" * 32, "95%"):
        assert words in page.text


def test_equal_failures_are_one_group_with_a_command_that_can_be_run(reported):
    run, _, page = reported
    (group,) = summarise(run).dead_groups
    assert group.count == 2
    assert str(run) in group.example.repro
    assert "RUN_FOLDER" not in page.text
    assert f"--run {run} --clip c" in page.text


def test_pictures_hold_the_masks_and_hands(reported):
    _, _, page = reported
    pictures = []
    for attrs in page.all("img"):
        data = base64.b64decode(attrs["src"].removeprefix("data:image/jpeg;base64,"))
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape[:2] == (int(attrs["height"]), int(attrs["width"]))
        pictures.append(image)
    assert len(pictures) == 4
    # Frame 10 has two masks over (35, 105), frame 0's stretch has none there: grey.
    assert np.abs(pictures[0][90, 35].astype(int) - 128).max() < 12
    assert np.abs(pictures[1][90, 35].astype(int) - 128).max() > 25


def test_each_stretch_shows_its_fullest_frame(reported):
    run, clip, _ = reported
    tables = read_clip_tables(next(run.glob("video_id=*/clip_id=*")))
    first, second, third, fourth = chosen_frames(clip, tables)
    assert first in (8, 9)  # left and right
    assert second == 10  # one hand and two masks
    assert third == 20  # one mask, no hands
    assert 30 <= fourth < 40


def test_timeline_spans_are_the_rows(reported):
    run, clip, page = reported
    left, right, masks = lanes_of(clip, read_clip_tables(next(run.glob("video_id=*/clip_id=*"))))
    unit = TIMELINE_WIDTH / FRAMES
    assert left.spans == ((4 * unit, 8 * unit),)
    assert right.spans == ((8 * unit, 2 * unit), (30 * unit, 10 * unit))
    assert masks.spans == ((10 * unit, unit), (20 * unit, unit))
    assert (left.share, right.share, masks.share) == (0.2, 0.3, 0.5)
    drawn = [(attrs["class"], float(attrs["x"]), float(attrs["width"])) for attrs in page.all("rect")]
    assert drawn == [(lane.kind, *span) for lane in (left, right, masks) for span in lane.spans]


def test_the_overlay_is_linked_and_kept_while_its_tables_stay(reported):
    run, clip, page = reported
    (link,) = page.all("a")
    overlay = run / "report" / link["href"]
    assert overlay.name == f"{clip.clip_id}.mp4"
    before = overlay.stat().st_mtime_ns
    write_report(run)
    assert overlay.stat().st_mtime_ns == before
    folder = next(run.glob("video_id=*/clip_id=*"))
    pq.write_table(pa.Table.from_pylist([], schema_of("masks")), folder / "masks.parquet")
    write_report(run)
    assert overlay.stat().st_mtime_ns > before


@given(st.sets(st.integers(0, 60)))
def test_runs_cover_the_frames_and_bridge_only_single_ones(frames):
    covered = {frame for start, end in runs_of(frames) for frame in range(start, end)}
    assert frames <= covered
    assert all({frame - 1, frame + 1} <= frames for frame in covered - frames)


def test_a_run_with_nothing_done_gives_a_plain_page(tmp_path):
    run, _ = new_run(tmp_path)
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "This run has not finished." in page.text
    assert "1 clip is not done yet" in page.text
    assert "No clip is done" in page.text
    assert page.all("img") == []


def test_more_clips_than_are_shown_says_so_and_shows_the_fullest(tmp_path):
    run, (poor, rich) = new_run(tmp_path, ("poor.mp4", "rich.mp4"))
    publish(run, poor, [], [mask(poor, 0, -1)])
    found_some(run, rich)
    page = Page(write_report(run, clips_shown=1).read_text(encoding="utf-8"))
    assert "Showing 1 of 2 done clips: those in which most" in page.text
    assert [word for word in page.words if word.endswith(".mp4")] == ["rich.mp4"]
    assert len(list((run / "report" / "overlay").iterdir())) == 1


def test_a_clip_without_tables_or_video_says_why(tmp_path):
    run, (clip,) = new_run(tmp_path)
    (run / f"video_id={clip.video_id}" / f"clip_id={clip.clip_id}").mkdir(parents=True)
    (tmp_path / "videos" / ODD_NAME).unlink()
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "No pictures:" in page.text
    assert page.all("a") == []


def test_what_is_no_run_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(RunError, match="there is no run folder"):
        write_report(tmp_path / "nowhere")


def test_a_broken_table_or_letter_is_named(tmp_path):
    run, (clip,) = new_run(tmp_path)
    folder = found_some(run, clip)
    (folder / "masks.parquet").write_bytes(b"no table")
    with pytest.raises(RunError, match=clip.clip_id):
        write_report(run)
    (run / "dead_letter").mkdir()
    (run / "dead_letter" / "x.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match=r"x\.json is no dead letter"):
        write_report(run)
