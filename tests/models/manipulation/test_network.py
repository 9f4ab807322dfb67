"""The transformer: its numbers, its pixels, its frames, its pretrained weights, what it refuses."""

import copy
import inspect
import sys

import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation
from transformers import Dinov2Config, Dinov2Model

from models.errors import UnexpectedModel, WrongInput
from models.manipulation import geometry
from models.manipulation.__main__ import describe, main
from models.manipulation.attention import Attention, EncoderLayer, reparametrise
from models.manipulation.backbone import DinoBackbone, load_dino
from models.manipulation.network import ManipulationTransformer, build, counts, empty, named
from models.manipulation.size import SIZES, Size, size_named

CAMERA = torch.tensor([[160.0, 0, 60], [0, 160, 68], [0, 0, 1]])
TINY = SIZES["tiny"]
# A DINOv2 in every respect but its size, which no test of minutes could hold.
MINI = Size("small", 224, 24, 4, 2, 2, 32, 2, 1, 1, 1, 16, True)


@pytest.fixture(scope="module")
def tiny() -> ManipulationTransformer:
    torch.manual_seed(0)
    return build(TINY).eval()


def pictures(count: int = 2, size: int = 128) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def cameras(count: int = 2) -> torch.Tensor:
    return CAMERA.expand(count, 3, 3).clone()


def test_answers_go_by_the_published_names_and_shapes(tiny):
    answer = named(tiny(pictures(), cameras()), with_features=True)
    shapes = {key: tuple(value.shape) for key, value in answer.items() if isinstance(value, torch.Tensor)}
    assert shapes == {
        "hand_joints_coarse": (2, 21, 3), "hand_joints": (2, 21, 3), "hand_confidence": (2, 21), "hand_shape": (2, 10),
        "object_positions": (2, 10, 3), "object_rotations": (2, 10, 6), "object_poses": (2, 10, 9),
        "contact_points": (2, 10, 3), "contact_probs": (2, 10), "contact_forces": (2, 10, 3),
    }  # fmt: skip
    assert {"hand", "objects", "contacts", "features"} < set(answer)
    seen = answer["features"]
    assert seen["patch_tokens"].shape == (2, 256, 128) and seen["patch_grid"].shape == (2, 16, 16, 128)
    assert seen["multi_scale"].shape == (2, 256, 128) and seen["cls_token"].shape == (2, 128)
    turns = tiny(pictures(), cameras()).objects.rotations()
    assert torch.allclose(turns @ turns.mT, torch.eye(3).expand_as(turns), atol=1e-5)


@pytest.mark.parametrize(("name", "backbone", "everything"), [
    ("tiny", 855_824, 2_207_567), ("small", 22_204_416, 31_372_863), ("large", 305_418_240, 353_406_527)])  # fmt: skip
def test_parameters_are_as_many_as_told(name, backbone, everything):
    found = counts(empty(SIZES[name]))
    assert (found["backbone"][0], found["all"][0]) == (backbone, everything)
    assert f"{everything:,}" in describe(name)


def test_the_pretrained_backbones_are_those_that_were_published():
    # Without the four projections of ours: 22.06 and 304.37 million, of which half the layers are frozen.
    for name, published in (("small", 22_056_576), ("large", 304_368_640)):
        network = empty(SIZES[name])
        assert sum(p.numel() for p in network.backbone.dino.parameters()) == published
        trained = sum(p.numel() for p in network.backbone.dino.parameters() if p.requires_grad)
        layers = sum(p.numel() for p in network.backbone.dino.encoder.layer.parameters())
        norm = sum(p.numel() for p in network.backbone.dino.layernorm.parameters())
        assert trained == layers // 2 + norm


def mini_dino(folder, **changes) -> dict[str, torch.Tensor]:
    """A randomly initialised DINOv2, saved as the library does."""
    torch.manual_seed(3)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=4, num_attention_heads=2, image_size=70, **changes)
    model = Dinov2Model(config)
    for value in model.parameters():  # also what starts as 0 or 1
        value.data.normal_()
    model.save_pretrained(folder)
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_no_pretrained_tensor_is_initialised_again(tmp_path):
    saved = mini_dino(tmp_path)
    for sigma in (False, True):
        network = build(MINI, tmp_path, sigma_reparam=sigma)
        held = network.backbone.dino.state_dict()
        assert set(held) == set(saved)
        assert all(torch.equal(held[key], saved[key]) for key in saved)
    frozen = {n for n, p in network.backbone.dino.named_parameters() if not p.requires_grad}
    assert any(n.startswith("encoder.layer.1.") for n in frozen) and any("embeddings" in n for n in frozen)
    assert not any(n.startswith("encoder.layer.2.") for n in frozen)
    answer = network(pictures(1, 224), cameras(1))
    assert answer.features.patch_tokens.shape == (1, 256, 24)
    answer.hand.joints_m.sum().backward()
    assert float(network.backbone.dino.encoder.layer[3].mlp.fc1.weight.grad.abs().max()) > 0
    assert network.backbone.dino.encoder.layer[0].mlp.fc1.weight.grad is None


