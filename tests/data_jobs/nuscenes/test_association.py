"""association.py against the reference association on a made-up motion model, and its own additions."""

import numpy as np
import pytest

from data_jobs.nuscenes import association, motion
from data_jobs.nuscenes.association import Detections, Step, Thresholds, Tracker
from models import box_kalman

STILL = Step(1.0, np.eye(3), (1920.0, 1080.0))


class LastChange:
    """The fixture's motion: the last box plus its change, in image shares and float32."""

    def __init__(self, image_wh):
        self.scale = np.array([*image_wh, *image_wh], dtype=np.float64)

    def begin(self, boxes, class_id):
        return [{"before": box, "box": box, "change": np.zeros(4), "moved": False} for box in boxes]

    def predict(self, states, step):
        for s in states:
            row = (s["box"] / self.scale).astype(np.float32) + (s["change"] / self.scale).astype(np.float32)
            s["before"], s["box"], s["moved"] = s["box"], row.astype(np.float64) * self.scale, True
            s["change"] = s["box"] - s["before"]
        return np.stack([s["box"] for s in states])

    def update(self, states, boxes):
        for s, box in zip(states, boxes, strict=True):
            s["change"] = box - (s["before"] if s["moved"] else s["box"])
            s["box"], s["moved"] = box, False


@pytest.fixture(scope="module")
def expected(shared_dir):
    return dict(np.load(shared_dir / "parity/expected_bytetrack_seed7.npz"))


def test_ids_and_life_cycle_equal_the_reference(expected):
    e = expected
    thresholds = Thresholds(high=np.float32(e["thresholds"][0]), low=np.float32(e["thresholds"][1]),
                            birth=e["thresholds"][0] + 0.1, max_lost_s=float(e["max_time_lost"]))  # fmt: skip
    tracker = Tracker(LastChange(e["image_size"]), thresholds)
    rows, boxes, counts = [], [], []
    for frame in range(1, int(e["n_frames"]) + 1):
        det = e["detections"][e["detection_frame"] == frame]
        found = tracker.step(
            Detections(det[:, :4].astype(np.float64), det[:, 4], np.zeros(len(det), int)), float(frame), STILL
        )
        rows += [(frame, t.id) for t in found]
        boxes += [np.concatenate([t.box[:2] - t.box[2:] / 2, t.box[2:]]) for t in found]
        counts.append((len(tracker.tracked), len(tracker.lost)))
    np.testing.assert_array_equal(rows, e["track_frame_id"])
    np.testing.assert_allclose(boxes, e["track_xywh"], atol=1e-3)
    np.testing.assert_array_equal(counts, e["pool_counts"][:, :2])


def run(tracker, frames, dt_s):
    out = []
    for k, boxes in enumerate(frames):
        n = len(boxes)
        det = Detections(np.array([b[:4] for b in boxes], float).reshape(n, 4), np.full(n, 0.9),
                         np.array([b[4] for b in boxes], int))  # fmt: skip
        out.append({t.id: t for t in tracker.step(det, k * dt_s, Step(dt_s, np.eye(3), (1000.0, 1000.0)))})
    return out


def test_a_detection_never_joins_a_track_of_another_class():
    box = (100, 100, 50, 50)
    out = run(Tracker(LastChange((1000, 1000))), [[(*box, 0)], [(*box, 1)], [(*box, 1)]], 0.1)
    assert list(out[0]) == [1] and not out[1] and list(out[2]) == [2] and out[2][2].class_id == 1


@pytest.mark.parametrize("dt_s", [0.05, 0.5])
def test_lost_tracks_are_kept_for_a_time_not_for_frames(dt_s):
    box = (100, 100, 50, 50, 0)
    gap = int(1.0 / dt_s) - 1  # just under the second that lost tracks are kept
    back = run(Tracker(LastChange((1000, 1000))), [[box], [box], *[[]] * gap, [box]], dt_s)
    assert list(back[-1]) == [1]
    late = run(Tracker(LastChange((1000, 1000))), [[box], [box], *[[]] * (gap + 5), [box], [box]], dt_s)
    assert list(late[-1]) == [2]


@pytest.mark.parametrize(("dt_s", "ids"), [(0.5, [1]), (1 / 12, [])])
def test_a_jump_that_half_a_second_explains_is_followed_and_one_in_a_twelfth_is_not(dt_s, ids):
    frames = [[], [(100, 100, 50, 50, 0)], [(155, 100, 50, 50, 0)]]  # born in the second frame, then apart
    tracker = Tracker(LastChange((1000, 1000)), Thresholds(drift_per_s=1.0, newborn_drift_per_s=2.0))
    assert list(run(tracker, frames, dt_s)[-1]) == ids
    assert not run(Tracker(LastChange((1000, 1000))), frames, dt_s)[-1]  # the boxes as they are do not overlap


def test_a_newborn_is_turned_with_the_camera():
    shift = np.array([[1.0, 0, 200], [0, 1, 0], [0, 0, 1]])
    tracker = Tracker(motion.BoxKalman(box_kalman.TUNED, ego=True))
    for k, left in enumerate((None, 100.0, 300.0)):
        box = np.zeros((0, 4)) if left is None else np.array([[left, 100, 50, 50]])
        found = tracker.step(
            Detections(box, np.full(len(box), 0.9), np.zeros(len(box), int)), 0.5 * k, Step(0.5, shift, (1e3, 1e3))
        )
    assert [t.id for t in found] == [1]


def test_overlap_of_grown_boxes_is_that_of_boxes_grown_beforehand():
    rng = np.random.default_rng(0)
    first, second = (np.sort(rng.uniform(0, 100, (n, 2, 2)), axis=1).reshape(n, 4) for n in (5, 7))
    margins = rng.uniform(0, 20, 5)
    for k, m in enumerate(margins):
        wide = np.array([-m, -m, m, m])
        want = association.overlap(first[k : k + 1] + wide, second + wide)[0]
        np.testing.assert_allclose(association.overlap(first, second, margins)[k], want, atol=1e-12)


def test_cheapest_does_not_trade_a_near_match_for_two_far_ones():
    cost = np.array([[0.1, 0.75], [0.75, 2.0]])
    rows, columns = association.cheapest(cost, 0.8)
    assert list(zip(rows, columns, strict=True)) == [(0, 0)]
