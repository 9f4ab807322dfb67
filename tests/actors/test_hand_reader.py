"""HandReader: the right pixels and camera, left as right, tracks in chunks, what it refuses, as an actor."""

from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from scipy.spatial.transform import Rotation

from actors.hand_reader import BEFORE, CHUNK, HandReader, _in_camera, _things
from actors.messages import Hand
from actors.spawn import spawn
from models.errors import UnexpectedModel, WrongInput
from models.manipulation import checkpoint
from models.manipulation.crops import assumed_intrinsics, crop_hand
from models.manipulation.geometry import project
from models.manipulation.network import build
from models.manipulation.size import SIZES
from models.manipulation.temporal import TemporalFusion
from models.manipulation.things import ObjectOutput

CAMERA = assumed_intrinsics(500.0, 320, 240)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """RANDOM weights: the way is tested, not what they say."""
    folder = tmp_path_factory.mktemp("random")
    torch.manual_seed(0)
    network, fusion = build(SIZES["tiny"]), TemporalFusion(SIZES["tiny"])
    torch.nn.init.normal_(fusion.correct[-1].weight, std=0.1)
    checkpoint.save(network, folder / "network.safetensors", {}, halved=True)
    checkpoint.save_temporal(fusion, folder / "temporal.safetensors", {})
    return folder / "network.safetensors", folder / "temporal.safetensors"


@pytest.fixture(scope="module")
def reader(files, weights) -> HandReader:
    for name in ("palm_detection_full", "hand_landmark_full"):
        weights(name)
    found = HandReader(*files)
    found.load()
    return found


def hand(side: str = "right", seed: int = 0) -> Hand:
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.uniform(80, 180, (21, 2)), np.zeros((21, 1))], 1)
    box = np.concatenate([points[:, :2].min(0), points[:, :2].max(0)])
    return Hand(side, 0.9, 0.8, points, np.zeros((21, 3)), box)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (240, 320, 3), np.uint8)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_point_of_the_picture_lies_at_its_own_pixel_of_the_crop(side):
    image = np.zeros((240, 320, 3), np.uint8)
    point = np.array([-0.03, 0.02, 0.5])
    x, y = (CAMERA @ (point / point[2]))[:2].round().astype(int)
    image[y - 2 : y + 3, x - 2 : x + 3] = 255
    crop = crop_hand(image, hand().landmarks_px, CAMERA, side, 128)
    seen = torch.from_numpy(point @ crop.camera_from_crop).float()[None, None]
    told = project(seen, crop.intrinsics[None])[0, 0]
    bright = torch.nonzero(crop.picture[0] > 128).float().mean(0)
    assert torch.allclose(told, bright.flip(0), atol=1.0)


def test_a_left_hand_is_the_mirrored_right_one(reader):
    image = picture()
    mirrored = np.array([[320, 0, 0]]) + hand().landmarks_px * np.array([[-1, 1, 1]])
    left = Hand("left", 0.9, 0.8, mirrored, np.zeros((21, 3)), hand().box_px)
    [right_one] = reader.read(image, [hand()], CAMERA)
    [left_one] = reader.read(np.ascontiguousarray(image[:, ::-1]), [left], CAMERA)
    assert np.allclose(left_one.joints_m * [-1, 1, 1], right_one.joints_m, atol=2e-3)
    assert right_one.confidence <= 0.8 and right_one.touching.shape == (10,)


