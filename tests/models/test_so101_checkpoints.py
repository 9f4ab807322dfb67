"""The public policy and segmentation layouts load without running code and reproduce the reference outputs.

Files come from shared/parity/make_checkpoint.py: random weights in the public containers.
"""

import importlib.util
import io
import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch

from models import drqv2, inert_pickle, so101_seg
from models.errors import UnexpectedModel


@pytest.fixture(scope="module")
def make(shared_dir):
    """The script that writes checkpoints, as a module."""
    path = shared_dir / "parity" / "make_checkpoint.py"
    spec = importlib.util.spec_from_file_location("make_checkpoint", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def snapshot_file(make, tmp_path_factory):
    path = tmp_path_factory.mktemp("snapshot") / "1200000_snapshot.pt"
    make.save_checkpoint(make.build_checkpoint("drqv2_snapshot", 7, optimizer="empty"), path)
    return path


@pytest.fixture(scope="module")
def seg_file(make, tmp_path_factory):
    path = tmp_path_factory.mktemp("seg") / "best.ckpt"
    make.save_checkpoint(make.build_checkpoint("efficientvit_seg", 7, optimizer="full"), path)
    return path


@pytest.fixture(scope="module")
def expected(shared_dir):
    return {
        "drqv2": np.load(shared_dir / "parity" / "expected_drqv2_snapshot_seed7.npz"),
        "seg": np.load(shared_dir / "parity" / "expected_efficientvit_seg_seed7.npz"),
    }


def test_policy_parity(snapshot_file, expected):
    want, network = expected["drqv2"], drqv2.load_snapshot(snapshot_file).network
    image, low_dim = torch.tensor(want["rgb"]).float(), torch.tensor(want["low_dim_state"])
    with torch.inference_mode():
        features = network.features(image)
        action = network.act(image, low_dim)
        mean = torch.tensor(want["action_mean"])
        q, q_target = network.q(features, low_dim, mean), network.q_target(features, low_dim, mean)
        bottleneck = network.actor_model.input_preprocess_modules
        view = bottleneck["fused_view_feats"](features)
        low = bottleneck["low_dim_obs"](low_dim.flatten(1))
    assert action.numpy() == pytest.approx(want["action_mean"], abs=1e-5)
    assert features[:, ::49].numpy() == pytest.approx(want["encoder_every49"], abs=5e-5)
    assert features.double().norm(dim=1).numpy() == pytest.approx(want["encoder_norm"], rel=1e-6)
    assert view.numpy() == pytest.approx(want["view_bottleneck"], abs=5e-5)
    assert low.numpy() == pytest.approx(want["low_dim_bottleneck"], abs=5e-5)
    assert q.numpy() == pytest.approx(want["q_of_action_mean"], abs=2e-5)
    assert q_target.numpy() == pytest.approx(want["q_target_of_action_mean"], abs=2e-5)


@pytest.mark.parametrize("mistake", ["divided", "newest first", "planes swapped", "no proprioception"])
def test_the_parity_check_sees_mistakes(snapshot_file, expected, mistake):
    want, network = expected["drqv2"], drqv2.load_snapshot(snapshot_file).network
    image, low_dim = torch.tensor(want["rgb"]).float(), torch.tensor(want["low_dim_state"])
    image = {"divided": image / 255, "newest first": image.flip(1), "planes swapped": image.flip(2)}.get(mistake, image)
    low_dim = low_dim * 0 if mistake == "no proprioception" else low_dim
    with torch.inference_mode():
        action = network.act(image, low_dim).numpy()
    assert np.abs(action - want["action_mean"]).max() > 1e-3


def test_snapshot_metadata(snapshot_file):
    loaded = drqv2.load_snapshot(snapshot_file)
    assert loaded.config["env"]["obs_type"] == "seg_depth" and loaded.config["frame_stack"] == 3
    assert loaded.iterations == 75_000 and len(loaded.sha256) == 64
    assert (loaded.network.frames, loaded.network.planes, loaded.network.low_dim, loaded.network.actions) == (
        3,
        2,
        18,
        4,
    )


def test_the_best_snapshot_with_its_old_numpy_scalar_loads(make, tmp_path):
    path = tmp_path / "best_snapshot.pt"
    make.save_checkpoint(make.build_checkpoint("drqv2_snapshot", 11, best=True, optimizer="empty"), path)
    assert inert_pickle.load(path)["best_eval_reward"] == pytest.approx(370.08)
    drqv2.load_snapshot(path)


def test_segmentation_parity(seg_file, expected):
    want, loaded = expected["seg"], so101_seg.load_checkpoint(seg_file)
    assert (loaded.run, loaded.classes, loaded.height_px, loaded.width_px) == ("efficientvit_seg", 6, 480, 640)
    assert sum(p.numel() for p in loaded.network.parameters()) == 846_838
    with torch.inference_mode():
        batch = torch.tensor(want["image"]).permute(2, 0, 1)[None]
        logits = loaded.network(so101_seg.normalise(batch))[0].numpy()
    assert logits[:, ::8, ::8] == pytest.approx(want["logits_every8"], abs=2e-4)
    assert logits.mean((1, 2), dtype=np.float64) == pytest.approx(want["logits_mean"], abs=2e-4)
    sure = ~np.unpackbits(want["ambiguous"]).reshape(480, 640).astype(bool)
    assert (logits.argmax(0) == want["mask"])[sure].all()


def test_the_folded_network_is_the_same_function(make, tmp_path):
    path = tmp_path / "best.ckpt"
    make.save_checkpoint(make.build_checkpoint("efficientvit_seg", 5, optimizer="empty"), path)
    network = so101_seg.load_checkpoint(path).network
    folded = so101_seg.for_inference(network)
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)], "the original is left as it is"
    picture = so101_seg.normalise(torch.randint(0, 255, (1, 3, 96, 128), generator=torch.Generator().manual_seed(0)))
    with torch.inference_mode():
        assert torch.allclose(folded(picture), network(picture), atol=2e-4)


