"""Recordings are read as they are, windows have the published shapes, and no target is in its own history."""

import re

import numpy as np
import pytest
import torch

from models.trackssm import memory
from tests.train_jobs.trackssm.conftest import write_mot
from train_jobs.trackssm.errors import BadTracks
from train_jobs.trackssm.samples import Detector, detected, public_samples, residual_samples
from train_jobs.trackssm.tracks import check_one_rate, read_folder
from train_jobs.trackssm.windows import Windows, ways

NOTHING_MISSED = Detector(noise=0.0, missed=0.0, gap_share=0.0)


def batch_of(sequences, length=20, mirror=0.0, stride=1, most=300, count=4):
    windows, rng = Windows(sequences, length, most), np.random.default_rng(0)
    return windows.batch([windows.window(k % len(windows), stride) for k in range(count)], rng, mirror)


def test_the_three_kinds_of_folders_hold_the_same_boxes(mot, tmp_path):
    (sequence,), _ = read_folder(mot)
    assert sequence.rate_hz == 30 and len(sequence.time_s) == 60 and not sequence.way_known
    np.testing.assert_allclose(sequence.box_px[0], [103 + 20, 51 + 45, 40, 90])
    for name in ("A", "B"):
        (tmp_path / "labels" / name).mkdir(parents=True)
        for k in range(3):
            mine = sequence.id == k
            share = sequence.box_px[mine] / [1000, 500, 1000, 500]
            rows = [f"0 {f + 1} {' '.join(map(str, b))} 1" for f, b in zip(sequence.frame[mine], share, strict=True)]
            (tmp_path / "labels" / name / f"{k:04d}.txt").write_text("\n".join(rows))
    (labels,), _ = read_folder(tmp_path / "labels", rate_hz=30)
    np.testing.assert_array_equal(labels.frame, sequence.frame)
    np.testing.assert_array_equal(labels.id, sequence.id)
    np.testing.assert_allclose(labels.box_px / 1000, sequence.box_px / [1000, 500, 1000, 500])


def test_a_conversion_comes_with_times_poses_and_splits(conversion):
    train, held_out = read_folder(conversion)
    assert len(train) == 12 and len(held_out) == 6
    s = train[0]
    assert s.way_known and 5 < s.rate_hz < 20 and np.diff(s.time_s).min() > 0
    rotation = s.global_from_camera[:, :, :3]
    np.testing.assert_allclose(
        rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (len(rotation), 1, 1)), atol=1e-9
    )


def test_the_batch_has_the_published_loaders_names_and_shapes(conversion):
    train, _ = read_folder(conversion)
    batch = batch_of(train)
    form = batch.seed_form()
    b, t, n = 4, 20, batch.track_ids.shape[1]
    shapes = {k: tuple(v.shape) for k, v in form.items() if isinstance(v, torch.Tensor)}
    assert shapes == {"condition": (b, t, n, 4), "cur_bbox": (b, n, 4), "track_ids": (b, t, n),
                      "class_ids": (b, t, n), "padding_mask": (b, t, n)}  # fmt: skip
    assert form["track_ids"].dtype == form["class_ids"].dtype == torch.int64
    assert form["padding_mask"].dtype == torch.bool and form["condition"].dtype == torch.float32
    hidden = form["padding_mask"]
    assert (form["condition"][hidden] == 0).all() and (form["track_ids"][hidden] == -1).all()
    assert (form["condition"][~hidden][:, 2:] > 0).all() and (form["track_ids"][~hidden] >= 0).all()
    assert (
        form["seq_names"][0] == train[0].name and form["start_frames"] == [1, 11, 21, 31][:1] + form["start_frames"][1:]
    )
    rows = (train[0].frame == 3) & (train[0].id == batch.track_ids[0, 0])
    if rows.any():  # the first track's fourth frame is where the file says
        share = train[0].box_px[rows][0] / np.tile(train[0].image_wh, 2)
        np.testing.assert_allclose(form["condition"][0, 3, 0], share, atol=1e-6)


