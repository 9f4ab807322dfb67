"""Rendered views against closed forms: a sphere's outline and depth, even viewpoints, units."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from actors.tracker.errors import BankUnusable
from actors.tracker.mesh import Mesh, look_at, read_mesh, render, render_views, viewpoints


def sphere(radius_m: float) -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions=4, radius=radius_m)
    return Mesh(shape.vertices, shape.faces, None)


def test_a_sphere_has_its_outline_and_depth():
    radius, distance, focal, side = 0.05, 0.4, 300.0, 128
    pose = look_at(np.array([1.0, 0, 0]), distance, np.zeros(3))
    _, depth = render(sphere(radius), pose, side, focal)
    # A sphere's outline under perspective is a circle of f·r/√(d² − r²) around the middle.
    outline = focal * radius / np.sqrt(distance**2 - radius**2)
    assert np.count_nonzero(depth) == pytest.approx(np.pi * outline**2, rel=0.02)
    assert depth[side // 2, side // 2] == pytest.approx(distance - radius, rel=1e-3)


@pytest.mark.parametrize("count", [42, 162])
def test_viewpoints_are_even_and_of_unit_length(count):
    points = viewpoints(count)
    assert len(points) == count
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
    angles = np.arccos(np.clip(points @ points.T, -1, 1)) + np.eye(count) * 9
    nearest = angles.min(axis=1)
    assert nearest.max() / nearest.min() < 1.25
    np.testing.assert_allclose(points.sum(axis=0), 0, atol=1e-9)


def test_other_counts_of_views_are_refused():
    with pytest.raises(ValueError, match="42, 162"):
        viewpoints(40)


def test_every_view_shows_the_object_whole_and_its_pose_is_rigid():
    shape = trimesh.creation.box((0.04, 0.06, 0.1))
    mesh = Mesh(shape.vertices, shape.faces, np.full((8, 3), [1.0, 0, 0]))
    for view in render_views(mesh, 42, 64):
        assert 0.05 < view.mask.mean() < 0.6
        assert not view.mask[[0, -1]].any() and not view.mask[:, [0, -1]].any()
        rotation = view.camera_from_object[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) == pytest.approx(1)
        red = view.image[view.mask]
        assert red[:, 0].min() > 25 and red[:, 1:].max() <= 1
        assert not view.image[~view.mask].any()


def test_untextured_ignores_colours():
    shape = trimesh.creation.box((0.04, 0.06, 0.1))
    mesh = Mesh(shape.vertices, shape.faces, np.full((8, 3), [1.0, 0, 0]))
    view = next(render_views(mesh, 42, 32, coloured=False))
    grey = view.image[view.mask].astype(int)
    assert np.ptp(grey, axis=1).max() <= 1


@pytest.mark.parametrize("scale, unit", [(1, "auto"), (1, "m"), (1000, "auto"), (1000, "mm")])
def test_millimetres_and_metres_give_the_same_mesh(tmp_path, scale, unit):
    path = tmp_path / "box.ply"
    trimesh.creation.box(np.array([0.04, 0.06, 0.1]) * scale).export(path)
    assert read_mesh(path, unit).diameter_m == pytest.approx(np.linalg.norm([0.04, 0.06, 0.1]))


def test_a_size_that_makes_no_sense_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "box.ply"
    trimesh.creation.box((0.04, 0.06, 0.1)).export(path)
    with pytest.raises(BankUnusable, match="--unit"):
        read_mesh(path, "mm")


def test_what_is_no_mesh_is_refused(tmp_path):
    path = tmp_path / "mesh.ply"
    path.write_text("ply nonsense")
    with pytest.raises(BankUnusable, match="cannot be read"):
        read_mesh(path)
    points = tmp_path / "points.ply"
    trimesh.PointCloud(np.zeros((3, 3))).export(points)
    with pytest.raises(BankUnusable, match=r"no triangles|cannot be read"):
        read_mesh(points)


def test_a_cad_model_lands_where_its_photo_shows_it(shared_dir):
    """LM-O's own rendering of the same model and pose: the duck's outline in picture 39, around the duck."""
    import json

    import cv2

    folder = shared_dir / "data/lmo"
    truth = cv2.imread(str(folder / "mask_rendered/000039.png"), cv2.IMREAD_GRAYSCALE)
    camera = json.loads((folder / "camera.json").read_text())
    poses = json.loads((folder / "scene_gt.json").read_text())
    (pose,) = [each for each in poses[next(k for k in poses if int(k) == 39)] if each["obj_id"] == 9]
    transform = np.eye(4)
    transform[:3, :3] = np.reshape(pose["cam_R_m2c"], (3, 3))
    transform[:3, 3] = np.array(pose["cam_t_m2c"]) / 1000
    side = 640
    _, depth = render(read_mesh(folder / "models/obj_000009.ply"), transform, side, camera["fx"])
    # Our principal point is the middle; shift to the camera's. BOP's pixel 0 has its centre at 0, ours at 0.5.
    shift = np.array([[1, 0, camera["cx"] + 0.5 - side / 2], [0, 1, camera["cy"] + 0.5 - side / 2]])
    ours = cv2.warpAffine((depth > 0).astype(np.float32), shift, (640, 480)) > 0.5
    # The truth hides what other objects hide, and knows no pixel of its outline better than we do.
    theirs = cv2.erode((truth == 9).astype(np.uint8), np.ones((3, 3))) > 0
    assert np.count_nonzero(ours & theirs) / np.count_nonzero(theirs) > 0.98
    assert np.count_nonzero(ours) < 4 * np.count_nonzero(truth == 9)
