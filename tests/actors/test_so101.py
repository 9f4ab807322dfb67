"""The actors around the SO-101's networks: four verbs, arrays in and out, descriptions for the contract.

Random weights: of make_checkpoint.py, and of a tiny depth network made here.
"""

import importlib.util

import numpy as np
import pytest

from actors.depth import DepthAnything
from actors.so101_policy import So101Policy
from actors.so101_segmenter import So101Segmenter, strongest
from models.errors import MissingWeight, UnexpectedModel


@pytest.fixture(scope="module")
def make(shared_dir):
    spec = importlib.util.spec_from_file_location("make_checkpoint", shared_dir / "parity" / "make_checkpoint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(make, path, kind, **options):
    make.save_checkpoint(make.build_checkpoint(kind, 7, optimizer="empty", **options), path)
    return path


def test_policy_acts_as_the_reference(make, shared_dir, tmp_path):
    want = np.load(shared_dir / "parity" / "expected_drqv2_snapshot_seed7.npz")
    actor = So101Policy(write(make, tmp_path / "1_snapshot.pt", "drqv2_snapshot"))
    actor.load()
    actor.warm_up()
    for sample in range(4):
        action = actor.act(want["rgb"][sample].astype(np.float32), want["low_dim_state"][sample])
        assert action == pytest.approx(want["action_mean"][sample], abs=1e-5)
    told = actor.describe()
    assert (told["action_space"], told["action_size"], told["image_channels"], told["low_dim_size"]) == (
        "cartesian_delta",
        4,
        6,
        18,
    )
    actor.close()
    actor.close()
    with pytest.raises(RuntimeError, match="load"):
        actor.describe()


def test_a_policy_trained_on_other_pictures_is_refused(make, tmp_path):
    content = make.build_checkpoint("drqv2_snapshot", 7, optimizer="empty")
    content["cfg"].__dict__["_content"]["env"].__dict__["_content"]["obs_type"].__dict__["_val"] = "rgb"
    make.save_checkpoint(content, tmp_path / "rgb.pt")
    with pytest.raises(UnexpectedModel, match="'rgb'"):
        So101Policy(tmp_path / "rgb.pt").load()


def test_segmenter_gives_the_reference_masks_at_any_size(make, shared_dir, tmp_path):
    want = np.load(shared_dir / "parity" / "expected_efficientvit_seg_seed7.npz")
    actor = So101Segmenter(write(make, tmp_path / "best.ckpt", "efficientvit_seg"))
    actor.load()
    actor.warm_up()
    sure = ~np.unpackbits(want["ambiguous"]).reshape(480, 640).astype(bool)
    assert (actor.segment(want["image"]) == want["mask"])[sure].all()
    # The deployed loop crops first; the crop is stretched to the network's size and back.
    crop = actor.segment(np.ascontiguousarray(want["image"][:, 80:560]))
    assert crop.shape == (480, 480) and (crop == want["crop_mask"]).mean() > 0.997
    assert actor.describe()["run"] == "efficientvit_seg"
    actor.close()


def tiny_depth_network():
    """Depth Anything's own architecture from transformers, two layers, random weights."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    return DepthAnythingForDepthEstimation(config)


@pytest.mark.parametrize("size", [(480, 640), (480, 480), (50, 31)])
def test_depth_keeps_the_pictures_size(size):
    actor = DepthAnything(side_px=56)
    actor.load(tiny_depth_network())
    disparity = actor.disparity(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8))
    assert disparity.shape == size and disparity.dtype == np.float32 and np.isfinite(disparity).all()
    actor.close()


def test_depth_prepares_pictures_as_transformers_does():
    from PIL import Image
    from transformers import DPTImageProcessor

    picture = np.random.default_rng(1).integers(0, 255, (480, 640, 3), np.uint8)
    picture = np.array(Image.fromarray(picture).resize((64, 48)).resize((640, 480)))  # smooth, as photographs are
    theirs = DPTImageProcessor(
        size={"height": 518, "width": 518},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )(Image.fromarray(picture), return_tensors="np")["pixel_values"]
    ours = DepthAnything()._prepare(picture)
    assert ours.shape == theirs.shape == (1, 3, 518, 686)
    assert np.abs(ours - theirs).mean() < 0.01


@pytest.mark.hub
def test_depth_anything_from_the_hub_sees_what_is_near():
    actor = DepthAnything()
    actor.load()
    assert actor.disparity(np.full((480, 640, 3), 128, np.uint8)).shape == (480, 640)


def test_without_a_hub_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("actors.depth.REPOSITORY", "depth-anything/not-cached-anywhere")
    with pytest.raises(MissingWeight, match=r"`hf download depth-anything/not-cached-anywhere`, or use the sensor"):
        DepthAnything().load()


def test_the_strongest_class_is_that_of_the_enlarged_logits():
    import torch
    import torch.nn.functional as F

    coarse = torch.tensor(np.random.default_rng(0).normal(size=(6, 30, 40)).astype(np.float32))
    full = F.interpolate(coarse[None], size=(120, 160), mode="bilinear", align_corners=False)[0]
    top = full.topk(2, dim=0).values
    sure = (top[0] - top[1] > 1e-4).numpy()
    assert sure.mean() > 0.99
    assert np.array_equal(strongest(coarse.numpy(), 160, 120)[sure], full.argmax(0).numpy()[sure])
