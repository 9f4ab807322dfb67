"""Every known way to misread the public policy is refused by name, before torque."""

import dataclasses

import pytest
import yaml

from robot.contract import (
    CONTRACTS,
    SEGMENTER_CLASSES,
    ArmOffer,
    CameraOffer,
    PolicyContract,
    PolicyOffer,
    SegmenterOffer,
    arm_mismatches,
    camera_mismatches,
    load_contract,
    policy_mismatches,
    require,
    segmenter_mismatches,
)
from robot.errors import ContractError
from robot.records import JOINTS

TRAINED = PolicyOffer(
    "snapshot", "cartesian_delta", 4, "mujoco_base", 18, 3, 6, "time_planes", True, 5, "normalise_then_crop", "area"
)
CAMERA = CameraOffer(640, 480, "rgb", 70.5)
ARM = ArmOffer("arm", JOINTS, "mujoco_base", True)
SEGMENTER = SegmenterOffer(SEGMENTER_CLASSES, "efficientvit_seg_merged", "abc")


def names(found):
    return {mismatch.name for mismatch in found}


def test_the_public_policy_fits_its_profile(pick101):
    assert not policy_mismatches(pick101, TRAINED)
    assert not camera_mismatches(pick101, CAMERA)
    assert not arm_mismatches(pick101, ARM, JOINTS)
    assert not segmenter_mismatches(pick101, SEGMENTER)
    require(pick101, [])


@pytest.mark.parametrize(
    "name, change",
    [
        ("action_space", {"action_space": "joint_delta", "action_size": 6}),
        ("proprioception", {"low_dim_size": 0}),
        ("class_ids", {"class_count": 6}),
        ("no_normalisation", {"normalises_input": False}),
        ("stack_layout", {"layout": "flat_channels"}),
        ("disparity_interpolation", {"interpolation": "linear"}),
        ("disparity_order", {"order": "crop_then_normalise"}),
        ("action_frame", {"action_frame": "genesis_base"}),
        ("image_channels", {"image_channels": 9}),
        ("contract_hash", {"contract_sha256": "0" * 64}),
    ],
)
def test_a_policy_trained_otherwise_is_refused_by_name(pick101, name, change):
    found = policy_mismatches(pick101, dataclasses.replace(TRAINED, **change))
    assert names(found) == {name}
    with pytest.raises(ContractError, match=f"torque stays off.*{name}"):
        require(pick101, found)


def test_the_handoff_document_taken_literally_meets_the_public_policy(handoff):
    """All that a file says of itself; segmenter and arm are asked below."""
    assert names(policy_mismatches(handoff, TRAINED)) == {
        "action_space",
        "action_frame",
        "proprioception",
        "class_ids",
        "stack_layout",
        "disparity_interpolation",
        "double_normalisation",
    }


def test_the_noisy_segmenter_is_refused(pick101):
    wrong = dataclasses.replace(SEGMENTER, run="efficientvit_seg")
    assert names(segmenter_mismatches(pick101, wrong)) == {"segmenter_weights"}


def test_a_pinned_segmenter_and_policy_must_be_those(pick101):
    terms = pick101.image.classes.model_copy(update={"sha256": "f" * 64})
    pinned = pick101.model_copy(
        update={"image": pick101.image.model_copy(update={"classes": terms}), "checkpoint_sha256": "e" * 64}
    )
    assert names(segmenter_mismatches(pinned, SEGMENTER)) == {"segmenter_checkpoint"}
    assert names(policy_mismatches(pinned, TRAINED)) == {"checkpoint"}


def test_a_segmenter_with_other_classes_is_refused(pick101):
    wrong = SegmenterOffer(("a", "b"), "efficientvit_seg_merged")
    assert "segmenter_classes" in names(segmenter_mismatches(pick101, wrong))


def test_the_simulators_truth_needs_no_run(pick101):
    assert not segmenter_mismatches(pick101, SegmenterOffer(SEGMENTER_CLASSES, "sensor"))


@pytest.mark.parametrize(
    "name, change",
    [
        ("camera_size", {"width_px": 1280, "height_px": 720}),
        ("colour_order", {"colour": "bgr"}),
        ("field_of_view", {"vertical_fov_deg": 75.0}),
    ],
)
def test_another_camera_is_refused_by_name(pick101, name, change):
    assert names(camera_mismatches(pick101, dataclasses.replace(CAMERA, **change))) == {name}


@pytest.mark.parametrize(
    "name, change",
    [
        ("arm_frame", {"frame": "genesis_base"}),
        ("calibration", {"calibrated": False}),
        ("joints", {"joints": JOINTS[:5]}),
    ],
)
def test_another_arm_is_refused_by_name(pick101, name, change):
    assert names(arm_mismatches(pick101, dataclasses.replace(ARM, **change), JOINTS)) == {name}


@pytest.mark.parametrize("path", sorted(CONTRACTS.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_contracts_validate_and_are_named_after_their_file(path):
    contract = load_contract(path.stem)
    assert contract.name == path.stem and contract == load_contract(str(path))


def test_an_unknown_contract_lists_the_choices():
    with pytest.raises(ContractError, match="handoff074, pick101_v19"):
        load_contract("pick102")


def test_the_shipped_lift_takes_what_the_public_one_takes_but_for_its_segmenter(pick101):
    ours = load_contract("so101_lift").model_dump()
    run = ours["image"]["classes"].pop("run")
    theirs = pick101.model_dump()
    assert theirs["image"]["classes"].pop("run") != run
    assert {**ours, "name": ""} == {**theirs, "name": ""}


def test_an_unknown_field_is_named(tmp_path, pick101):
    content = yaml.safe_load((CONTRACTS / "pick101_v19.yaml").read_text()) | {"speed": 3}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ContractError, match="speed"):
        load_contract(str(path))


def test_the_hash_follows_the_content(pick101):
    other = PolicyContract.model_validate(pick101.model_dump() | {"rate_hz": 10})
    assert pick101.sha256 == load_contract("pick101_v19").sha256 != other.sha256
