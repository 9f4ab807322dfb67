"""Automatic masks against SAM 2's own generator, with the real image weights of the shared folder."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.utils.amg import batched_mask_to_box, build_point_grid, calculate_stability_score

from models.proposals import Profile, Proposals, boxes_of, grid, propose, stability
from models.sam2.automatic import Sam2Points
from models.sam2.build import load
from models.sam2.stream import StreamingSam2
from tests.one_thread import one_thread  # noqa: F401

SIDE_PX = 256  # not the 1024 that the package's image predictor is written for


@pytest.fixture(scope="module")
def network(shared_dir):
    path = shared_dir / "weights/sam2_hiera_tiny_image_fp16.safetensors"
    if not path.is_file():
        pytest.skip(f"the real SAM 2 image weights are not here: {path}")
    return load(path, "sam2_hiera_tiny", side_px=SIDE_PX, parts="image")


@pytest.fixture(scope="module")
def picture(shared_dir):
    return np.ascontiguousarray(cv2.imread(str(shared_dir / "data/lmo/rgb/000039.jpg"))[:, :, ::-1])


def sized_for(predictor: SAM2ImagePredictor, side: int) -> None:
    """What the package hard-codes for 1024 px."""
    predictor._bb_feat_sizes = [(side // stride, side // stride) for stride in (4, 8, 16)]


def test_features_with_no_memory_are_the_image_predictors(network, picture):
    """One encoder pass serves both: the stream's features plus `no_mem_embed` are bit for bit the predictor's."""
    predictor = SAM2ImagePredictor(network)
    sized_for(predictor, SIDE_PX)
    predictor.set_image(picture)
    ours = Sam2Points(network, StreamingSam2(network).encode(picture))
    assert torch.equal(ours._coarse, predictor._features["image_embed"])
    for mine, theirs in zip((ours._fine, ours._middle), predictor._features["high_res_feats"], strict=True):
        assert torch.equal(mine, theirs)


def test_survivors_are_those_of_the_packages_generator(network, picture):
    settings = {"points_per_side": 8, "pred_iou_thresh": 0.6, "stability_score_thresh": 0.7}
    stock = SAM2AutomaticMaskGenerator(network, points_per_batch=64, **settings)
    sized_for(stock.predictor, SIDE_PX)
    theirs = sorted(stock.generate(picture), key=lambda each: -each["predicted_iou"])
    profile = Profile(points_per_side=8, points_per_batch=16, least_predicted_iou=0.6, least_stability=0.7)
    ours = propose(Sam2Points(network, StreamingSam2(network).encode(picture)), profile)
    assert len(ours.masks) == len(theirs) > 5
    for number, other in enumerate(theirs):
        mask = other["segmentation"]
        assert np.count_nonzero(ours.masks[number] & mask) / np.count_nonzero(ours.masks[number] | mask) >= 0.99
        assert ours.predicted_iou[number] == pytest.approx(other["predicted_iou"], abs=1e-4)
        assert ours.stability[number] == pytest.approx(other["stability_score"], abs=5e-3)
        x, y, width, height = other["bbox"]  # the package's boxes end at the last pixel
        np.testing.assert_allclose(ours.boxes_px[number], [x, y, x + width + 1, y + height + 1], atol=1)


def test_a_region_is_asked_inside_only(network, picture):
    seen = StreamingSam2(network).encode(picture)
    region = np.array([0.5, 0.5, 1, 1], np.float32)
    profile = Profile(points_per_side=4, points_per_batch=16, least_predicted_iou=0.3, least_stability=0.3)
    found = propose(Sam2Points(network, seen), profile, region)
    assert len(found.masks)
    assert (found.points_01 > 0.5).all()


def test_nothing_good_enough_gives_no_rows(network, picture):
    found = propose(Sam2Points(network, StreamingSam2(network).encode(picture)), Profile(4, least_predicted_iou=2.0))
    assert isinstance(found, Proposals)
    assert found.masks.shape == (0, *picture.shape[:2])
    assert found.boxes_px.shape == (0, 4)


def test_the_grid_is_the_packages():
    for side in (1, 5, 16):
        np.testing.assert_allclose(grid(side).numpy(), build_point_grid(side), atol=1e-6)


def test_stability_and_boxes_are_the_packages():
    logits = torch.randn(6, 20, 30, generator=torch.Generator().manual_seed(0)) * 3
    logits[0] = -9
    torch.testing.assert_close(stability(logits, 1.0)[1:], calculate_stability_score(logits, 0.0, 1.0)[1:])
    assert stability(logits, 1.0)[0] == 0
    boxes = boxes_of(logits > 0)
    theirs = batched_mask_to_box(logits > 0).float()
    torch.testing.assert_close(boxes[1:] - torch.tensor([0, 0, 1, 1]), theirs[1:])
    assert not boxes[0].any()


def test_mobile_sam_draws_what_its_own_decoder_draws(weights):
    """The same three masks and ratings as asking transformers' decoder for each point alone."""
    from models.mobile_sam.automatic import MobileSamPoints
    from models.mobile_sam.geometry import prepare
    from models.mobile_sam.network import load_mobile_sam

    model = load_mobile_sam(weights("mobile_sam"))
    image = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
    square, fit = prepare(image)
    embedding = model.encode(square, fit.resized_height)
    points = MobileSamPoints(model, embedding, fit)
    asked = torch.tensor([[0.3, 0.4], [0.8, 0.9]])
    rated, iou = points.rate(asked)
    drawn = points.draw(rated, torch.ones(2, 3, dtype=torch.bool))
    for number, point in enumerate(asked):
        at = (point * torch.tensor([fit.resized_width, fit.resized_height]))[None]
        logits, own = model.decode(embedding, points_K2=at, labels_K=torch.ones(1, dtype=torch.int32), several=True)
        torch.testing.assert_close(iou[number], own, rtol=1e-4, atol=1e-4)
        rows = round(fit.resized_height / 4)
        torch.testing.assert_close(drawn[3 * number : 3 * number + 3], logits[:, :rows], rtol=1e-3, atol=1e-2)
