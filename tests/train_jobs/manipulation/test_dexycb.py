"""The DexYCB reader on files generated in its exact layout: splits, the −1 rule, PCA and translation, both hands."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from models.manipulation.geometry import project
from train_jobs.manipulation import dexycb
from train_jobs.manipulation.errors import BadData
from train_jobs.manipulation.hand_metrics import score

SERIALS = [f"8{k:011d}" for k in range(8)]
CAMERA = np.array([[614.6, 0, 320.4], [0, 614.4, 241.9], [0, 0, 1]])
DOT = (40, 200, 90)


@pytest.fixture(scope="module")
def joints() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.05, (21, 3)) + np.array([0.05, -0.02, 0.7])


def label(joints: np.ndarray) -> dict[str, np.ndarray]:
    pose_y = np.tile(np.eye(4)[:3], (3, 1, 1)).astype(np.float32)
    pose_y[:, :, 3] = [[0, 0, 0.7], [0.1, 0, 0.8], [0, 0.1, 0.9]]
    pose_m = np.arange(51, dtype=np.float32)[None]
    return {"seg": np.zeros((480, 640), np.uint8), "pose_y": pose_y, "pose_m": pose_m,
            "joint_3d": joints[None].astype(np.float32), "joint_2d": np.zeros((1, 21, 2), np.float32)}  # fmt: skip


def meta_text(side: str) -> str:
    return yaml.safe_dump({"serials": SERIALS, "num_frames": 2, "extrinsics": "x", "mano_calib": ["y"],
                           "mano_sides": [side], "ycb_ids": [5, 20, 1], "ycb_grasp_ind": 1})  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory, joints) -> Path:
    """Two of ten subjects with a hundred sequences; pictures and labels only in a few of them."""
    root = tmp_path_factory.mktemp("dexycb")
    calibration = root / "calibration" / "intrinsics"
    calibration.mkdir(parents=True)
    colour = {"fx": 614.6, "fy": 614.4, "ppx": 320.4, "ppy": 241.9}
    for serial in SERIALS:
        (calibration / f"{serial}_640x480.yml").write_text(yaml.safe_dump({"color": colour, "depth": colour}))
    for subject in (1, 7):
        for sequence in range(100):
            own = root / f"2020{subject:04d}-subject-{subject:02d}" / f"2020{subject:04d}_{100000 + sequence}"
            for serial in SERIALS:
                (own / serial).mkdir(parents=True)
            (own / "meta.yml").write_text(meta_text("left" if sequence == 1 else "right"))
    for sequence in (0, 1):
        stem = root / "20200001-subject-01" / f"20200001_{100000 + sequence}" / SERIALS[0]
        for number, here in enumerate((joints, np.full((21, 3), -1.0))):
            picture = np.full((480, 640, 3), 20, np.uint8)
            u, v = (here[8] @ CAMERA.T)[:2] / (here[8] @ CAMERA.T)[2]
            if number == 0:
                cv2.circle(picture, (round(u), round(v)), 6, DOT[::-1], -1)
            cv2.imwrite(str(stem / f"color_{number:06d}.jpg"), picture)
            np.savez_compressed(stem / f"labels_{number:06d}.npz", **label(here))
    return root


def test_splits_are_those_of_the_toolkit(folder):
    counts = {
        (setup, split): tuple(len(part) for part in dexycb.places(setup, split))
        for setup in ("s0", "s1", "s2", "s3") for split in ("train", "val", "test")
    }  # fmt: skip
    assert counts == {
        ("s0", "train"): (10, 8, 80), ("s0", "val"): (2, 8, 20), ("s0", "test"): (8, 8, 20),
        ("s1", "train"): (7, 8, 100), ("s1", "val"): (1, 8, 100), ("s1", "test"): (2, 8, 100),
        ("s2", "train"): (10, 6, 100), ("s2", "val"): (10, 1, 100), ("s2", "test"): (10, 1, 100),
        ("s3", "train"): (10, 8, 75), ("s3", "val"): (10, 8, 10), ("s3", "test"): (10, 8, 15),
    }  # fmt: skip
    assert len(dexycb.frames(folder, "s1", "val")) == 100 * 8 * 2
    with pytest.raises(BadData, match="there are s0, s1, s2, s3"):
        dexycb.frames(folder, "s4", "val")
    with pytest.raises(BadData, match="there are train, val, test"):
        dexycb.frames(folder, "s0", "dev")


def frame(folder: Path, sequence: int, number: int) -> dexycb.Frame:
    return dexycb.Frame(folder / "20200001-subject-01" / f"20200001_{100000 + sequence}", SERIALS[0], number)


def dot_of(picture: torch.Tensor) -> torch.Tensor:
    near = (picture.float() - torch.tensor(DOT, dtype=torch.float32)[:, None, None]).norm(dim=0) < 60
    y, x = torch.nonzero(near).float().mean(0)
    return torch.stack([x, y])


def test_joints_project_onto_the_picture_for_both_hands(folder, joints):
    right, left = (dexycb.read(folder, [frame(folder, sequence, 0)], 128) for sequence in (0, 1))
    assert np.allclose(right.joints_m[0], joints, atol=1e-6)
    assert np.allclose(left.joints_m[0], joints * np.array([-1, 1, 1]), atol=1e-6)
    for sample in (right, left):
        told = project(sample.joints_m, sample.intrinsics)[0]
        assert ((told > 0) & (told < 128)).all()
        assert (dot_of(sample.pictures[0]) - told[8]).norm() < 1
    assert torch.allclose(right.pictures[0].flip(-1).float(), left.pictures[0].float(), atol=40)


def test_a_frame_without_a_hand_is_masked_and_never_scored(folder):
    both = dexycb.read(folder, [frame(folder, 0, 0), frame(folder, 0, 1)], 128)
    assert both.has_hand.tolist() == [True, False]
    assert not both.joints_labelled[1].any() and not both.joints_m[1].any()
    arrays = both.joints_m.double().numpy(), both.joints_labelled.numpy()
    assert score(arrays[0] + np.array([0, 0, 0.01]), arrays[0], arrays[1], "absolute").samples == 1
    empty = dexycb.read(folder, [frame(folder, 0, 1)], 128)
    with pytest.raises(ValueError, match="no labels"):
        score(empty.joints_m.double().numpy(), empty.joints_m.double().numpy(), empty.joints_labelled.numpy(), "root")


def test_objects_come_with_the_grasped_one_first(folder):
    sample = dexycb.read(folder, [frame(folder, 0, 0)], 128)
    assert sample.object_classes[0].tolist() == [19, 4, 0, -1]
    assert sample.present[0].tolist() == [True, True, True, False]
    assert torch.allclose(sample.object_poses[0, 0, :3, 3], torch.tensor([0.1, 0, 0.8]))
    assert not sample.contacts_labelled.any()


def test_pose_m_is_48_numbers_and_then_a_translation(folder):
    found = dexycb.read_label(frame(folder, 0, 0).sequence / SERIALS[0] / "labels_000000.npz")
    assert found.pose_pca.tolist() == list(range(48)) and found.translation_m.tolist() == [48, 49, 50]


def test_what_is_incomplete_is_named(folder, tmp_path, joints):
    with pytest.raises(BadData, match="has 0 folders"):
        dexycb.frames(tmp_path, "s0", "train")
    (tmp_path / "20200709-subject-01" / "one").mkdir(parents=True)
    with pytest.raises(BadData, match="has 1 folders, DexYCB has 100 there: the download is not complete"):
        dexycb.frames(tmp_path, "s0", "val")
    with pytest.raises(BadData, match=r"cannot read .*labels_000005.npz"):
        dexycb.read(folder, [frame(folder, 0, 5)], 128)
    short = label(joints) | {"pose_m": np.zeros((1, 48), np.float32)}
    np.savez(tmp_path / "short.npz", **short)
    with pytest.raises(BadData, match=r"pose_m is \(1, 48\), DexYCB's is \(1, 51\)"):
        dexycb.read_label(tmp_path / "short.npz")
    with pytest.raises(BadData, match=r"999_640x480\.yml"):
        dexycb.intrinsics(folder, "999")
