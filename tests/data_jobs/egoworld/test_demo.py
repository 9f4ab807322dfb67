"""The rendered demo: posed as asked, drawn where geometry says, the same on every run, and found by the hand models."""

import itertools

import av
import numpy as np
import pytest

from actors.hand_finder import HandFinder
from data_jobs.egoworld import demo
from data_jobs.egoworld.demo_scene import DURATION_S, surfaces_at
from models import weights
from models.errors import ModelError
from models.rendering.hand_mesh import load_hand, pose, turn
from models.rendering.raster import Surface, compose, draw_layer, vertex_normals


def backdrop(count, seed=0):
    """Soft coloured blotches: something to see the hands against."""
    noise = np.random.default_rng(seed).integers(60, 200, (6, 8, 3), dtype=np.uint8)
    return [np.kron(noise, np.ones((80, 80, 1), np.uint8))] * count


def plane(z_m, half_m, rgb):
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half_m
    vertices = np.column_stack([corners, np.full(4, z_m)])
    return Surface(vertices, np.array([[0, 2, 1], [0, 3, 2]]), np.tile(rgb, (4, 1)), 0.0)


def test_the_mesh_is_closed_and_turned_outwards():
    mesh = load_hand()
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert np.all(np.unique(edges, axis=0, return_counts=True)[1] == 2)
    a, b, c = (mesh.vertices_m[mesh.faces[:, corner]] for corner in range(3))
    assert np.einsum("fi,fi->f", a, np.cross(b, c)).sum() > 0


def test_the_resting_pose_is_the_mesh_itself():
    mesh = load_hand()
    vertices, joints = pose(mesh, {}, {})
    np.testing.assert_allclose(vertices, mesh.vertices_m, atol=1e-12)
    assert 0.15 < np.linalg.norm(joints["middle-finger-tip"]) < 0.21  # an adult's, in metres


def test_bending_closes_the_finger_to_the_palm_and_keeps_bone_lengths():
    mesh = load_hand()
    _, rest = pose(mesh, {}, {})
    _, bent = pose(mesh, {"index-finger-phalanx-proximal": 1.2, "index-finger-phalanx-intermediate": 1.0}, {})
    assert bent["index-finger-tip"][2] < rest["index-finger-tip"][2] - 0.04  # the palm looks along -z
    np.testing.assert_array_equal(bent["ring-finger-tip"], rest["ring-finger-tip"])
    chain = ["index-finger-phalanx-proximal", "index-finger-phalanx-intermediate", "index-finger-phalanx-distal"]
    for near, far in itertools.pairwise(chain):
        assert np.linalg.norm(bent[far] - bent[near]) == pytest.approx(np.linalg.norm(rest[far] - rest[near]))


def test_turning_is_a_rotation():
    rotation = turn(np.array([0.6, 0.0, 0.8]), 0.7)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.trace(rotation) == pytest.approx(1 + 2 * np.cos(0.7))


def test_a_file_that_is_no_glb_is_refused(tmp_path):
    (tmp_path / "x.glb").write_bytes(b"PNG" * 20)
    with pytest.raises(ValueError, match="not a binary glTF 2"):
        load_hand(tmp_path / "x.glb")


def test_a_square_covers_the_pixels_that_the_pinhole_says():
    layer = draw_layer([plane(2.0, 0.25, (1, 1, 1))], 100, 120, focal_px=160.0)
    rows, columns = np.nonzero(layer.alpha > 0.5)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (30, 70, 40, 80)


def test_the_nearer_surface_hides_the_farther_whatever_the_order():
    near, far = plane(1.0, 0.05, (1, 0, 0)), plane(2.0, 0.5, (0, 0, 1))
    pictures = [draw_layer(order, 100, 100, 100.0).rgb for order in ([near, far], [far, near])]
    np.testing.assert_array_equal(*pictures)
    assert pictures[0][50, 50, 0] > pictures[0][50, 50, 2]
    assert pictures[0][35, 35, 2] > pictures[0][35, 35, 0]


def test_what_faces_away_is_not_drawn():
    square = plane(2.0, 0.25, (1, 1, 1))
    away = Surface(square.vertices_m, square.faces[:, ::-1], square.rgb, 0.0)
    assert draw_layer([away], 60, 60, 100.0).alpha.max() == 0


def test_normals_of_a_plane_face_the_camera():
    square = plane(2.0, 0.25, (1, 1, 1))
    np.testing.assert_allclose(vertex_normals(square.vertices_m, square.faces), [[0, 0, -1]] * 4, atol=1e-12)


def test_where_nothing_is_drawn_the_background_stays():
    background = backdrop(1)[0]
    layer = draw_layer([plane(2.0, 0.02, (1, 1, 1))], 480, 640, 100.0)
    np.testing.assert_array_equal(compose(background, [layer])[:100, :100], background[:100, :100])


def test_frames_are_the_same_on_every_run():
    first, second = (list(demo.render_hands(backdrop(3), 3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[2])


def test_the_left_hand_stays_left_of_the_right_and_all_is_in_front_of_the_camera():
    mesh = load_hand()
    for t_s in np.linspace(0, DURATION_S, 17):
        right, _, left, _, _ = surfaces_at(mesh, float(t_s))
        assert left.vertices_m[:, 0].mean() < right.vertices_m[:, 0].mean()
        assert min(surface.vertices_m[:, 2].min() for surface in surfaces_at(mesh, float(t_s))) > 0.05


def test_the_written_clip_is_whole_and_equal_each_time(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        demo.write_rendered(tmp_path / name, backdrop(4), 4, "whose kitchen it is")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.metadata["comment"] == "whose kitchen it is"
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height, frame.time) for frame in frames] == [
        (640, 480, pytest.approx(n / 30)) for n in range(4)
    ]


def test_the_hand_models_find_the_rendered_hands():
    finder = HandFinder()
    try:
        finder.load()
    except ModelError as error:
        pytest.skip(str(error))
    found = [finder.find(frame) for frame in _scene(every_nth=12)]
    assert np.mean([len(hands) >= 1 for hands in found]) >= 0.9
    for hands in found:
        by_x = sorted(hands, key=lambda hand: hand.landmarks_px[0, 0])
        if len(by_x) == 2:
            assert [hand.side for hand in by_x] == ["left", "right"]


def _scene(every_nth):
    mesh, background = load_hand(), backdrop(1)[0]
    for index in range(0, 240, every_nth):
        layer = draw_layer(surfaces_at(mesh, index / demo.RATE_HZ), demo.HEIGHT_PX, demo.WIDTH_PX, demo.FOCAL_PX)
        yield compose(background, [layer])


@pytest.mark.slow
def test_the_demo_writes_both_clips_and_says_which_is_rendered(tmp_path):
    try:
        weights.path_of(demo.REAL_CLIP)
    except ModelError as error:
        pytest.skip(str(error))
    real, rendered = demo.write_demo(tmp_path)
    assert (real.name, rendered.name) == ("kitchen.mp4", "rendered_hands.mp4")
    with av.open(str(rendered)) as container:
        assert container.streams.video[0].frames == 240
        assert "RENDERED" in container.metadata["comment"]
