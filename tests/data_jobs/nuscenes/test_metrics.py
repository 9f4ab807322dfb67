"""metrics.py against TrackEval 1.3.0's stored numbers on real sequences, and against its own properties."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_jobs.nuscenes.evaluate import check_detections_agree, scoreable
from data_jobs.nuscenes.matching import Boxes
from data_jobs.nuscenes.metrics import class_averaged, combined, score_sequence
from data_jobs.nuscenes.mot_files import read_mot, rows_of_table
from data_jobs.runs.errors import RunError

NOISE = runpy.run_path(str(Path(__file__).with_name("mot_noise.py")))
noisy_tracks, sequences = NOISE["noisy_tracks"], NOISE["sequences"]
EXPECTED = json.loads(Path(__file__).with_name("expected_trackeval.json").read_text())
DISTRACTORS = (2, 7, 8, 12)  # person on vehicle, static person, distractor, reflection


def mot_score(sequence, bench, tracks):
    """As MOTChallenge scores: MOT15 has no classes; MOT17 counts class 1 and takes distractors out."""
    truth = read_mot(sequence / "gt/gt.txt")
    counted = truth.score != 0
    void = np.zeros(len(truth.frame), dtype=bool)
    if bench == "MOT17":
        void = np.isin(truth.class_id, DISTRACTORS)
        counted &= truth.class_id == 1
    return score_sequence(*scoreable(truth.boxes, counted, void, tracks)[:2])


def test_equals_trackeval_on_every_sequence_and_combined(shared_dir):
    per_bench = {"MOT15": [], "MOT17": []}
    for seed, (bench, sequence) in enumerate(sequences(shared_dir / "data/mot")):
        truth = np.loadtxt(sequence / "gt/gt.txt", delimiter=",")
        tracks = rows_of_table(noisy_tracks(truth, seed)[:, :9]).boxes
        score = mot_score(sequence, bench, tracks)
        per_bench[bench].append(score)
        compare(score.ratios(), EXPECTED[bench][sequence.name])
    for bench, scores in per_bench.items():
        compare(combined(scores).ratios(), EXPECTED[bench]["COMBINED_SEQ"])


def compare(got, expected):
    for name, value in got.items():
        assert value == pytest.approx(expected[name], abs=1e-9, rel=1e-9), name


def boxes_of(seed, frames=30, objects=8, noise=0.0):
    rng = np.random.default_rng(seed)
    start, speed = rng.uniform(0, 400, (objects, 2)), rng.normal(0, 4, (objects, 2))
    frame, identity = (g.ravel() for g in np.meshgrid(np.arange(frames), np.arange(objects), indexing="ij"))
    xy = start[identity] + frame[:, None] * speed[identity]
    xywh = np.concatenate([xy, np.full((len(frame), 2), 40.0)], axis=1)
    return Boxes(frame, identity, xywh + noise * rng.normal(size=xywh.shape))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_perfect_tracks_score_one_and_renaming_changes_nothing(seed):
    truth = boxes_of(seed)
    renamed = Boxes(truth.frame, 1000 - 7 * truth.id, truth.xywh_px)
    ratios = score_sequence(truth, renamed).ratios()
    assert ratios["HOTA"] == ratios["MOTA"] == ratios["IDF1"] == pytest.approx(1.0)
    noisy = boxes_of(seed, noise=2.0)
    shuffled = np.random.default_rng(seed).permutation(len(noisy.id))
    again = Boxes.sorted(noisy.frame[shuffled], noisy.id[shuffled], noisy.xywh_px[shuffled])
    for name, value in score_sequence(truth, noisy).ratios().items():
        assert score_sequence(truth, again).ratios()[name] == pytest.approx(value, abs=1e-12), name


def test_one_swap_costs_switches_and_association_but_not_detection():
    truth = Boxes(
        np.repeat(np.arange(10), 2),
        np.tile([0, 1], 10),
        np.tile([[0.0, 0, 10, 10], [50, 0, 10, 10]], (10, 1)),
    )
    swapped = Boxes(truth.frame, np.where(truth.frame < 5, truth.id, 1 - truth.id), truth.xywh_px)
    ratios = score_sequence(truth, swapped).ratios()
    assert ratios["IDSW"] == 2 and ratios["DetA"] == pytest.approx(1) and ratios["IDF1"] == pytest.approx(0.5)
    # Each of the 20 boxes shares its identity pair with 5 of 15 boxes of the two identities.
    assert ratios["AssA"] == pytest.approx(5 / 15)


@pytest.mark.parametrize("side", ["truth", "tracks", "both"])
def test_empty_sides_give_zero_not_nan(side):
    some, none = boxes_of(1), Boxes(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)))
    score = score_sequence(none if side != "tracks" else some, none if side != "truth" else some)
    assert all(np.isfinite(v) for v in score.ratios().values())
    assert score.ratios()["HOTA"] == 0 and score.is_empty == (side == "both")


def test_class_average_leaves_out_classes_that_nobody_has():
    none = Boxes(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)))
    perfect, empty = score_sequence(boxes_of(1), boxes_of(1)), score_sequence(none, none)
    assert class_averaged([perfect, empty])["HOTA"] == pytest.approx(1.0)
    assert class_averaged([empty]) == {}


def test_void_boxes_are_neither_hits_nor_misses():
    truth = Boxes(np.array([0, 0]), np.array([1, 2]), np.array([[0.0, 0, 10, 10], [50, 50, 10, 10]]))
    tracks = Boxes(np.array([0, 0, 0]), np.array([5, 6, 7]), np.concatenate([truth.xywh_px, [[90, 90, 5, 5]]]))
    void = np.array([False, True])
    got, left, rows = scoreable(truth, ~void, void, tracks)
    assert got.id.tolist() == [1] and left.id.tolist() == [5, 7] and rows.tolist() == [0, 2]


def test_hota_and_clear_of_different_boxes_are_refused():
    score = score_sequence(boxes_of(3), boxes_of(3))
    broken = type(score)(*(getattr(score, n) if n != "clr_tp" else score.clr_tp // 4 for n in score.__slots__))
    check_detections_agree(score, "good")
    with pytest.raises(RunError, match="must be of the same boxes"):
        check_detections_agree(broken, "bad")