def test_a_folder_that_is_not_that_dinov2_is_refused(tmp_path):
    with pytest.raises(UnexpectedModel, match=r"expected config\.json"):
        load_dino(MINI, tmp_path / "nothing")
    mini_dino(tmp_path / "wide", mlp_ratio=4)
    with pytest.raises(UnexpectedModel, match="hidden_size 24; size small needs 384"):
        load_dino(SIZES["small"], tmp_path / "wide")
    saved = mini_dino(tmp_path / "torn")
    saved.pop("encoder.layer.1.mlp.fc1.weight")
    save_file(saved, str(tmp_path / "torn" / "model.safetensors"), {"format": "pt"})
    with pytest.raises(UnexpectedModel, match="missing keys"):
        load_dino(MINI, tmp_path / "torn")
    with pytest.raises(WrongInput, match="stands on DINOv2"):
        build(SIZES["small"])


def test_wrong_pictures_sizes_and_intrinsics_are_refused(tiny):
    with pytest.raises(WrongInput, match=r"size tiny takes \(B, 3, 128, 128\)"):
        tiny(pictures(2, 224), cameras())
    with pytest.raises(WrongInput, match=r"intrinsics are None, expected \(2, 3, 3\)"):
        tiny(pictures(), None)
    with pytest.raises(WrongInput, match="there are tiny, small, large"):
        size_named("huge")


def test_bytes_and_floats_are_the_same_picture(tiny):
    raw = (255 * pictures()).to(torch.uint8)
    assert torch.equal(tiny(raw, cameras()).hand.joints_m, tiny(raw / 255, cameras()).hand.joints_m)


def test_sampling_finds_the_pixel_that_a_point_projects_to():
    # The map holds its own coordinates: what is sampled must be where the point lies.
    size, grid = 128, 32
    centres = (torch.arange(grid) + 0.5) * size / grid - 0.5
    maps = torch.stack(torch.meshgrid(centres, centres, indexing="xy"))[None]
    points = torch.tensor([[[0.02, -0.03, 0.5], [-0.1, 0.1, 0.7], [0.0, 0.0, 0.4]]])
    pixels = geometry.project(points, CAMERA[None])
    assert torch.allclose(pixels[0, 0], torch.tensor([60 + 160 * 0.04, 68 - 160 * 0.06]))
    assert torch.allclose(geometry.sample(maps, pixels, size), pixels, atol=1e-3)
    corner = geometry.sample(maps, torch.tensor([[[-500.0, 500.0]]]), size)[0, 0]
    assert torch.allclose(corner, torch.stack([centres[0], centres[-1]]))


def test_a_crop_sees_the_same_point_at_its_own_pixel():
    points = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0)) * 0.1 + torch.tensor([0.1, 0, 0.6])
    whole = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
    crop = geometry.crop_map(torch.tensor(250.0), torch.tensor(100.0), torch.tensor(200.0), 128)
    camera = geometry.changed_intrinsics(whole, crop)
    before, after = geometry.project(points, whole[None]), geometry.project(points, camera[None])
    # Edges to edges: pixel p of the picture covers [p − 0.5, p + 0.5].
    assert torch.allclose(after + 0.5, (before + 0.5 - torch.tensor([250.0, 100.0])) * 128 / 200, atol=1e-3)


def test_depth_follows_the_focal_length_and_back_projection_projects_back():
    place, width = torch.tensor([[[0.3, -0.6]]]), torch.tensor([[0.2]])
    near = geometry.back_project(place, width, CAMERA[None], 128, 0.25)
    assert torch.allclose(geometry.project(near, CAMERA[None]), (place + 1) * 64 - 0.5, atol=1e-4)
    zoomed = CAMERA.clone()
    zoomed[:2] *= 2
    assert geometry.back_project(place, width, zoomed[None], 128, 0.25)[0, 0, 2] == pytest.approx(
        2 * float(near[0, 0, 2])
    )


