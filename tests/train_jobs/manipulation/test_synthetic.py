"""Synthetic hands and their changes: the same bytes again, labels that follow the picture, splits apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from models.manipulation.geometry import project
from models.rendering.raster import draw_layer
from train_jobs.manipulation import augment as change
from train_jobs.manipulation import hand_shapes, solids, synthetic
from train_jobs.manipulation.contact_losses import CONTACT_M, distance_to
from train_jobs.manipulation.errors import BadData
from train_jobs.manipulation.grasping import distance, grasp, random_solid
from train_jobs.manipulation.samples import Samples
from train_jobs.manipulation.synthetic import bank, generate
from train_jobs.manipulation.trainer import mean_pose

SIZE = 128


@pytest.fixture(scope="module")
def some() -> Samples:
    return generate("train", 0, 16, SIZE)


def test_the_same_number_gives_the_same_picture_whatever_came_before(some):
    again = generate("train", 5, 2, SIZE)
    assert all(torch.equal(value, some[slice(5, 7)].tensors()[name]) for name, value in again.tensors().items())
    assert not torch.equal(generate("val", 5, 1, SIZE).pictures, again.pictures[:1])


def test_splits_share_no_shape_no_object_and_no_camera():
    banks = [bank(split) for split in ("train", "val", "test")]
    for kind in ("shapes", "solids", "cameras"):
        everything = [one for own in banks for one in getattr(own, kind)]
        assert len(set(everything)) == len(everything)
    with pytest.raises(BadData, match="there are train, val, test"):
        bank("dev")


def test_hands_have_sizes_of_hands_and_lie_in_the_picture(some):
    hands = some[some.has_hand]
    length = (hands.joints_m[:, 12] - hands.joints_m[:, 9]).norm(dim=-1) + hands.joints_m[:, 9].sub(
        hands.joints_m[:, 0]
    ).norm(dim=-1)
    assert float(length.min()) > 0.08 and float(length.max()) < 0.22
    pixels = project(hands.joints_m, hands.intrinsics)
    inside = ((pixels > -0.1 * SIZE) & (pixels < 1.1 * SIZE)).all(-1)
    assert inside.float().mean() > 0.9
    assert not some.joints_labelled[~some.has_hand].any()


def test_hands_stand_upright_as_a_detector_puts_them_and_fill_their_crop(some):
    hands = some[some.has_hand]
    pixels = project(hands.joints_m, hands.intrinsics)
    x, y = (pixels[:, 9] - pixels[:, 0]).unbind(-1)
    off = torch.atan2(x, -y).abs()  # 0: the knuckle is above the wrist
    assert float(off.median()) < 0.25 and float(off.mean()) > 0.02  # a detector errs
    span = (pixels.amax(1) - pixels.amin(1)).amax(-1) / SIZE
    assert ((span > 0.3) & (span < 0.95)).all()


def test_putting_a_hand_upright_turns_the_world_and_leaves_the_hand_as_it_is():
    own, rng = bank("train"), np.random.default_rng(3)
    hand, view = hand_shapes.shaped(own.shapes[1]), synthetic.random_view(rng)
    scene = synthetic.pose_scene(hand, hand_shapes.random_posture(rng), own.solids[0], np.eye(4), own.cameras[1], view)
    turned, camera = synthetic.upright(scene, own.cameras[1], view, 0.7)
    back = Rotation.from_rotvec([0, 0, -0.7]).as_matrix()
    assert np.allclose(turned.joints_m @ back.T, scene.joints_m) and np.allclose(turned.skin_m @ back.T, scene.skin_m)
    pair = [np.linalg.inv(one.camera_from_hand) @ one.camera_from_object for one in (scene, turned)]
    assert np.allclose(*pair)
    seen = turned.joints_m[:, :2] / turned.joints_m[:, 2:] * camera.focal + np.array(camera.centre)
    assert np.allclose((seen.min(axis=0) + seen.max(axis=0)) / 2, view.at)


def test_a_joint_is_where_its_skin_is_in_the_picture():
    # A lit hand before black: its joints lie on it, not beside it.
    own = bank("train")
    rng = np.random.default_rng(0)
    hand = hand_shapes.shaped(own.shapes[0])
    posture = hand_shapes.random_posture(rng)
    scene = synthetic.pose_scene(hand, posture, own.solids[0], None, own.cameras[0], synthetic.random_view(rng))
    camera = own.cameras[0]
    centre = (camera.centre[0] * SIZE, camera.centre[1] * SIZE)
    alpha = draw_layer(synthetic._skin(scene, rng)[:1], SIZE, SIZE, camera.focal * SIZE, centre).alpha
    pixels = scene.joints_m @ camera.intrinsics(SIZE).T
    u, v = np.rint(pixels[:, :2] / pixels[:, 2:]).astype(int).T
    kept = (u >= 0) & (u < SIZE) & (v >= 0) & (v < SIZE)
    assert kept.sum() > 15 and (alpha[v[kept], u[kept]] > 0.5).mean() > 0.9


def test_contacts_are_where_skin_meets_the_object(some):
    held = some[some.touching.any(1)]
    assert len(held) >= 4
    away = distance_to(
        held.contact_points_m, held.object_poses[:, 0], held.object_kinds[:, 0], held.object_halves_m[:, 0]
    )
    assert (away[held.touching] <= CONTACT_M + 1e-4).all()
    free = ~held.touching & held.contacts_labelled
    assert (away[free] > CONTACT_M - 1e-4).all()


def test_a_grasp_touches_with_several_fingers_and_no_bone_is_deep_inside():
    rng = np.random.default_rng(4)
    hand = hand_shapes.shaped(hand_shapes.random_shape(rng))
    depths, touched = [], []
    for _ in range(6):
        solid = random_solid(rng)
        posture, pose = grasp(hand, solid, rng)
        turned, places = hand_shapes.frames(hand, hand_shapes.turns(hand, posture, posture.closing[None]))
        joints = hand_shapes.joints_of(hand, places[0])
        depths.append(-distance(solid, pose, joints).min())
        skin = hand_shapes.skin(hand, turned[0], places[0])
        near = distance(solid, pose, skin) <= CONTACT_M
        touched.append(len(set(hand.region_of_vertex[near]) - {-1}))
    assert np.median(depths) < 0.003
    assert np.mean(touched) >= 2.5


def test_shapes_change_what_they_say():
    plain = hand_shapes.shaped(hand_shapes.HandShape(1.0, 1.0, (1.0,) * 5))
    large = hand_shapes.shaped(hand_shapes.HandShape(1.2, 1.0, (1.0,) * 5))
    long = hand_shapes.shaped(hand_shapes.HandShape(1.0, 1.0, (1.0, 1.1, 1.0, 1.0, 1.0)))
    assert np.allclose(large.mesh.vertices_m, 1.2 * plain.mesh.vertices_m, atol=1e-9)
    names = plain.mesh.joint_names
    tip, base = names.index("index-finger-tip"), names.index("index-finger-phalanx-proximal")
    reach = [np.linalg.norm(hand.mesh.joints_m[tip] - hand.mesh.joints_m[base]) for hand in (plain, long)]
    assert reach[1] == pytest.approx(1.1 * reach[0])
    other = names.index("ring-finger-tip")
    assert np.allclose(plain.mesh.joints_m[other], long.mesh.joints_m[other])
    assert set(plain.region_of_vertex) == set(range(-1, 10))


@pytest.fixture
def flat(some) -> Samples:
    """Pictures with a bright dot where joint 8 is: what happens to labels must happen to the dot."""
    hands = some[some.has_hand]
    dots = torch.zeros_like(hands.pictures)
    line = torch.arange(SIZE)
    for k, (u, v) in enumerate(project(hands.joints_m, hands.intrinsics)[:, 8]):
        blob = torch.exp(-((line - u)[None] ** 2 + (line - v)[:, None] ** 2) / 18)
        dots[k] = (255 * blob).to(torch.uint8)
    return replace(hands, pictures=dots)


def centres(pictures: torch.Tensor) -> torch.Tensor:
    weight = pictures.float().mean(1).clamp(min=20) - 20
    line = torch.arange(SIZE).float()
    total = weight.sum((1, 2))
    return torch.stack([(weight.sum(1) * line).sum(1), (weight.sum(2) * line).sum(1)], -1) / total[:, None]


def inside(pixels: torch.Tensor) -> torch.Tensor:
    return ((pixels > 12) & (pixels < SIZE - 13)).all(-1)


PLAIN = change.Strength(light=0, colour=0, noise=0)


def test_every_change_moves_picture_joints_and_camera_alike(flat):
    rng = torch.Generator().manual_seed(0)
    moved = change.augment(flat, PLAIN, rng)
    told, before = project(moved.joints_m, moved.intrinsics)[:, 8], project(flat.joints_m, flat.intrinsics)[:, 8]
    kept = inside(told) & inside(before)
    assert kept.sum() >= 5
    assert (centres(moved.pictures)[kept] - told[kept]).norm(dim=-1).max() < 0.7
    assert (told - before)[kept].norm(dim=-1).mean() > 2


def test_a_mirror_makes_a_left_hand_of_a_right_one(flat):
    mirrored = change.mirror(flat)
    told = project(mirrored.joints_m, mirrored.intrinsics)[:, 8]
    kept = inside(told)
    assert (centres(mirrored.pictures)[kept] - told[kept]).norm(dim=-1).max() < 0.7
    twice = change.mirror(mirrored)
    assert torch.allclose(twice.joints_m, flat.joints_m) and torch.equal(twice.pictures, flat.pictures)
    assert torch.allclose(twice.intrinsics, flat.intrinsics, atol=1e-4)
    assert torch.allclose(torch.linalg.det(mirrored.object_poses[..., :3, :3]), torch.ones(1), atol=1e-4)


def test_changes_keep_sizes_distances_and_contacts(flat):
    moved = change.augment(flat, PLAIN, torch.Generator().manual_seed(1))

    def bones(joints):
        return torch.cdist(joints.double(), joints.double())

    assert torch.allclose(bones(moved.joints_m), bones(flat.joints_m), atol=1e-5)
    held = flat.object_kinds[:, 0] >= 0
    apart = [
        distance_to(part.joints_m, part.object_poses[:, 0], part.object_kinds[:, 0], part.object_halves_m[:, 0])[held]
        for part in (flat, moved, change.mirror(flat))
    ]
    assert torch.allclose(apart[0], apart[1], atol=1e-5) and torch.allclose(apart[0], apart[2], atol=1e-5)


def test_the_mean_pose_is_one_hand(some):
    pose = mean_pose(some)
    assert pose.shape == (21, 3) and float(pose[0].norm()) == 0
    assert set(some.object_kinds.unique().tolist()) <= {-2, solids.BOX, solids.CYLINDER, solids.BALL}
