"""Banks and template folders: what goes in comes out, and what does not fit is refused in a sentence."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from actors.tracker.banks import Bank, cut_off, make_bank, read_bank, restore_bank, write_bank
from actors.tracker.errors import BankMismatch, BankUnusable
from actors.tracker.folders import read_folder, write_folder
from actors.tracker.mesh import View
from actors.tracker.records import Reason
from actors.tracker.search import _best, whole_of
from models.embedding.crops import CropSpec
from models.embedding.embedder import Embedder
from models.proposals import Proposals
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


def cut_out(mask) -> Proposals:
    one = np.zeros(1, np.float32)
    return Proposals(mask[None], np.zeros((1, 4), np.float32), one, one, np.zeros((1, 2), np.float32))


def test_a_candidate_must_be_less_like_a_distractor(embedder, toy_bank):
    image, ball = toy(80, 60)
    proposals = cut_out(ball)
    found = embedder.embed(image, [ball])
    other = make_bank(
        "grey", [View(image.mean(axis=2, keepdims=True).repeat(3, 2).astype(np.uint8), ball, None)], embedder
    )
    assert _best(proposals, found, toy_bank, [other]).reason is Reason.CANDIDATE
    assert _best(proposals, found, other, [toy_bank]).reason is Reason.ALL_REJECTED
    twin = replace(toy_bank, name="twin")
    assert _best(proposals, found, toy_bank, [twin]).reason is Reason.ALL_REJECTED


def test_what_no_proposal_reaches_is_rejected_and_no_proposal_is_another_reason(embedder, toy_bank):
    image, ball = toy(80, 60)
    proposals, found = cut_out(ball), embedder.embed(image, [ball])
    assert _best(proposals, found, replace(toy_bank, threshold=0.8), []).reason is Reason.CANDIDATE
    rejected = _best(proposals, found, replace(toy_bank, threshold=1.01), [])
    assert (rejected.reason, rejected.mask) == (Reason.ALL_REJECTED, None)
    assert rejected.score > 0.8, "told all the same: how far it is from the threshold"
    assert _best(proposals, embedder.embed(image, []), toy_bank, []).reason is Reason.NOTHING_PROPOSED


def test_the_whole_is_chosen_over_a_part_that_is_hardly_more_like():
    """Row 0 a body, row 1 the body with its head, row 2 the table below both."""
    scores, areas, shared = np.array([0.80, 0.79, 0.79]), np.array([100, 130, 900]), np.array([100, 98, 100])
    assert whole_of(0, scores, areas, shared) == 1
    assert whole_of(0, scores - [0, 0.02, 0], areas, shared) == 0, "much less like it"
    assert whole_of(0, scores, areas, shared, threshold=0.795) == 0, "not like it enough to be found alone"
    assert whole_of(0, scores, areas, shared - [0, 20, 0]) == 0, "does not hold it"


def test_one_template_is_enough(embedder):
    bank = make_bank("toy", [View(*toy(80, 60), None)], embedder)
    assert bank.likeness(embedder.embed(*[toy(60, 50)[0], [toy(60, 50)[1]]]))[0] > 0.8


def test_another_recipe_or_embedder_is_refused(weights, toy_bank):
    weights("mobilenet_v2")
    other = Embedder(spec=CropSpec(margin=0.2))
    other.load()
    with pytest.raises(BankMismatch, match="made with mobilenet_v2"):
        toy_bank.require(other)


def test_calibration_cuts_above_the_negatives_and_says_how_many(toy_bank):
    after = toy_bank.calibrated([0.3, 0.52, 0.41])
    assert after.threshold == cut_off([0.3, 0.52, 0.41]) > 0.53
    assert after.negatives == 3
    assert toy_bank.calibrated([0.5]).threshold == pytest.approx(0.51)
    with pytest.raises(BankUnusable, match="at least one picture"):
        toy_bank.calibrated([])


@pytest.mark.parametrize("count", [3, 8, 15, 40, 120])
def test_of_further_pictures_one_in_a_hundred_passes(count):
    """Best scores drawn from a normal distribution: calibrate on some, count how many of further ones pass."""
    rng = np.random.default_rng(count)
    passed = [(rng.normal(0.5, 0.04, 200) >= cut_off(rng.normal(0.5, 0.04, count))).mean() for _ in range(1000)]
    assert 0.002 < np.mean(passed) < 0.0115


def test_the_same_shape_in_other_colours_is_less_alike(embedder, toy_bank):
    image, ball = toy(70, 60)
    own, other = (embedder.embed(each, [ball]) for each in (image, np.ascontiguousarray(image[:, :, ::-1])))
    coloured = toy_bank.likeness(own)[0] - toy_bank.likeness(other)[0]
    grey = [
        View(np.repeat(toy(x, 60)[0].mean(2, keepdims=True), 3, 2).astype(np.uint8), toy(x, 60)[1], None)
        for x in (60, 80)
    ]
    without = make_bank("grey", grey, embedder)
    # Views without colours say nothing about colours: only the networks' word counts.
    only_networks = replace(without, colours=np.roll(without.colours, 1, axis=1))
    assert without.likeness(own)[0] > only_networks.likeness(own)[0]
    assert coloured > 0.02


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
    with pytest.raises(BankUnusable, match=r"format \d; make it anew"):
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
