"""The service's own tracker in one process: far networks are like near ones; a state moves without its banks."""

import numpy as np
import pytest

from actors.segmenter import PromptSegmenter
from actors.tracker.banks import restore_bank
from actors.tracker.far import FarEmbedder, FarFlow, Maker, with_banks, without_banks
from actors.tracker.flow import FlowBackend
from actors.tracker.mesh import View
from actors.tracker.work import Desk
from models.embedding.embedder import Embedder
from robot import wire
from serve.zero_shot import _plain
from tests.serve import scene

# Nothing is searched for in the dark: a search takes MobileSAM seconds.
DARK = np.zeros((120, 160, 3), np.uint8)


@pytest.fixture(scope="module")
def far(weights):
    weights("mobile_sam"), weights("mobilenet_v2")
    segmenter, embedder = PromptSegmenter(), Embedder()
    segmenter.load()
    embedder.load()
    return Maker(segmenter, FarEmbedder(embedder, embedder.name, embedder.fingerprint)), segmenter


@pytest.fixture(scope="module")
def bank(far):
    rgb, mask = scene.template()
    return far[0].bank("disc", [View(rgb, mask > 0, None)])


def test_a_bank_travels_as_plain_numbers(bank):
    saved = wire.unpack(wire.pack({"type": "bank", **_plain(bank.save())}), 1 << 28)
    del saved["type"]
    back = restore_bank(saved)
    assert back.fingerprint == bank.fingerprint and np.array_equal(back.patches, bank.patches)


def test_far_and_near_encoders_see_the_same(far):
    _, segmenter = far
    near = FlowBackend(Desk(False))
    near.load()
    there = FarFlow(Desk(False), segmenter, near._network, "cpu")
    image = scene.frame(0)
    (one, fit), (other, same_fit) = near._encode(image), there._encode(image)
    assert fit == same_fit and np.allclose(one.numpy(), other.numpy(), atol=1e-4)


def test_a_session_goes_on_in_another_tracker_without_carrying_its_bank(far, bank):
    maker, _ = far
    first = maker.tracker()
    first.load()
    name = first.add_target(bank)
    before = first.step(DARK, 0)
    slim = wire.pack({"type": "saved", "state": without_banks(first.save())})
    whole = wire.pack({"type": "saved", "state": first.save()})
    assert len(whole) - len(slim) > bank.patches.nbytes, "what does not change stays behind"
    second = maker.tracker()
    second.load()
    second.restore(with_banks(wire.unpack(slim, 1 << 28)["state"], {name: bank}))
    after = second.step(DARK, 40_000_000)
    assert second.targets == first.targets and after[0].frame_index == before[0].frame_index + 1
    first.close()
    second.close()