@pytest.mark.parametrize("variant", ["old_hparams", "metric_buffers"])
def test_segmentation_variants_load(make, tmp_path, variant):
    path = tmp_path / "best.ckpt"
    make.save_checkpoint(make.build_checkpoint("efficientvit_seg", 3, optimizer="empty", **{variant: True}), path)
    loaded = so101_seg.load_checkpoint(path)
    assert loaded.height_px == (84 if variant == "old_hparams" else 480)


def test_84_px_parity(make, tmp_path, expected):
    """The older class ran such files at 84×84, with PIL's antialiased bilinear."""
    from PIL import Image

    path = tmp_path / "best.ckpt"
    make.save_checkpoint(make.build_checkpoint("efficientvit_seg", 7, optimizer="empty", old_hparams=True), path)
    loaded, want = so101_seg.load_checkpoint(path), expected["seg"]
    small = np.array(Image.fromarray(want["image"]).resize((84, 84), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        logits = loaded.network(so101_seg.normalise(torch.tensor(small).permute(2, 0, 1)[None]))[0].numpy()
    assert logits == pytest.approx(want["old84_logits"], abs=2e-4)


class Evil:
    def __reduce__(self):
        return eval, ("open('/tmp/never', 'w')",)


class Meddler:
    """Sets an attribute on the reader's own function."""

    def __reduce__(self):
        import torch._utils

        return torch._utils._rebuild_tensor_v2, (), {"__defaults__": (1,)}


def archive(path, payload):
    buffer = io.BytesIO()
    pickle.dump(payload, buffer, protocol=2)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", buffer.getvalue())
    return path


@pytest.mark.parametrize("payload", [Evil(), {"agent": Evil()}, exec, Meddler()])
def test_a_hostile_snapshot_is_refused_and_nothing_runs(tmp_path, payload):
    with pytest.raises(UnexpectedModel, match="refused"):
        drqv2.load_snapshot(archive(tmp_path / "evil.pt", payload))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip", pickle.dumps({"agent": {}})])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    for read in (drqv2.load_snapshot, so101_seg.load_checkpoint):
        with pytest.raises(UnexpectedModel, match=r"x\.pt"):
            read(path)


def test_another_layout_is_named(make, tmp_path):
    content = make.build_checkpoint("drqv2_snapshot", 7, optimizer="empty")
    content["agent"]["actor_model.main_mlp.1.weight"] = torch.ones(256)
    make.save_checkpoint(content, tmp_path / "norm.pt")
    with pytest.raises(UnexpectedModel, match=r"1 unknown.*main_mlp\.1\.weight"):
        drqv2.load_snapshot(tmp_path / "norm.pt")
    make.save_checkpoint({"encoder": {}, "actor": {}}, tmp_path / "handoff.pt")
    with pytest.raises(UnexpectedModel, match=r"\['actor', 'encoder'\], expected `agent`"):
        drqv2.load_snapshot(tmp_path / "handoff.pt")
    content = make.build_checkpoint("efficientvit_seg", 7, optimizer="empty")
    content["state_dict"]["seg_head.weight"] = torch.ones(7, 64, 1, 1)
    make.save_checkpoint(content, tmp_path / "seg.ckpt")
    with pytest.raises(UnexpectedModel, match=r"seg_head\.weight is \(7, 64, 1, 1\), expected \(6, 64, 1, 1\)"):
        so101_seg.load_checkpoint(tmp_path / "seg.ckpt")


def test_a_tensor_that_reaches_past_its_storage_is_refused():
    storage = torch.zeros(4)
    with pytest.raises(pickle.UnpicklingError, match="does not fit"):
        inert_pickle._rebuild_tensor(storage, 2, (4,), (1,))
    with pytest.raises(pickle.UnpicklingError, match="does not fit"):
        inert_pickle._rebuild_tensor(storage, 0, (2,), (-1,))