@pytest.mark.parametrize("sampled", [public_samples, residual_samples])
def test_no_target_is_in_its_own_condition(sampled, conversion):
    """Whatever is done to the target frame's boxes, the histories stay the same to the last bit."""
    train, _ = read_folder(conversion)
    for target in range(8, 21):
        batch = batch_of(train)
        cut = type(batch)(*(getattr(batch, name) for name in type(batch).__slots__))
        moved = cut.box_px.copy()
        moved[:, target:] = moved[:, target:] * 0.5 + 111.0
        changed = type(batch)(moved, *(getattr(batch, name) for name in type(batch).__slots__[1:]))
        first, second = (sampled(each, NOTHING_MISSED, np.random.default_rng(0)) for each in (batch, changed))
        inputs, _, *_ = (getattr(first, name) for name in type(first).__slots__)
        others, *_ = (getattr(second, name) for name in type(second).__slots__)
        # Samples come in the order of their target frames: those up to the first moved one must not have changed.
        upto = _samples_upto(sampled, batch, target)
        assert upto > 0
        assert torch.equal(inputs[:upto], others[:upto])


def _samples_upto(sampled, batch, target):
    cut = ("box_px", "there", "time_s", "image_from_before", "camera_from_before")
    values = ((name, getattr(batch, name)) for name in type(batch).__slots__)
    shorter = type(batch)(*(value[:, : target + 1] if name in cut else value for name, value in values))
    return len(sampled(shorter, NOTHING_MISSED, np.random.default_rng(0)))


def test_the_last_row_of_a_condition_is_the_frame_before_the_target(mot):
    sequences, _ = read_folder(mot)
    s = public_samples(batch_of(sequences), NOTHING_MISSED, np.random.default_rng(0))
    step = torch.tensor([3 / 1000, 1 / 500, 0, 0])
    torch.testing.assert_close(s.target, s.condition[:, -1, :4] + step.expand(len(s), 4))
    torch.testing.assert_close(s.condition[:, :, 4:], step.expand(len(s), 5, 4), atol=1e-6, rtol=0)


def test_samples_do_not_reach_across_a_gap(mot):
    sequences, _ = read_folder(mot)
    s = public_samples(batch_of(sequences, length=40, count=1), NOTHING_MISSED, np.random.default_rng(0))
    # Track 1: 41 frames, track 2: 24 and then 7 frames; a sample takes seven in a row.
    assert len(s) == (41 - 6) + (24 - 6) + (7 - 6)


def test_a_mirrored_window_is_the_mirror_of_the_samples(conversion):
    train, _ = read_folder(conversion)
    plain, mirrored = (batch_of(train, mirror=m) for m in (0.0, 1.0))
    kept, turned = (public_samples(b, NOTHING_MISSED, np.random.default_rng(0)) for b in (plain, mirrored))
    sign = torch.tensor([-1.0, 1, 1, 1])
    torch.testing.assert_close(turned.condition[..., 4:], kept.condition[..., 4:] * sign, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.condition[..., 0], 1 - kept.condition[..., 0], atol=1e-5, rtol=0)
    a, b = (residual_samples(each, NOTHING_MISSED, np.random.default_rng(0)) for each in (plain, mirrored))
    width = train[0].image_wh[0]
    np.testing.assert_allclose(b.base_px[:, 0], width - a.base_px[:, 0], atol=1e-2)
    np.testing.assert_allclose(b.tokens[..., 0], -a.tokens[..., 0], atol=1e-3)  # where observations lie sideways
    np.testing.assert_allclose(b.tokens[..., 6], -a.tokens[..., 6], atol=1e-3)  # where the camera stood


def test_noise_is_relative_to_the_box_not_to_the_image():
    rng, wh = np.random.default_rng(0), np.array([1000.0, 1000.0])
    boxes = np.tile([[500.0, 500, 20, 20], [500, 500, 400, 400]], (5000, 1))
    spread = (detected(boxes, 0.03, wh, rng) - boxes).reshape(-1, 2, 4).std(axis=0)
    np.testing.assert_allclose(spread[1], 20 * spread[0], rtol=0.05)
    np.testing.assert_allclose(spread[0], 20 * 0.03 * np.array([2**-0.5, 2**-0.5, 2**0.5, 2**0.5]), rtol=0.05)


def test_the_camera_way_carries_points_from_frame_to_frame(conversion):
    (s, *_), _ = read_folder(conversion)
    homography, rigid = ways(s.global_from_camera, s.intrinsics_px)
    rng = np.random.default_rng(0)
    for k in range(1, 10):
        point = rng.normal(0, 20, 3) + np.array([0, 0, 60])  # in the camera before
        pose = s.global_from_camera
        world = pose[k - 1, :, :3] @ point + pose[k - 1, :, 3]
        now = pose[k, :, :3].T @ (world - pose[k, :, 3])
        np.testing.assert_allclose(rigid[k, :, :3] @ point + rigid[k, :, 3], now, atol=1e-6)
        far = s.intrinsics_px[k] @ pose[k, :, :3].T @ pose[k - 1, :, :3] @ point
        image = homography[k] @ s.intrinsics_px[k - 1] @ point
        np.testing.assert_allclose(image / image[2], far / far[2], atol=1e-6)