def test_a_joint_lies_on_the_ray_of_the_patch_that_its_query_points_at(tiny):
    sharp, queries = torch.full((1, 21, 256), -50.0), torch.randn(1, 21, 128)
    sharp[:, :, 16 * 3 + 5] = 50.0  # row 3, column 5: pixels 40 to 48 and 24 to 32
    blind = copy.deepcopy(tiny.hand)
    torch.nn.init.zeros_(blind.offset[-1].weight)
    joints = blind._coarse(sharp, queries, queries[:, :1], CAMERA[None])
    assert torch.allclose(geometry.project(joints, CAMERA[None]), torch.tensor([43.5, 27.5]), atol=1e-3)


def test_joints_in_every_frame_do_not_depend_on_where_the_hand_is():
    joints = torch.randn(1, 21, 3, generator=torch.Generator().manual_seed(0)).double()
    turn = torch.as_tensor(Rotation.random(rng=1).as_matrix())
    seen = geometry.in_every_frame(joints)
    assert seen.shape == (1, 21, 66)
    assert torch.allclose(geometry.in_every_frame(joints @ turn.mT + 3), seen, atol=1e-9)
    frames = geometry.wrist_frames(joints)
    assert torch.allclose(frames @ frames.mT, torch.eye(3).double().expand_as(frames), atol=1e-9)


def test_no_label_reaches_the_network(tiny):
    # Only a picture and its camera go in: the joints' features are made of predicted joints.
    assert list(inspect.signature(tiny.forward).parameters) == ["pictures", "intrinsics"]


def test_answers_depend_on_where_things_are_in_the_picture(tiny):
    dot = torch.zeros(2, 3, 128, 128)
    dot[0, :, 20:40, 20:40], dot[1, :, 90:110, 90:110] = 1, 1
    tokens = tiny.backbone(dot).patch_tokens
    mixed = tokens[0].sort(0).values - tokens[1].sort(0).values
    assert mixed.abs().max() > 1e-3  # not merely the same tokens in another order


def test_sigma_reparametrisation_starts_as_the_same_function_and_bounds_the_norm():
    torch.manual_seed(0)
    layer = EncoderLayer(32, 4).eval()
    tokens = torch.randn(2, 9, 32)
    before = layer(tokens)
    assert reparametrise(layer) == 3
    assert torch.allclose(layer(tokens), before, atol=1e-5)
    layer.train()
    with torch.no_grad():
        layer.attention.query.parametrizations.weight.original.mul_(100)
    for _ in range(30):
        layer(tokens)
    scale = layer.attention.query.parametrizations.weight[0].scale
    assert float(torch.linalg.matrix_norm(layer.attention.query.weight.detach(), 2)) == pytest.approx(
        float(scale.detach()), rel=0.02
    )
    layer(tokens).sum().backward()
    assert float(scale.grad.abs()) > 0
    layer.eval()
    assert torch.isfinite(layer(tokens)).all()


def test_attention_weights_are_those_that_are_used():
    torch.manual_seed(0)
    layer = Attention(16, 2).eval()
    queries, memory = torch.randn(1, 3, 16), torch.randn(1, 5, 16)
    _, _, values = layer._split(queries, memory)
    mixed = (layer.weights(queries, memory) @ values).transpose(1, 2).flatten(2)
    assert torch.allclose(layer.out(mixed), layer(queries, memory), atol=1e-5)


def test_checkpointing_changes_no_gradient_of_either_backbone(tmp_path):
    mini_dino(tmp_path)
    for size, folder, first in (
        (TINY, None, lambda backbone: backbone.stem[0][0].weight),
        (MINI, tmp_path, lambda backbone: backbone.dino.encoder.layer[2].mlp.fc1.weight),
    ):
        torch.manual_seed(0)
        network = build(size, folder).train()
        found = []
        for again in (False, True):
            network.backbone.save_memory(again)
            network.zero_grad()
            network(pictures(1, size.image_px), cameras(1)).hand.joints_m.square().sum().backward()
            found.append(first(network.backbone).grad.clone())
        assert float(found[0].abs().max()) > 0
        assert torch.allclose(*found, rtol=1e-4, atol=1e-7)


def test_describe_refuses_an_unknown_size_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["python -m models.manipulation", "--describe", "huge"])
    assert main() == 1
    assert capsys.readouterr().err == "error: unknown size 'huge'; there are tiny, small, large\n"


def test_dino_backbone_is_frozen_where_told(tmp_path):
    mini_dino(tmp_path)
    backbone = DinoBackbone(MINI, load_dino(MINI, tmp_path))
    assert len(backbone.frozen) == 1 + MINI.frozen_layers
