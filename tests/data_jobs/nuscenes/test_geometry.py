"""geometry.py, projection.py, other_rules.py against the devkit's own numbers and against dense sampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_jobs.nuscenes import geometry, other_rules, projection
from data_jobs.nuscenes.geometry import rotation_matrices


@pytest.fixture(scope="module")
def expected(shared_dir):
    return dict(np.load(shared_dir / "parity/expected_nuscenes_geometry_seed7.npz"))


def in_camera(e, centre, rotation, ego):
    turn, move = geometry.camera_from_global(
        e[f"{ego}ego_t"], rotation_matrices(e[f"{ego}ego_q"]), e["cam_t"], rotation_matrices(e["cam_q"])
    )
    return np.einsum("nij,nj->ni", turn, centre) + move, turn @ rotation


def interpolated(e):
    t_prev, t_cur = e["t_prev"], e["t_cur"]
    fraction = np.clip(geometry.time_fraction(e["t_sweep"], t_prev, t_cur), 0, 1)
    fraction = np.where(e["has_prev"], fraction, 1.0)
    centre = geometry.lerp(e["prev_center"], e["box_center"], fraction)
    return np.where(e["has_prev"][:, None], centre, e["box_center"]), geometry.slerp(
        np.where(e["has_prev"][:, None], e["prev_quat"], e["box_quat"]), e["box_quat"], fraction
    )


@pytest.mark.parametrize("when", ["key", "sweep"])
def test_boxes_in_the_camera_equal_the_devkit(expected, when):
    e = expected
    if when == "key":
        centre, quat, ego = e["box_center"], e["box_quat"], ""
    else:
        (centre, quat), ego = interpolated(e), "sweep_"
    centre_cam, rotation_cam = in_camera(e, centre, rotation_matrices(quat), ego)
    corners = geometry.box_corners(centre_cam, rotation_cam, e["box_wlh"])
    np.testing.assert_allclose(centre_cam, e[f"{when}_center_cam"], atol=1e-9)
    np.testing.assert_allclose(rotation_cam, e[f"{when}_rot_cam"], atol=1e-12)
    np.testing.assert_allclose(corners.transpose(0, 2, 1), e[f"{when}_corners_cam"], atol=1e-9)
    pixels = projection.project_points(corners, e["K"]).transpose(0, 2, 1)
    ahead = np.broadcast_to((corners[..., 2] > 0.1)[:, None], pixels.shape)
    np.testing.assert_allclose(pixels[ahead], e[f"{when}_corners_px"][ahead], atol=1e-6)
    visible_all, visible_any = other_rules.corners_visible(corners, e["K"], e["image_wh"])
    np.testing.assert_array_equal(visible_all, e[f"{when}_visible_all"])
    np.testing.assert_array_equal(visible_any, e[f"{when}_visible_any"])


def test_interpolation_equals_the_devkit(expected):
    centre, quat = interpolated(expected)
    np.testing.assert_allclose(centre, expected["interp_center"], atol=1e-9)
    np.testing.assert_allclose(rotation_matrices(quat), expected["interp_rot"], atol=1e-12)


def test_older_rules_equal_their_sources(expected):
    e = expected
    image = e["image_wh"].astype(float)
    for when in ("key", "sweep"):
        corners = e[f"{when}_corners_cam"].transpose(0, 2, 1)
        valid, boxes = other_rules.hull_boxes(corners, e["K"], image)
        if (valid == e["bbox_hull_valid"]).all():
            break
    np.testing.assert_array_equal(valid, e["bbox_hull_valid"])
    np.testing.assert_allclose(boxes[valid], e["bbox_hull_xyxy"][valid], atol=1e-6)
    valid, boxes = other_rules.minmax_boxes(e[f"{when}_center_cam"], corners, e["K"], image)
    np.testing.assert_array_equal(valid, e["bbox_minmax_valid"])
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    np.testing.assert_allclose(xywh[valid], e["bbox_minmax_xywh"][valid], atol=1e-6)


def test_near_clipped_box_equals_the_hull_where_nothing_is_behind(expected):
    e = expected
    corners = e["sweep_corners_cam"].transpose(0, 2, 1)
    image = e["image_wh"].astype(float)
    got = projection.project_boxes(e["sweep_center_cam"], e["sweep_rot_cam"], e["box_wlh"], e["K"], image)
    valid, boxes = other_rules.hull_boxes(corners, e["K"], image)
    in_front = (corners[..., 2] > projection.NEAR_M).all(axis=1)
    assert in_front.sum() > 50
    np.testing.assert_array_equal(got.seen[in_front], valid[in_front])
    np.testing.assert_allclose(got.box_px[in_front], np.where(valid[:, None], boxes, 0)[in_front], atol=1e-6)


def surface_pixels(centre, rotation, size, intrinsics, image_wh, n=121):
    """Pixels of a dense grid on the six faces, in front of the near plane and inside the image."""
    side = np.linspace(-0.5, 0.5, n)
    a, b = (g.ravel() for g in np.meshgrid(side, side))
    half = np.full_like(a, 0.5)
    faces = [np.stack(np.roll([s * half, a, b], k, axis=0), 1) for k in range(3) for s in (-1, 1)]
    points = np.concatenate(faces) * size[[1, 0, 2]] @ rotation.T + centre
    points = points[points[:, 2] >= projection.NEAR_M]
    pixels = points @ intrinsics.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    return pixels[((pixels >= 0) & (pixels <= image_wh)).all(axis=1)]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_visible_box_equals_dense_sampling_of_the_surface(seed):
    rng = np.random.default_rng(seed)
    centre = rng.uniform([-6, -3, -3], [6, 3, 12])
    rotation = rotation_matrices(rng.normal(size=4))
    size = rng.uniform(0.5, [3, 12, 4])
    intrinsics = np.array([[800.0, 0, 800], [0, 800, 450], [0, 0, 1]])
    image = np.array([1600.0, 900.0])
    got = projection.project_boxes(centre[None], rotation[None], size[None], intrinsics[None], image[None])
    sampled = surface_pixels(centre, rotation, size, intrinsics, image)
    camera_inside = (np.abs(rotation.T @ -centre) < size[[1, 0, 2]] / 2).all()
    if len(sampled) and not camera_inside:
        # Sampling can only miss, so the analytic box holds every sample ...
        assert got.seen[0]
        box = got.box_px[0]
        assert (sampled.min(0) >= box[:2] - 1e-6).all() and (sampled.max(0) <= box[2:] + 1e-6).all()
    if got.seen[0] and not camera_inside and centre[2] > 5 and (got.box_px[0, 2:] - got.box_px[0, :2] > 8).all():
        # ... and away from the camera plane the samples are dense enough to come close to it.
        box, grid = got.box_px[0], 12 / 120 * 800 / projection.NEAR_M
        depth = (geometry.box_corners(centre[None], rotation[None], size[None])[0, :, 2]).min()
        if depth > 1:
            assert len(sampled)
            grid = 12 / 120 * 800 / depth
            assert np.abs(np.concatenate([sampled.min(0), sampled.max(0)]) - box).max() < 2 * grid
    assert (got.truncation >= 0).all() and (got.truncation <= 1).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_culling_never_drops_a_seen_box(seed):
    rng = np.random.default_rng(seed)
    n = 200
    centre = rng.uniform(-30, 30, (n, 3))
    rotation, size = rotation_matrices(rng.normal(size=(n, 4))), rng.uniform(0.3, 8, (n, 3))
    intrinsics = np.tile([[900.0, 3, 700], [0, 950, 500], [0, 0, 1]], (n, 1, 1))
    image = np.tile([1600.0, 900.0], (n, 1))
    seen = projection.project_boxes(centre, rotation, size, intrinsics, image).seen
    radius = np.linalg.norm(size, axis=1) / 2
    assert not (seen & ~projection.may_be_seen(centre, radius, intrinsics, image)).any()
    assert seen.any()


def test_a_wall_that_fills_the_view_covers_the_whole_image():
    wall = projection.project_boxes(
        np.array([[0.0, 0, 5]]), np.eye(3)[None], np.array([[50.0, 50, 1]]),
        np.array([[[800.0, 0, 800], [0, 800, 450], [0, 0, 1]]]), np.array([[1600.0, 900]]),
    )  # fmt: skip
    np.testing.assert_allclose(wall.box_px, [[0, 0, 1600, 900]])
    assert wall.truncation[0] > 0.8


def test_yaw_turns_about_z_by_its_angle():
    yaw = np.array([-2.5, 0.0, 0.7])
    turned = rotation_matrices(geometry.yaw_quaternions(yaw)) @ np.array([1.0, 0, 0])
    np.testing.assert_allclose(turned, np.stack([np.cos(yaw), np.sin(yaw), 0 * yaw], axis=-1), atol=1e-12)


def test_slerp_takes_the_shorter_arc_and_keeps_the_ends():
    first, second = geometry.yaw_quaternions([0.1, 0.1]), geometry.yaw_quaternions([1.3, 1.3])
    second[1] *= -1
    half = geometry.slerp(first, second, np.array([0.5, 0.5]))
    wanted = rotation_matrices(geometry.yaw_quaternions([0.7, 0.7]))
    np.testing.assert_allclose(rotation_matrices(half), wanted, atol=1e-12)
    ends = geometry.slerp(first, second, np.array([0.0, 1.0]))
    np.testing.assert_allclose(rotation_matrices(ends[1]), rotation_matrices(second[1]), atol=1e-12)


def test_quaternions_of_any_length_turn_alike():
    first, second = geometry.yaw_quaternions([0.1]), geometry.yaw_quaternions([1.3])
    half = np.array([0.5])
    wanted = geometry.slerp(first, second, half)
    np.testing.assert_allclose(geometry.slerp(3 * first, 0.2 * second, half), wanted, atol=1e-12)
