"""Stage 2: clips that move smoothly, labels of the way ahead, training from the command line, refusals."""

import json

import pytest
import torch
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from models.manipulation import checkpoint
from models.manipulation.geometry import project
from models.manipulation.network import build
from models.manipulation.size import SIZES
from train_jobs.manipulation.__main__ import app
from train_jobs.manipulation.sequences import generate_clips
from train_jobs.manipulation.stage2 import rotation_vector, ways


@pytest.fixture(scope="module")
def clips():
    return generate_clips("train", 0, 2, 6, 128)


def test_clips_move_smoothly_and_their_frames_show_their_joints(clips):
    assert clips.time_s.shape == (2, 6) and clips.joints_m.shape == (2, 16, 21, 3)
    assert (clips.time_s.diff(dim=1) > 0.03).all()
    step = (clips.joints_m.diff(dim=1)).norm(dim=-1)
    assert 1e-5 < float(step.mean()) < 0.03
    stood = clips.frames.joints_m @ clips.camera_from_crop.flatten(0, 1).mT
    assert torch.allclose(clips.joints_m[:, :6].flatten(0, 1), stood, atol=1e-6)
    pixels = project(clips.frames.joints_m, clips.frames.intrinsics)
    assert ((pixels > 0) & (pixels < 128)).float().mean() > 0.7
    again = generate_clips("train", 1, 1, 6, 128)
    assert torch.equal(again.frames.pictures, clips.frames.pictures[6:])


def test_one_clip_shows_one_scene(clips):
    still = clips.frames.pictures.float().unflatten(0, (2, 6))
    within = (still[:, 1:] - still[:, :-1]).abs().mean()
    across = (still[0] - still[1]).abs().mean()
    assert within < 0.5 * across


def test_the_way_ahead_is_that_of_the_wrist():
    joints = torch.randn(21, 3, generator=torch.Generator().manual_seed(0)) * 0.04
    joints[[0, 5, 9, 13]] = torch.tensor([[0.0, 0, 0], [0.03, 0.09, 0], [0.01, 0.1, 0], [-0.01, 0.09, 0.01]])
    turn = Rotation.from_rotvec([0.0, 0.0, 0.3]).as_matrix()
    moved = joints @ torch.as_tensor(turn).float().mT + torch.tensor([0.02, 0, 0])
    found = ways(torch.stack([joints, moved]))
    assert torch.allclose(found[0], torch.tensor([0.02, 0, 0, 0, 0, 0.3]), atol=1e-5)


@pytest.mark.parametrize("vector", [[0.0, 0, 0], [0.1, -0.2, 0.3], [0.0, 2.5, 0.0]])
def test_rotation_vectors_are_those_of_scipy(vector):
    turn = torch.as_tensor(Rotation.from_rotvec(vector).as_matrix())
    assert torch.allclose(rotation_vector(turn), torch.tensor(vector).double(), atol=1e-6)


def test_it_trains_on_stage_1_and_reports_beside_those_who_do_not_learn(tmp_path):
    torch.manual_seed(0)
    network = build(SIZES["tiny"])  # random weights: only the way is tested
    checkpoint.save(network, tmp_path / "manipulation.safetensors", {})
    words = ["stage2", "--output", str(tmp_path), "--clips", "4", "--test-clips", "2", "--length", "5", "--steps", "3"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "temporal_report.json").read_text())
    assert set(report["wrist_ahead_mm"]) == {"network", "stays", "goes on"}
    assert set(report["joints_from_wrist_mm"]) == {"single frames", "fused"}
    assert (tmp_path / "temporal.safetensors").stat().st_size > 100_000


def test_without_stage_1_it_says_so(tmp_path):
    result = CliRunner().invoke(app, ["stage2", "--output", str(tmp_path)])
    assert result.exit_code == 1 and "run `stage1` with this --output first" in result.output
