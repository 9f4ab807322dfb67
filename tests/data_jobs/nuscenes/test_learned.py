"""Networks as motion models: the reference tracker's use of the public form, and the residual over the filter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from data_jobs.nuscenes import suite
from data_jobs.nuscenes.__main__ import app
from data_jobs.nuscenes.association import TUNED_THRESHOLDS, Detections, Step, Thresholds, Tracker
from data_jobs.nuscenes.learned import PublicMotion, ResidualMotion
from data_jobs.nuscenes.motion import LEARNED, MOTIONS, motion_maker
from models.trackssm.residual import ResidualTrackSSM
from models.trackssm.size import SIZES


class LastRow(torch.nn.Module):
    """The fixture's stub for the network: the last box plus its change."""

    def forward(self, condition):
        return condition[:, -1, :4] + condition[:, -1, 4:]


def test_the_public_trackers_ids_and_boxes_on_the_reference_sequence(shared_dir):
    e = dict(np.load(shared_dir / "parity/expected_bytetrack_seed7.npz"))
    thresholds = Thresholds(high=np.float32(e["thresholds"][0]), low=np.float32(e["thresholds"][1]),
                            birth=e["thresholds"][0] + 0.1, max_lost_s=float(e["max_time_lost"]))  # fmt: skip
    tracker = Tracker(PublicMotion(LastRow()), thresholds)
    rows, boxes, still = [], [], Step(1.0, np.eye(3), tuple(map(float, e["image_size"])))
    for frame in range(1, int(e["n_frames"]) + 1):
        det = e["detections"][e["detection_frame"] == frame]
        given = Detections(det[:, :4].astype(np.float64), det[:, 4], np.zeros(len(det), int))
        for t in tracker.step(given, float(frame), still):
            rows.append((frame, t.id))
            boxes.append(np.concatenate([t.box[:2] - t.box[2:] / 2, t.box[2:]]))
    np.testing.assert_array_equal(rows, e["track_frame_id"])
    np.testing.assert_allclose(boxes, e["track_xywh"], atol=1e-3)


@pytest.fixture(scope="module")
def parts(database, converted):
    return suite.read_suite(converted, database / "detections.parquet", "val")


def test_an_untrained_residual_network_tracks_as_the_ego_turned_filter_does(parts):
    """The floor under the learned tracker: zero-initialised, it makes the baseline's tracks, box for box."""
    torch.manual_seed(0)
    network = ResidualTrackSSM(SIZES["small"]).eval()
    for part in parts[:3]:
        learned, plain = (
            suite.ours(make, TUNED_THRESHOLDS)(part)
            for make in (lambda: ResidualMotion(network), MOTIONS["kalman_ego"])
        )
        assert len(plain.frame) > 20
        for name in ("frame", "id", "xywh_px"):
            np.testing.assert_array_equal(getattr(learned, name), getattr(plain, name))


def test_steps_carry_the_cameras_way_and_lens(parts):
    steps = parts[0].frames.steps()
    moved = np.array([np.linalg.norm(s.camera_from_before[:, 3]) for s in steps])
    assert moved[0] == 0 and 0.2 < np.median(moved[1:]) < 2  # a vehicle at some 8 m/s
    assert steps[0].lens_px == (809.0, 800.0, 450.0)  # CAM_BACK, the first by name


def test_gaps_take_away_detections_of_true_objects_only(parts):
    part = parts[0]
    gapped = suite.with_gaps(part, 5, np.random.default_rng(0))
    assert 0 < len(part.detections.frame) - len(gapped.detections.frame) < 0.5 * len(part.detections.frame)
    assert gapped.truth is part.truth


@pytest.mark.parametrize("motion", ["kalman_ego", "trackssm"])
def test_plain_mot_folders_are_tracked_from_their_own_detections(motion, tmp_path):
    folder = tmp_path / "mot/walk"
    (folder / "det").mkdir(parents=True)
    info = "[Sequence]\nname=walk\nframeRate=25\nseqLength=30\nimWidth=640\nimHeight=480\n"
    (folder / "seqinfo.ini").write_text(info)
    rows = [f"{k},-1,{100 + 3 * k + 300 * j},{100 + k},40,90,0.9,-1,-1,-1" for k in range(1, 31) for j in (0, 1)]
    (folder / "det/det.txt").write_text("\n".join(rows) + "\n")
    done = CliRunner().invoke(app, ["track", "--gt", str(tmp_path / "mot"), "--motion", motion, "--output",
                                    str(tmp_path / "out")])  # fmt: skip
    assert done.exit_code == 0, done.output
    tracks = np.loadtxt(tmp_path / "out/walk.txt", delimiter=",")
    assert len(tracks) == 60 and sorted(set(tracks[:, 1])) == [1, 2] and (tracks[:, 7] == -1).all()
    left = tracks[tracks[:, 1] == 1]
    assert np.abs(np.diff(left[:, 2]) - 3).max() < 0.1  # one id, one walker


def test_shipped_weights_track_as_the_filter_does_where_the_cameras_way_is_not_known(parts):
    """They never learned from such recordings, so they can lose nothing there."""
    part = replace(parts[0], frames=replace(parts[0].frames, origin_m=None))
    plain = suite.ours(motion_maker("kalman_ego"), TUNED_THRESHOLDS)(part)
    assert len(plain.frame) > 20
    for growth in (0.0, 2.0):
        learned = suite.ours(motion_maker(LEARNED), replace(TUNED_THRESHOLDS, spread_growth=growth))(part)
        for name in ("frame", "id", "xywh_px"):
            np.testing.assert_array_equal(getattr(learned, name), getattr(plain, name))


def test_every_sixth_frame_is_renumbered(parts):
    slow = suite.thinned(parts[0], 6)
    assert len(slow.frames.time_s) == len(range(0, len(parts[0].frames.time_s), 6))
    assert slow.detections.frame.max() <= len(slow.frames.time_s)
    assert 0.4 < np.median(np.diff(slow.frames.time_s)) < 0.7