def test_memory_puts_a_standing_object_where_the_turned_camera_sees_it(conversion):
    """What the network is told of the past is what the filter knows, seen from now."""
    boxes = np.array([[300.0, 200, 40, 30], [900, 500, 80, 60]])
    turn = np.array([[1.0, 0, 50], [0, 1, 0], [0, 0, 1]])
    way = memory.Way(np.full(2, 0.1), np.tile(turn, (2, 1, 1)), np.tile(np.eye(3, 4), (2, 1, 1)),
                     np.tile([1000.0, 800, 450], (2, 1)), np.ones(2, bool))  # fmt: skip
    now = memory.advanced(memory.born(boxes), way)
    np.testing.assert_allclose(now.boxes[:, -1], boxes + np.array([50, 0, 0, 0]))
    np.testing.assert_allclose(now.mean[:, :4], boxes + np.array([50, 0, 0, 0]))
    tokens = memory.tokens(now, way, np.array([0, 4]))
    assert tokens.shape == (2, memory.KEPT, memory.FEATURES)
    np.testing.assert_allclose(tokens[:, -1, :4], 0, atol=1e-6)
    assert (tokens[:, :-1] == 0).all()


def test_windows_longer_than_every_sequence_are_refused(mot):
    sequences, _ = read_folder(mot)
    with pytest.raises(BadTracks, match="the longest, A, has 60"):
        Windows(sequences, 60, 300)


def test_more_tracks_than_places_are_thinned_not_cut_off(conversion):
    train, _ = read_folder(conversion)
    assert batch_of(train, most=2).track_ids.shape[1] == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [("7,1,nan,1,5,5,1,1,1", "line 2: a value is not a finite number"), ("7,1,1,1,5,0,1,1,1", "has no area"),
     ("1,1,1,1,5,5,1,1,1", "an id stands twice"), ("99,1,1,1,5,5,1,1,1", "beyond the 60"), ("7,x", "not a table")],
)  # fmt: skip
def test_bad_boxes_are_named(line, said, tmp_path):
    for name in ("A", "B"):
        write_mot(tmp_path / name, {1: [1]})
    (tmp_path / "A/gt/gt.txt").write_text(f"1,1,1,1,5,5,1,1,1\n{line}\n")
    with pytest.raises(BadTracks, match=said):
        read_folder(tmp_path)


@pytest.mark.parametrize("text", ["frameRate=30\n", "[Sequence]\nname=A\nname=A\n", "[Sequence]\nseqLength=60\n", ""])
def test_a_sequence_without_its_facts_is_named(text, tmp_path):
    for name in ("A", "B"):
        write_mot(tmp_path / name, {1: [1]})
    (tmp_path / "A/seqinfo.ini").write_text(text)
    with pytest.raises(BadTracks, match=r"A/seqinfo\.ini has no usable"):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", ["frameRate", "seqLength", "imWidth", "imHeight"])
def test_a_sequence_with_nothing_of_something_is_refused(name, tmp_path):
    for folder in ("A", "B"):
        write_mot(tmp_path / folder, {1: [1]})
    path = tmp_path / "A" / "seqinfo.ini"
    path.write_text(re.sub(f"{name}=.*", f"{name}=0", path.read_text()))
    with pytest.raises(BadTracks, match=r"A/seqinfo\.ini: frameRate, .* must be positive"):
        read_folder(tmp_path)


def test_mixed_rates_and_empty_folders_are_refused(tmp_path):
    write_mot(tmp_path / "A", {1: range(1, 40)}, rate=30)
    with pytest.raises(BadTracks, match="holds 1 sequences, expected two"):
        read_folder(tmp_path)
    write_mot(tmp_path / "B", {1: range(1, 40)}, rate=25)
    train, held_out = read_folder(tmp_path)
    with pytest.raises(BadTracks, match="B has 25 Hz, A has 30 Hz"):
        check_one_rate([*train, *held_out], "why")
