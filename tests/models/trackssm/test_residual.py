"""The residual variant starts as the filter, hears only what was seen, and its answers turn back into boxes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import box_kalman
from models.errors import UnexpectedModel
from models.trackssm import memory
from models.trackssm.checkpoint import OWN_NOTE
from models.trackssm.network import D2MP
from models.trackssm.residual import ResidualTrackSSM, answers_of, boxes_of, load_residual, predict
from models.trackssm.size import SIZES


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    return ResidualTrackSSM(SIZES["small"]).eval()


def way(n, dt_s=0.1, move=(0.0, 0.0, 0.0)):
    camera = np.concatenate([np.eye(3), np.array(move)[:, None]], axis=1)
    return memory.Way(np.full(n, dt_s), np.tile(np.eye(3), (n, 1, 1)), np.tile(camera, (n, 1, 1)),
                      np.tile([1000.0, 800, 450], (n, 1)), np.ones(n, bool))  # fmt: skip


def seen(steps=4, n=3):
    rng = np.random.default_rng(0)
    box = np.concatenate([rng.uniform(200, 900, (n, 2)), rng.uniform(20, 90, (n, 2))], axis=1)
    known = memory.born(box)
    for _ in range(steps):
        known = memory.observed(memory.advanced(known, way(n)), box := box + rng.normal(0, 2, (n, 4)))
    return memory.advanced(known, way(n))


def test_an_untrained_network_is_the_filter_box_and_spread(untrained):
    now = seen()
    base, sigma = now.mean[:, :4], memory.spread_px(now)
    box, spread = predict(untrained, memory.tokens(now, way(3), np.zeros(3, int)), base, sigma, way(3).known)
    np.testing.assert_allclose(box, base, atol=1e-9)
    np.testing.assert_allclose(spread, sigma, rtol=1e-6)


def test_small_is_a_fifth_of_a_million_and_full_five(untrained):
    assert 150_000 < sum(p.numel() for p in untrained.parameters()) < 250_000
    full = sum(p.numel() for p in ResidualTrackSSM(SIZES["full"]).parameters())
    assert 4_500_000 < full < 5_500_000


def test_memory_is_the_filter_of_the_baseline():
    """Same numbers as box_kalman alone, step by step."""
    boxes = np.array([[300.0, 200, 40, 80]])
    known, state = memory.born(boxes), box_kalman.born(boxes, box_kalman.TUNED)
    for k in range(5):
        known = memory.advanced(known, way(1))
        state = box_kalman.predicted(*box_kalman.turned(*state, np.eye(3)), np.array([0.1]), box_kalman.TUNED)
        known = memory.observed(known, boxes + k)
        state = box_kalman.corrected(*state, boxes + k, box_kalman.TUNED)
    np.testing.assert_array_equal(known.mean, state[0])
    np.testing.assert_array_equal(known.covariance, state[1])


def test_ages_places_and_order_of_what_is_remembered():
    known = memory.born(np.array([[100.0, 100, 10, 10]]))
    for k in range(1, 3):
        known = memory.advanced(known, way(1, 0.5, (0.0, 0.0, -1.0)))  # a metre forward each time
        known = memory.observed(known, np.array([[100.0 + k, 100, 10, 10]]))
    now = memory.advanced(known, way(1, 0.25, (0.0, 0.0, -1.0)))
    np.testing.assert_allclose(now.age_s[0], [0, 0, 1.25, 0.75, 0.25])
    np.testing.assert_allclose(now.place_m[0, :, 2], [0, 0, -3, -2, -1])
    assert now.there[0].tolist() == [False, False, True, True, True] and now.seen[0] == 3


def test_a_track_is_told_nothing_of_the_others(untrained):
    now = seen()
    tokens, base, sigma = memory.tokens(now, way(3), np.arange(3)), now.mean[:, :4], memory.spread_px(now)
    together, _ = predict(untrained, tokens, base, sigma, way(3).known)
    for k in range(3):
        alone, _ = predict(untrained, tokens[k : k + 1], base[k : k + 1], sigma[k : k + 1], way(1).known)
        np.testing.assert_allclose(alone[0], together[k], atol=1e-4)


@pytest.mark.parametrize("unposed", [False, True])
def test_where_the_cameras_way_is_not_known_only_a_network_that_learned_so_is_asked(unposed, tmp_path):
    torch.manual_seed(0)
    trained = ResidualTrackSSM(SIZES["small"])
    torch.nn.init.normal_(trained.ssm_decoder.head_series[-1].answer_out.bias)
    torch.nn.init.normal_(trained.ssm_decoder.spread_out.bias)
    content = {"model_state_dict": trained.state_dict(), OWN_NOTE: {"form": "residual", "unposed": unposed}}
    torch.save(content, tmp_path / "trained.pth")
    now, network = seen(), load_residual(tmp_path / "trained.pth")
    tokens, base, sigma = memory.tokens(now, way(3), np.zeros(3, int)), now.mean[:, :4], memory.spread_px(now)
    for known in (np.zeros(3, bool), np.array([True, False, True])):
        answers = predict(network, tokens, base, sigma, known)
        for answer, plain in zip(answers, (base, sigma), strict=True):
            moved = np.abs(answer - plain).max(axis=1) > 0.01
            assert moved.tolist() == (known | unposed).tolist()


@given(st.integers(0, 2**32 - 1))
def test_answers_turn_back_into_boxes(seed):
    rng = torch.Generator().manual_seed(seed)
    base = torch.rand(4, 4, generator=rng, dtype=torch.float64) * 100 + 20
    box = base * (1 + 0.2 * (torch.rand(4, 4, generator=rng, dtype=torch.float64) - 0.5))
    sigma = base.new_full((4, 4), 8.0)
    torch.testing.assert_close(boxes_of(answers_of(base, sigma, box), base, sigma), box)


def test_the_public_form_is_not_taken_for_the_residual(tmp_path):
    torch.save({"model_state_dict": D2MP(SIZES["small"], False).state_dict()}, tmp_path / "public.pt")
    with pytest.raises(UnexpectedModel, match="takes 8 numbers per token"):
        load_residual(tmp_path / "public.pt")
