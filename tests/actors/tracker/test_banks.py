"""Banks and template folders: what goes in comes out, and what does not fit is refused in a sentence."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from actors.tracker.banks import Bank, make_bank, read_bank, restore_bank, write_bank
from actors.tracker.errors import BankMismatch, BankUnusable
from actors.tracker.folders import read_folder, write_folder
from actors.tracker.mesh import View
from models.embedding.crops import CropSpec
from models.embedding.embedder import Embedder
from tests.actors.tracker.conftest import toy


def same(first: Bank, second: Bank) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name), equal_nan=name == "camera_from_object")
        for name in Bank.__dataclass_fields__
    )


def test_a_bank_survives_its_file_and_its_dict(tmp_path, toy_bank):
    path = tmp_path / "deep" / "toy.npz"
    write_bank(toy_bank, path)
    assert same(read_bank(path), toy_bank)
    assert same(restore_bank(toy_bank.save()), toy_bank)
    assert [each.name for each in path.parent.iterdir()] == ["toy.npz"]


def test_its_own_views_are_most_alike(embedder, toy_bank):
    image, ball = toy(80, 60)
    other = np.zeros_like(ball)
    other[90:115, 5:40] = True
    scores = toy_bank.likeness(embedder.embed(image, [ball, other]))
    assert scores[0] > 0.9 > scores[1] + 0.2
    assert len(toy_bank.likeness(embedder.embed(image, []))) == 0


def test_a_candidate_must_be_less_like_a_distractor(embedder, toy_bank):
    from dataclasses import replace

    from actors.tracker.records import Reason
    from actors.tracker.search import _best
    from models.proposals import Proposals

    image, ball = toy(80, 60)
    one = np.zeros(1, np.float32)
    proposals = Proposals(ball[None], np.zeros((1, 4), np.float32), one, one, np.zeros((1, 2), np.float32))
    found = embedder.embed(image, [ball])
    other = make_bank(
        "grey", [View(image.mean(axis=2, keepdims=True).repeat(3, 2).astype(np.uint8), ball, None)], embedder
    )
    assert _best(proposals, found, toy_bank, [other]).reason is Reason.CANDIDATE
    assert _best(proposals, found, other, [toy_bank]).reason is Reason.ALL_REJECTED
    twin = replace(toy_bank, name="twin")
    assert _best(proposals, found, toy_bank, [twin]).reason is Reason.ALL_REJECTED


def test_one_template_is_enough(embedder):
    bank = make_bank("toy", [View(*toy(80, 60), None)], embedder)
    assert bank.likeness(embedder.embed(*[toy(60, 50)[0], [toy(60, 50)[1]]]))[0] > 0.8


def test_another_recipe_or_embedder_is_refused(weights, toy_bank):
    weights("mobilenet_v2")
    other = Embedder(spec=CropSpec(margin=0.2))
    other.load()
    with pytest.raises(BankMismatch, match="made with mobilenet_v2"):
        toy_bank.require(other)


def test_calibration_cuts_just_above_the_negatives(toy_bank):
    after = toy_bank.calibrated([0.3, 0.52, 0.41])
    assert after.threshold == pytest.approx(0.53)
    assert after.negatives == 3
    with pytest.raises(BankUnusable, match="at least one picture"):
        toy_bank.calibrated([])


def test_no_view_and_empty_views_are_refused(embedder):
    image, ball = toy(80, 60)
    with pytest.raises(BankUnusable, match="at least one view"):
        make_bank("toy", [], embedder)
    with pytest.raises(BankUnusable, match="view 1 of 'toy' has an empty mask"):
        make_bank("toy", [View(image, ball, None), View(image, np.zeros_like(ball), None)], embedder)


@pytest.mark.parametrize("content", [b"", b"not a bank", b"PK\x03\x04 broken"])
def test_what_is_no_bank_is_refused(tmp_path, content):
    path = tmp_path / "bank.npz"
    path.write_bytes(content)
    with pytest.raises(BankUnusable, match="not a template bank"):
        read_bank(path)


def test_a_missing_bank_names_the_command(tmp_path):
    with pytest.raises(BankUnusable, match="templates"):
        read_bank(tmp_path / "none.npz")


def test_a_bank_with_other_fields_is_refused(tmp_path, toy_bank):
    path = tmp_path / "bank.npz"
    np.savez(path, header=np.array('{"format": 1}'), vectors=np.zeros((1, 2)))
    with pytest.raises(BankUnusable, match="format 1"):
        read_bank(path)


def test_a_folder_of_templates_comes_back(tmp_path):
    views = [View(*toy(x, 60), np.eye(4) * x) for x in (60, 90)]
    write_folder(views, tmp_path)
    assert {"rgb_0.png", "mask_0.png", "rgb_1.png", "mask_1.png"} <= {each.name for each in tmp_path.iterdir()}
    for ours, theirs in zip(views, read_folder(tmp_path), strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        np.testing.assert_array_equal(ours.camera_from_object, theirs.camera_from_object)


def test_a_folder_without_poses_is_fine(tmp_path):
    write_folder([View(*toy(60, 60), None)], tmp_path)
    assert read_folder(tmp_path)[0].camera_from_object is None


def spoil_empty(folder):
    cv2.imwrite(str(folder / "mask_1.png"), np.zeros((120, 160), np.uint8))


def spoil_size(folder):
    cv2.imwrite(str(folder / "mask_1.png"), np.ones((10, 10), np.uint8) * 255)


def spoil_gap(folder):
    (folder / "rgb_0.png").rename(folder / "rgb_2.png")


def spoil_poses(folder):
    np.save(folder / "poses.npy", np.zeros((1, 4, 4)))


@pytest.mark.parametrize(
    "spoil, says",
    [
        (spoil_empty, "mask_1.png is empty"),
        (spoil_size, "one size"),
        (spoil_gap, "without gaps"),
        (spoil_poses, "one pose per template"),
    ],
)
def test_spoilt_folders_say_what_is_wrong(tmp_path, spoil, says):
    write_folder([View(*toy(x, 60), np.eye(4)) for x in (60, 90)], tmp_path)
    spoil(tmp_path)
    with pytest.raises(BankUnusable, match=says):
        read_folder(tmp_path)


def test_no_templates_at_all(tmp_path):
    with pytest.raises(BankUnusable, match=r"rgb_0\.png"):
        read_folder(tmp_path)
    with pytest.raises(BankUnusable, match="holds no templates"):
        read_folder(tmp_path / "nowhere")
