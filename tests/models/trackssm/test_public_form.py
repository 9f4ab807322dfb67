"""The public TrackSSM layouts load strictly and reproduce the published code's numbers; bad files are named.

Files come from shared/parity/make_checkpoint.py: random weights in the public containers.
"""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from models.errors import UnexpectedModel
from models.trackssm.checkpoint import UnknownSigmoid, load_d2mp, read_checkpoint
from models.trackssm.losses import giou
from models.trackssm.mamba import selective_scan
from models.trackssm.network import D2MP, BadCondition, condition_of
from models.trackssm.size import SIZES

KINDS = {"mot17": False, "dance": True, "nus": True}  # kind → its own output sigmoid


@pytest.fixture(scope="session")
def make(shared_dir):
    """The script that writes checkpoints, as a module."""
    spec = importlib.util.spec_from_file_location("make_checkpoint", shared_dir / "parity/make_checkpoint.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def files(make, tmp_path_factory):
    """Kind → checkpoint, tensors tagged as living on a GPU, as the originals."""
    folder = tmp_path_factory.mktemp("trackssm")
    for kind in KINDS:
        content = make.build_checkpoint(f"trackssm_{kind}", 7, optimizer="empty")
        make.save_checkpoint(content, folder / f"{kind}.pt")
    return {kind: folder / f"{kind}.pt" for kind in KINDS}


@pytest.fixture(scope="session")
def expected(shared_dir):
    """Kind → what the published code computes."""
    return {kind: dict(np.load(shared_dir / f"parity/expected_trackssm_{kind}_seed7.npz")) for kind in KINDS}


def tensor(array):
    return torch.as_tensor(array)


@pytest.mark.parametrize("kind", KINDS)
def test_flow_boxes_and_state_equal_the_reference(kind, files, expected):
    e, network = expected[kind], load_d2mp(files[kind], sigmoid=KINDS[kind])
    assert len(network.encoder.mamba_net.layers) == len(e["layer_out"])
    with torch.no_grad():
        flow = network.encoder(tensor(e["condition"]))
        boxes, state = network.ssm_decoder(tensor(e["condition"])[:, -1, :4], flow)
    native = "sigmoid" if KINDS[kind] else "linear"
    assert str(e["native_mode"]) == native
    np.testing.assert_allclose(flow, e["flow"], atol=5e-5)
    np.testing.assert_allclose(boxes, e[f"heads_{native}"], atol=1e-5)
    np.testing.assert_allclose(boxes[-1], e[f"box_{native}"], atol=1e-5)
    np.testing.assert_allclose(state, e["state_last"], atol=5e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_sigmoid_setting_is_the_callers_choice_not_a_source_edit(kind, files, expected):
    e, network = expected[kind], load_d2mp(files[kind], sigmoid=not KINDS[kind])
    with torch.no_grad():
        got = network.steps(tensor(e["condition"]))
    np.testing.assert_allclose(got, e["heads_linear" if KINDS[kind] else "heads_sigmoid"], atol=5e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_every_gradient_equal_the_reference(kind, files, expected):
    e, network = expected[kind], load_d2mp(files[kind], sigmoid=KINDS[kind])
    smooth, overlap = network.loss(tensor(e["condition"]), tensor(e["target"]))
    (smooth + overlap).backward()
    native = str(e["native_mode"])
    assert float(smooth.detach()) == pytest.approx(float(e[f"loss_l1_{native}"]), rel=1e-6)
    assert float((smooth + overlap).detach()) == pytest.approx(float(e[f"loss_{native}"]), rel=1e-6)
    gradients = {name: p.grad for name, p in network.named_parameters()}
    norms = [0.0 if gradients[n] is None else float(gradients[n].norm()) for n in e["grad_names"].tolist()]
    np.testing.assert_allclose(norms, e["grad_norms"], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_short_tracker_histories_give_the_trackers_boxes(kind, files, expected):
    e, network = expected[kind], load_d2mp(files[kind], sigmoid=KINDS[kind])
    rows = [pixels[:n] for pixels, n in zip(e["history_pixels"], e["history_length"].tolist(), strict=True)]
    condition = np.stack([condition_of(r, tuple(e["image_size"].tolist())) for r in rows])
    with torch.no_grad():
        got = network(tensor(condition))
    np.testing.assert_allclose(got, e[f"generated_{e['native_mode']}"], atol=1e-5)


@pytest.mark.parametrize("container", ["ddpm", "model_state_dict", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_container_with_and_without_prefix_gives_the_same_network(container, prefix, tmp_path, make):
    weights = make.build_state_dict("trackssm_nus", 3)
    named = {prefix + name: value for name, value in weights.items()}
    torch.save({container: named, "epoch": 4} if container else named, tmp_path / "file.pt")
    checkpoint = read_checkpoint(tmp_path / "file.pt")
    assert checkpoint.epoch == (4 if container else None)
    network = load_d2mp(tmp_path / "file.pt", sigmoid=True)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_who_does_not_say_whether_the_sigmoid_is_on_is_asked(files):
    with pytest.raises(UnknownSigmoid, match=r"sigmoid=False for MOT17 .* sigmoid=True for DanceTrack"):
        load_d2mp(files["mot17"])


@pytest.fixture
def small():
    torch.manual_seed(0)
    return D2MP(SIZES["small"], sigmoid=False)


def _refused(path, weights):
    torch.save({"ddpm": weights}, path)
    with pytest.raises(UnexpectedModel) as caught:
        load_d2mp(path, sigmoid=False)
    return str(caught.value)


def test_partial_and_foreign_files_are_refused_by_name(small, tmp_path):
    path, whole = tmp_path / "w.pt", small.state_dict()
    gone = "encoder.mamba_net.layers.1.mixer.D"
    said = _refused(path, {k: v for k, v in whole.items() if k != gone})
    assert f"1 tensors missing ({gone})" in said
    said = _refused(path, {**whole, "encoder.visual.weight": torch.zeros(1)})
    assert "1 tensors unknown (encoder.visual.weight)" in said
    said = _refused(path, {**whole, gone: torch.zeros(3)})
    assert f"{gone} is (3,), expected (128,)" in said
    assert "is no TrackSSM network" in _refused(path, {"conv.weight": torch.zeros(1)})
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UnexpectedModel, match="not a checkpoint that loads without running code"):
        load_d2mp(path, sigmoid=False)


def test_a_state_dict_that_runs_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (sys.exit, (1,))

    torch.save({"ddpm": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UnexpectedModel, match="without running code"):
        read_checkpoint(tmp_path / "evil.pt")


def test_sizes_are_the_published_and_a_fifth_of_a_million(small):
    full = D2MP(SIZES["full"], sigmoid=False)
    assert sum(p.numel() for p in full.parameters()) == 5_129_496
    assert 150_000 < sum(p.numel() for p in small.parameters()) < 250_000


@pytest.mark.parametrize("shape", [(5, 8), (2, 0, 8), (2, 17, 8), (2, 5, 4)])
def test_conditions_of_another_shape_are_refused(small, shape):
    with pytest.raises(BadCondition, match="expected"):
        small(torch.zeros(shape))


def test_histories_with_nan_are_refused():
    rows = np.ones((3, 8))
    rows[1, 2] = np.nan
    with pytest.raises(BadCondition, match="row 1 of a history is not finite"):
        condition_of(rows, (10, 10))


def scan_reference(u, delta, a, b, c):
    """The recurrence as Gu and Dao write it, number by number, in float64: the oracle."""
    batch, length, width = u.shape
    out = np.zeros((batch, length, width))
    for i in range(batch):
        for d in range(width):
            h = np.zeros(a.shape[1])
            for t in range(length):
                h = np.exp(delta[i, t, d] * a[d]) * h + delta[i, t, d] * b[i, t] * u[i, t, d]
                out[i, t, d] = c[i, t] @ h
    return out


@pytest.mark.parametrize("length", [1, 5, 16])
def test_the_scan_equals_the_recurrence(length):
    rng = np.random.default_rng(length)
    u, delta = rng.normal(size=(2, length, 6)), rng.uniform(0.01, 2, (2, length, 6))
    a, b, c = -rng.uniform(0.1, 16, (6, 4)), rng.normal(size=(2, length, 4)), rng.normal(size=(2, length, 4))
    got = selective_scan(*map(torch.as_tensor, (u, delta, a, b, c)))
    np.testing.assert_allclose(got, scan_reference(u, delta, a, b, c), atol=1e-12)
    single = selective_scan(*(torch.as_tensor(x, dtype=torch.float32) for x in (u, delta, a, b, c)))
    np.testing.assert_allclose(single, scan_reference(u, delta, a, b, c), atol=1e-4)


def test_row_wise_giou_is_the_diagonal_of_the_table():
    from torchvision.ops import box_convert, generalized_box_iou

    boxes = torch.rand(2, 50, 4, dtype=torch.float64) * 0.5 + 0.01
    table = generalized_box_iou(*(box_convert(b, "cxcywh", "xyxy") for b in boxes))
    torch.testing.assert_close(giou(*boxes), table.diagonal())


def test_many_tracks_are_scanned_in_parts_that_change_nothing(monkeypatch):
    u, delta, a = torch.randn(7, 5, 6), torch.rand(7, 5, 6), -torch.rand(6, 4)
    b, c = torch.randn(7, 5, 4), torch.randn(7, 5, 4)
    whole = selective_scan(u, delta, a, b, c)
    monkeypatch.setattr("models.trackssm.mamba.MOST_STATE", 3 * a.numel())
    torch.testing.assert_close(selective_scan(u, delta, a, b, c), whole)


def test_boxes_without_area_gain_nothing():
    """Taken as it is, a negative width makes the overlap unbounded, and training runs after it."""
    target = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    for size in ([-0.2, 0.2], [-0.3, -0.1], [0.0, 0.2], [-0.2, -1e-9]):
        box = torch.tensor([[0.5, 0.5, *size]], requires_grad=True)
        value = giou(box, target)
        value.sum().backward()
        assert -1 < value.item() < 1e-3 and box.grad.isfinite().all()


def test_the_loss_needs_memory_for_rows_not_for_pairs_of_rows(small):
    many = 20_000  # a B × B table of one head would take 3.2 GB
    with torch.no_grad():
        smooth, overlap = small.loss(torch.rand(many, 5, 8), torch.rand(many, 4) + 0.1)
    assert torch.isfinite(smooth + overlap)