def test_an_object_is_told_where_the_camera_sees_it_also_beside_a_left_hand(reader, monkeypatch):
    place, turn = np.array([0.01, -0.02, 0.4]), Rotation.from_euler("xyz", [0.3, -0.8, 0.5]).as_matrix()
    monkeypatch.setattr(reader, "_kinds", ["box", "cylinder"])
    for side in ("right", "left"):
        crop = crop_hand(picture(), hand(side).landmarks_px, CAMERA, side, 128)
        seen = crop.camera_from_crop.T @ turn
        if side == "left":
            seen[:, 0] *= -1
        told = ObjectOutput(
            torch.from_numpy(crop.camera_from_crop.T @ place).float().expand(1, 10, 3),
            torch.from_numpy(seen[:, :2].T.reshape(6)).float().expand(1, 10, 6),
            torch.tensor([[-9.0, 2.0, 3.0, *[-9.0] * 7]]), torch.eye(21)[[1] * 10][None], torch.zeros(1, 10, 256),
            torch.zeros(1, 10, 128),
        )  # fmt: skip
        first, second = _things(told, crop, reader._kinds)
        assert (first.query, second.query, first.kind) == (2, 1, "cylinder") and first.confidence > second.confidence
        assert np.allclose(first.camera_from_object[:3, 3], place, atol=1e-6)
        assert np.allclose(first.camera_from_object[:3, :3], turn, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_crop_stands_upright_and_its_joints_come_back_as_the_camera_stood(side):
    found = hand(side)
    depth = 0.5
    joints = (
        np.concatenate([(found.landmarks_px[:, :2] - 0.5 - CAMERA[:2, 2]) / CAMERA[0, 0], np.ones((21, 1))], 1) * depth
    )
    crop = crop_hand(picture(), found.landmarks_px, CAMERA, side, 128)
    turned = joints @ crop.camera_from_crop
    pixels = project(torch.from_numpy(turned).float()[None], crop.intrinsics[None])[0].numpy()
    assert np.allclose(pixels[9, 0], pixels[0, 0], atol=0.01) and pixels[9, 1] < pixels[0, 1]
    assert np.allclose((pixels.min(axis=0) + pixels.max(axis=0)) / 2, 63.5, atol=0.01)
    assert np.allclose(_in_camera(turned.astype(np.float32), crop), joints, atol=1e-6)


def test_a_long_track_is_fused_in_chunks_as_it_would_be_at_once(reader):
    track = [reader.read(picture(k), [hand("left", k)], CAMERA)[0] for k in range(4)]
    track = [track[k % 4] for k in range(CHUNK + 40)]
    times = np.arange(len(track)) / 30
    whole = reader.fused(track, times)
    assert whole.shape == (len(track), 21, 3)
    late = reader.fused(track[CHUNK - BEFORE :], times[CHUNK - BEFORE :])[BEFORE:]
    assert np.allclose(late, whole[CHUNK:], atol=1e-5)
    assert not np.allclose(whole, np.stack([one.joints_m for one in track]))


def test_what_is_wrong_is_said(files, tmp_path):
    with pytest.raises(RuntimeError, match="call load"):
        HandReader(*files).read(picture(), [hand()], CAMERA)
    with pytest.raises(UnexpectedModel, match="does not fit size tiny"):
        checkpoint.load_temporal(_other_width(tmp_path), SIZES["tiny"])
    with pytest.raises(UnexpectedModel, match="cannot be read"):
        checkpoint.load_temporal(tmp_path / "nothing", SIZES["tiny"])
    with pytest.raises(WrongInput, match="not finite"):
        crop_hand(picture(), np.full((21, 2), np.nan), CAMERA, "right", 128)


def _other_width(folder: Path) -> Path:
    checkpoint.save_temporal(TemporalFusion(SIZES["small"]), folder / "small.safetensors", {})
    return folder / "small.safetensors"


@pytest.fixture
def ray_here():
    ours = not ray.is_initialized()
    if ours:
        ray.init(address="local", include_dashboard=False, num_cpus=2)
    yield
    if ours:
        ray.shutdown()


@pytest.mark.timeout(300)
def test_as_an_actor_it_answers_as_it_does_here_and_finds_no_hand_where_none_is(ray_here, reader, files):
    remote = spawn(HandReader, "hand_reader_test", *files)
    remote.load()
    [there], [here] = (one.read(picture(), [hand()], CAMERA) for one in (remote, reader))
    assert np.allclose(there.joints_m, here.joints_m, atol=1e-5)
    assert remote.look(np.full((240, 320, 3), 90, np.uint8), CAMERA) == []
    remote.kill()
