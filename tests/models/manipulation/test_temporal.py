"""The temporal fusion: it never looks ahead, looks back as far as told, knows seconds, and takes its full length."""

from dataclasses import replace

import pytest
import torch

from models.errors import WrongInput
from models.manipulation.size import SIZES
from models.manipulation.temporal import LAYERS, Frames, TemporalFusion


def frames(count: int, seed: int = 0) -> Frames:
    rng = torch.Generator().manual_seed(seed)
    time = torch.arange(count) / 30.0
    return Frames(torch.randn(2, count, 3, 128, generator=rng), 0.1 * torch.randn(2, count, 21, 3, generator=rng),
                  time.expand(2, count))  # fmt: skip


@pytest.fixture
def fusion() -> TemporalFusion:
    torch.manual_seed(0)
    made = TemporalFusion(SIZES["tiny"], window=4).eval()
    for last in (made.correct[-1], made.poses[-1], made.aperture[-1]):
        torch.nn.init.normal_(last.weight, std=0.1)
    return made


@pytest.mark.parametrize("count", [1, 8, 16, 40])
def test_any_length_goes_through_also_beyond_the_window(fusion, count):
    found = fusion(frames(count))
    assert found.features.shape == (2, count, 128) and found.joints_m.shape == (2, count, 21, 3)
    assert found.ee_target_poses.shape == (2, count, 10, 6) and found.action_confidence.shape == (2, count, 10)
    assert (found.grasp_apertures_m >= 0).all() and torch.isfinite(found.joints_m).all()


def changed(at: int, count: int = 16) -> tuple[Frames, Frames]:
    before = frames(count)
    tokens = before.tokens.clone()
    tokens[:, at] += 1
    return before, replace(before, tokens=tokens)


def test_no_frame_sees_a_later_one(fusion):
    before, after = (fusion(given).features for given in changed(9))
    assert torch.equal(before[:, :9], after[:, :9])
    assert (before[:, 9] - after[:, 9]).abs().max() > 1e-3


def test_a_frame_is_forgotten_after_the_windows_of_all_layers(fusion):
    before, after = (fusion(given).features for given in changed(2))
    reach = LAYERS * (fusion.window - 1)
    assert (before[:, 2 + reach] - after[:, 2 + reach]).abs().max() > 1e-6
    assert torch.allclose(before[:, 3 + reach :], after[:, 3 + reach :], atol=1e-6)
    assert fusion.seen(16).sum(1).tolist() == [1, 2, 3, *[4] * 13]


def test_only_differences_of_time_count_and_they_do(fusion):
    given = frames(8)
    there = fusion(given).features
    assert torch.allclose(fusion(replace(given, time_s=given.time_s + 7)).features, there, atol=1e-4)
    slower = fusion(replace(given, time_s=4 * given.time_s)).features
    assert (slower - there)[:, 1:].abs().max() > 1e-3
    with pytest.raises(WrongInput, match="must rise"):
        fusion(replace(given, time_s=given.time_s.flip(1)))


def test_rotations_may_be_of_any_size_and_an_untrained_fusion_changes_nothing():
    torch.manual_seed(0)
    fresh = TemporalFusion(SIZES["tiny"])
    given = frames(8)
    found = fresh(given)
    assert torch.equal(found.joints_m, given.joints_m) and not found.ee_target_poses.any()
    torch.nn.init.normal_(fresh.poses[-1].weight)
    size = fresh(given).ee_target_poses[..., 3:].norm(dim=-1)
    assert size.std() > 0.1


def test_every_parameter_gets_a_gradient(fusion):
    found = fusion(frames(16))
    sum(part.square().sum() for part in (found.joints_m, found.ee_target_poses, found.grasp_apertures_m,
                                         found.action_confidence)).backward()  # fmt: skip
    assert [name for name, p in fusion.named_parameters() if p.grad is None or not p.grad.any()] == []
