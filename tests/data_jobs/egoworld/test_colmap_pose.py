"""`fast3r:pycolmap` on a rendered corner of a room: true camera path up to a similarity, and what cannot be told."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_jobs.egoworld.operators.colmap_pose import ColmapParams, ColmapPose
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.schemas import schema_of
from tests.data_jobs.egoworld.film import clip_of, write_pictures

pytest.importorskip("pycolmap", reason="the optional package pycolmap is not installed")

HEIGHT, WIDTH, FOCAL = 240, 320, 300.0
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
TEXTURE_PX = 700

# Walls as (corner, side u, side v) in metres: left, right and floor of a corner in front of the camera.
WALLS = (
    ((-2.5, -1.5, 2.5), (2.5, 0, 2.5), (0, 3, 0)),
    ((0, -1.5, 5.0), (2.5, 0, -2.5), (0, 3, 0)),
    ((-3, 1.2, 1.0), (6, 0, 0), (0, 0, 4.5)),
)


def texture(seed):
    """Blotches of many sizes: something to match at every distance."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.uniform(0, 255, (n, n)), (TEXTURE_PX,) * 2, interpolation=cv2.INTER_CUBIC) for n in (20, 60, 150)
    ]
    return np.clip(np.mean(layers, axis=0) * 1.6 - 76, 0, 255).astype(np.uint8)


def render(rotation, centre):
    """Picture of the walls from a camera at `centre` with camera_from_world `rotation`."""
    picture, nearness = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH))
    pixels = np.stack([*np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), np.ones((HEIGHT, WIDTH))]).reshape(3, -1)
    for seed, (corner, u, v) in enumerate(WALLS):
        of_texture = np.column_stack([u, v, corner]) / np.array([TEXTURE_PX, TEXTURE_PX, 1])
        homography = K @ (rotation @ (of_texture - np.outer(centre, [0, 0, 1])))
        back = np.linalg.inv(homography) @ pixels
        at, depth = back[:2] / back[2], 1 / back[2]
        drawn = cv2.remap(texture(seed), *at.reshape(2, HEIGHT, WIDTH).astype(np.float32), cv2.INTER_LINEAR)
        inside = ((at >= 0) & (at < TEXTURE_PX - 1)).all(axis=0) & (depth > 0)
        wins = (inside & (1 / np.maximum(depth, 1e-9) > nearness.ravel())).reshape(HEIGHT, WIDTH)
        picture[wins], nearness[wins] = drawn[wins], (1 / depth).reshape(HEIGHT, WIDTH)[wins]
    return np.repeat(picture[:, :, None], 3, axis=2)


def clip_from(folder, pictures):
    return clip_of(probe(str(write_pictures(folder / "walls.mkv", pictures)), "walls.mkv"))


def run(clip, **params):
    operator = ColmapPose(ColmapParams(interval_s=0.1, **params))
    operator.load()
    table = operator.run(clip, {}, 4)
    assert table.schema == schema_of("fast3r_pose")
    return table


def test_the_path_is_found_up_to_a_similarity(tmp_path):
    steps = np.linspace(-1, 1, 9)
    centres = np.column_stack([0.7 * steps, 0.2 * steps**2 - 0.1, 0.3 * np.cos(2 * steps)])
    rotations = Rotation.from_euler("yx", np.column_stack([-8 * steps, 4 * steps**2]), degrees=True)
    clip = clip_from(tmp_path, [render(r.as_matrix(), c) for r, c in zip(rotations, centres, strict=True)])
    table = run(clip, focal_px=FOCAL)
    assert set(table["outcome"].to_pylist()) == {"reconstructed"} and len(table) == 9
    pose = np.stack(table["pose"].to_numpy()).astype(float)
    found = Rotation.from_quat(pose[:, [4, 5, 6, 3]])
    positions = -found.inv().apply(pose[:, :3])
    # Umeyama: the similarity that lays the found path onto the true one.
    a, b = positions - positions.mean(0), centres - centres.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    aligned = (s.sum() / (a**2).sum()) * a @ turn.T
    assert np.linalg.norm(aligned - b, axis=1).max() < 0.02 * np.linalg.norm(np.ptp(centres, axis=0))
    drift = rotations * (found * Rotation.from_matrix(turn).inv()).inv()
    assert np.degrees((drift * drift[0].inv()).magnitude()).max() < 0.5
    camera = np.stack(table["camera"].to_numpy())
    assert camera[:, 0] == pytest.approx(FOCAL)
    assert np.nanmax(table["reprojection_px"].to_numpy()) < 1.0
    assert sum(len(points) for points in table["points"].to_pylist()) > 3 * 200
    assert run(clip, focal_px=FOCAL).equals(table)


def test_a_camera_that_only_turns_has_no_parallax(tmp_path):
    turns = Rotation.from_euler("y", np.linspace(-6, 6, 6)[:, None], degrees=True)
    clip = clip_from(tmp_path, [render(r.as_matrix(), np.zeros(3)) for r in turns])
    table = run(clip, focal_px=FOCAL)
    assert set(table["outcome"].to_pylist()) == {"no_parallax"}
    assert np.isnan(np.stack(table["pose"].to_numpy())).all()


@pytest.mark.parametrize(("frames", "outcome"), [(2, "too_short"), (6, "too_few_matches")])
def test_nothing_to_see_is_an_outcome(tmp_path, frames, outcome):
    table = run(clip_from(tmp_path, [np.full((HEIGHT, WIDTH, 3), 128, np.uint8)] * frames))
    assert set(table["outcome"].to_pylist()) == {outcome} and len(table) == frames


def test_views_are_spread_over_a_long_clip(tmp_path):
    clip = clip_from(tmp_path, [np.full((HEIGHT, WIDTH, 3), 128, np.uint8)] * 40)
    assert run(clip, max_views=4)["frame_index"].to_pylist() == [0, 10, 20, 30]
