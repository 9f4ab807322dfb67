"""urdf.py, tree.py, allegro.py against pinocchio and MuJoCo; limits and order; files that are not right."""

import mujoco
import numpy as np
import pinocchio as pin
import pytest
import torch

from models.errors import RobotFileInvalid, UnknownRobot
from models.kinematics.allegro import FINGERS, TIPS, allegro, urdf_path
from models.kinematics.tree import TreeKinematics
from models.kinematics.urdf import read_urdf

SIDES = ("left", "right")


def random_angles(hand, n):
    rng = np.random.default_rng(0)
    return rng.uniform(hand.lower_rad, hand.upper_rad, (n, 16))


@pytest.mark.parametrize("side", SIDES)
def test_links_and_derivatives_equal_pinocchio(side):
    hand = allegro(side)
    links = tuple(name for name in hand.tree.links)
    model = pin.buildModelFromUrdf(str(urdf_path(side)))
    data, angles = model.createData(), random_angles(hand, 100)
    places = hand.kinematics(links)(torch.as_tensor(angles))
    derivatives = hand.kinematics(TIPS).with_columns(torch.as_tensor(angles))[1]
    columns = [model.getJointId(name) - 1 for name in hand.tree.joints]
    for k, q in enumerate(angles):
        theirs = np.empty(16)
        theirs[columns] = q
        pin.computeJointJacobians(model, data, theirs)
        pin.updateFramePlacements(model, data)
        for j, link in enumerate(links):
            frame = model.getFrameId(link)
            np.testing.assert_allclose(places[k, j], data.oMf[frame].translation, atol=1e-6)
        for finger, tip in enumerate(TIPS):
            theirs = pin.getFrameJacobian(model, data, model.getFrameId(tip), pin.LOCAL_WORLD_ALIGNED)[:3, columns]
            mine = np.zeros((3, 16))
            mine[:, 4 * finger : 4 * finger + 4] = derivatives[k, 4 * finger : 4 * finger + 4].T
            np.testing.assert_allclose(theirs, mine, atol=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_finger_tips_equal_mujoco(side):
    hand = allegro(side)
    text = urdf_path(side).read_text()
    # MuJoCo wants masses on moving bodies; the file has none, because kinematics needs none.
    mass = '<inertial><mass value="0.1"/><inertia ixx="1e-4" iyy="1e-4" izz="1e-4" ixy="0" ixz="0" iyz="0"/></inertial>'
    text = text.replace('"/>\n  <joint', f'">{mass}</link>\n  <joint')
    text = text.replace("</robot>", '<mujoco><compiler fusestatic="false"/></mujoco></robot>')
    model = mujoco.MjModel.from_xml_string(text)
    data, kinematics = mujoco.MjData(model), hand.kinematics(TIPS)
    for q in random_angles(hand, 50):
        for name, angle in zip(hand.tree.joints, q, strict=True):
            data.joint(name).qpos = angle
        mujoco.mj_kinematics(model, data)
        want = [data.body(tip).xpos for tip in TIPS]
        np.testing.assert_allclose(kinematics(torch.as_tensor(q)), want, atol=1e-6)


def test_order_and_limits_are_the_real_hands():
    hand = allegro("right")
    finger = [(-0.47, 0.47), (-0.196, 1.61), (-0.174, 1.709), (-0.227, 1.618)]
    thumb = [(0.263, 1.396), (-0.105, 1.163), (-0.189, 1.644), (-0.162, 1.719)]
    np.testing.assert_allclose(np.stack([hand.lower_rad, hand.upper_rad], 1), [*finger * 3, *thumb])
    assert FINGERS == ("index", "middle", "ring", "thumb") and hand.tree.joints == tuple(
        f"joint_{k}.0" for k in range(16)
    )
    open_hand = allegro("left").kinematics(TIPS)(torch.zeros(16, dtype=torch.float64))
    # Seen from the back with the fingers up, y points left: a left hand's index finger is on the right.
    assert open_hand[0, 1] < open_hand[1, 1] < open_hand[2, 1]


def test_the_left_hand_is_the_right_one_in_a_mirror():
    left, right = allegro("left"), allegro("right")
    angles = torch.as_tensor(random_angles(right, 50))
    # A finger's sideways joint turns about z, which the mirror reverses; bending, and the whole thumb, keep their sign.
    sign = torch.ones(16, dtype=torch.float64)
    sign[[0, 4, 8]] = -1
    mirror = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    got = left.kinematics(TIPS)(angles * sign)
    torch.testing.assert_close(got, right.kinematics(TIPS)(angles) * mirror, atol=1e-9, rtol=0)


BASE = '<robot name="r"><link name="a"/><link name="b"/>{}</robot>'
JOINT = '<joint name="j" type="{kind}"><parent link="a"/><child link="{child}"/>{rest}</joint>'
LIMIT = '<limit lower="-1" upper="1"/>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no xml", "no readable URDF"),
        (BASE.format(JOINT.format(kind="floating", child="b", rest="")), "type 'floating' is not read"),
        (BASE.format(JOINT.format(kind="revolute", child="b", rest="")), "needs a limit"),
        (BASE.format(JOINT.format(kind="revolute", child="b", rest='<limit lower="2" upper="1"/>')), "not below"),
        (BASE.format(JOINT.format(kind="revolute", child="b", rest='<limit lower="x" upper="1"/>')), "needs numbers"),
        (BASE.format(JOINT.format(kind="revolute", child="c", rest=LIMIT)), "links that do not exist: c"),
        (BASE.format(JOINT.format(kind="revolute", child="b", rest=f'{LIMIT}<axis xyz="0 0 0"/>')), "no length"),
        (BASE.format(JOINT.format(kind="revolute", child="b", rest=f'{LIMIT}<origin xyz="0 0"/>')), "xyz '0 0'"),
        (BASE.format(""), "do not form one tree"),
    ],
)
def test_bad_files_are_named_by_joint_and_field(tmp_path, text, message):
    path = tmp_path / "bad.urdf"
    path.write_text(text)
    with pytest.raises(RobotFileInvalid, match=message):
        read_urdf(path)


def test_unknown_links_and_sides_are_refused():
    with pytest.raises(RobotFileInvalid, match="no link 'elbow'; links are base_link"):
        TreeKinematics(allegro("right").tree, ["elbow"])
    with pytest.raises(UnknownRobot, match="left or right"):
        allegro("both")
