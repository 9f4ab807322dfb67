"""Descriptors: masked first and normalised last, in chunks that change nothing, with the way back kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.embedding.colours import alike, colours, without_colour
from models.embedding.crops import CropSpec, cut, normalise
from models.embedding.embedder import Embedder
from models.embedding.networks import DinoV2, digest, load_dinov2
from models.errors import MissingWeight, UnexpectedModel


@pytest.fixture(scope="module")
def embedder(weights):
    weights("mobilenet_v2")
    embedder = Embedder()
    embedder.load()
    return embedder


def scene(background: int = 90) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(1)
    image = np.full((100, 140, 3), background, np.uint8)
    masks = []
    for number in range(5):
        mask = np.zeros((100, 140), bool)
        mask[10 : 40 + 10 * number, 5 + 25 * number : 25 + 25 * number] = True
        image[mask] = rng.integers(0, 255, (np.count_nonzero(mask), 3))
        masks.append(mask)
    return image, masks


def test_masked_first_and_normalised_last():
    """Black stays black up to the normalisation, and is (0 − mean) / deviation after it: not 0, which would be grey."""
    image, masks = scene(background=255)
    crops = cut(image, masks[:1], CropSpec())
    outside = crops.coverage[0] == 0
    assert outside.any()
    assert crops.squares.min() >= 0 and crops.squares.max() <= 1
    assert not crops.squares[0][:, outside].any()
    ready = normalise(crops.squares, "cpu", torch.float32)[0].numpy()
    black = -np.array([0.485, 0.456, 0.406]) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(ready[:, outside].T, np.tile(black, (outside.sum(), 1)), rtol=1e-5)


def test_the_background_cannot_be_seen(embedder):
    dark, light = (embedder.embed(scene(background)[0], scene()[1]) for background in (0, 255))
    np.testing.assert_array_equal(dark.vectors, light.vectors)
    np.testing.assert_array_equal(dark.patches, light.patches)


def test_the_index_leads_back_past_empty_masks(embedder):
    image, masks = scene()
    nothing = np.zeros((100, 140), bool)
    found = embedder.embed(image, [nothing, masks[0], nothing, masks[3]])
    assert found.index.tolist() == [1, 3]
    alone = embedder.embed(image, [masks[3]])
    np.testing.assert_allclose(found.vectors[1], alone.vectors[0], atol=1e-5)


def test_no_masks_and_only_empty_masks_give_no_rows(embedder):
    image, _ = scene()
    for masks in ([], [np.zeros((100, 140), bool)]):
        found = embedder.embed(image, masks)
        assert len(found.vectors) == len(found.patches) == len(found.index) == 0


def test_chunks_change_nothing(embedder, weights):
    image, masks = scene()
    small = Embedder(chunk=2)
    small.load()
    first, second = embedder.embed(image, masks), small.embed(image, masks)
    np.testing.assert_allclose(first.vectors, second.vectors, atol=1e-5)
    np.testing.assert_array_equal(first.on_object, second.on_object)


def test_vectors_have_length_one_and_patches_know_the_object(embedder):
    image, masks = scene()
    found = embedder.embed(image, masks)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.patches.astype(float), axis=2), 1, rtol=1e-2)
    assert found.on_object.any(axis=1).all()
    assert not found.on_object.all()


def test_a_single_pixel_is_an_object(embedder):
    image, _ = scene()
    mask = np.zeros((100, 140), bool)
    mask[50, 70] = True
    found = embedder.embed(image, [mask])
    assert np.isfinite(found.vectors).all()
    assert found.on_object.any()


def test_colours_are_shares_blind_to_shape_and_brightness():
    rng = np.random.default_rng(0)
    red, dark_red, blue, grey = (
        np.zeros((3, 20, 20), np.float32) + np.array(rgb, np.float32)[:, None, None]
        for rgb in ((0.8, 0.2, 0.2), (0.75, 0.185, 0.185), (0.2, 0.2, 0.8), (0.5, 0.5, 0.5))
    )
    whole, half = np.ones((20, 20), np.float32), np.ones((20, 20), np.float32)
    half[:, rng.permutation(20)[:10]] = 0
    found = colours(np.stack([red, red, dark_red, blue, grey]), np.stack([whole, half, whole, whole, whole]))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert alike(found[0], found[2]) > 0.4 > 0.05 > alike(found[0], found[3])
    assert without_colour(found[4:]) and not without_colour(found)


def test_the_fingerprint_covers_recipe_network_and_weights():
    spec = CropSpec()
    prints = {
        spec.fingerprint("a", "0"),
        spec.fingerprint("b", "0"),
        spec.fingerprint("a", "1"),
        CropSpec(side_px=98).fingerprint("a", "0"),
        CropSpec(margin=0.1).fingerprint("a", "0"),
    }
    assert len(prints) == 5
    assert spec.fingerprint("a", "0") == CropSpec().fingerprint("a", "0")


@pytest.fixture
def tiny_dinov2(tmp_path):
    """DINOv2's real architecture, small, with RANDOM weights: no public ones can be had without a hub."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=98, patch_size=14)
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny", model


def test_dinov2_gives_its_cls_and_patch_tokens(tiny_dinov2):
    path, model = tiny_dinov2
    embedder = Embedder(str(path), CropSpec(side_px=98))
    embedder.load()
    image, masks = scene()
    found = embedder.embed(image, masks[:2])
    crops = cut(image, masks[:2], CropSpec(side_px=98))
    with torch.inference_mode():
        tokens = model(pixel_values=normalise(crops.squares, "cpu", torch.float32)).last_hidden_state
    cls = torch.nn.functional.normalize(tokens[:, 0], dim=1).numpy()
    np.testing.assert_allclose(found.vectors, cls, atol=1e-5)
    assert found.patches.shape == (2, 49, 32)
    assert embedder.weights_sha256 == digest(model)


def test_dinov2_that_is_nowhere_names_the_embedded_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingWeight, match="mobilenet_v2"):
        load_dinov2(str(tmp_path / "none"))
    assert DinoV2.pools is False


def test_another_file_in_the_weights_place_is_refused(tmp_path):
    from models.embedding.networks import MobileNet

    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(UnexpectedModel, match="another layout"):
        MobileNet(path)
    path.write_bytes(b"nothing")
    with pytest.raises(UnexpectedModel, match="not a torch file"):
        MobileNet(path)


def test_use_before_load_says_so():
    with pytest.raises(RuntimeError, match=r"call load\(\) first"):
        Embedder().embed(*scene())
