"""The tracker whole, with the embedded models, on frames drawn here."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

from actors.tracker.backend import mask_iou
from actors.tracker.errors import BankMismatch, UnknownTarget
from actors.tracker.records import Phase, Reason
from actors.tracker.tracker import Tracker
from actors.tracker.video import Sam2Backend
from models.embedding.crops import CropSpec
from models.embedding.embedder import Embedder
from models.sam2.automatic import Sam2Points
from tests.actors.tracker.conftest import HEIGHT, SPARSE, WIDTH, toy
from tests.models.sam2.conftest import random_network

STEP_NS = 33_000_000


@pytest.fixture(scope="module")
def make(weights, embedder, toy_bank):
    """Trackers of the embedded kind that share one MobileSAM and one embedder."""
    weights("mobile_sam")
    trackers = []

    def new(background=False) -> Tracker:
        tracker = Tracker(background=background, embedder=embedder, profile=SPARSE)
        if trackers:
            tracker._backend._model = trackers[0]._backend._model
        else:
            tracker.load()
        trackers.append(tracker)
        return tracker

    yield new
    for tracker in trackers:
        tracker._desk.close()


def show(tracker, frames):
    return [tracker.step(image, index * STEP_NS) for index, image in frames]


def film(first, last):
    return [(index, toy(60 + 2 * index, 60 - index // 2)[0]) for index in range(first, last)]


def test_it_locks_on_follows_and_goes_on_elsewhere_after_a_restore(make, toy_bank):
    first = make()
    assert first.add_target(toy_bank) == "toy"
    states = [each for (each,) in show(first, film(0, 15))]
    assert states[0].phase is Phase.VERIFY
    assert states[-1].phase is Phase.TRACK
    assert {each.reason for each in states} == {Reason.CANDIDATE, Reason.CONFIRMED}
    for index, state in enumerate(states):
        assert mask_iou(state.mask, toy(60 + 2 * index, 60 - index // 2)[1]) > 0.85, f"frame {index}"
        assert (state.frame_index, state.time_ns) == (index, index * STEP_NS)
    second = make()
    second.restore(pickle.loads(pickle.dumps(first.save())))
    for (one,), (other,) in zip(show(first, film(15, 19)), show(second, film(15, 19)), strict=True):
        assert one.as_json() == other.as_json()
        np.testing.assert_array_equal(one.mask, other.mask)
    # The camera changes its frame size in mid-stream, then shows black: neither is an error.
    (state,) = first.step(np.zeros((HEIGHT // 2, WIDTH, 3), np.uint8), 20 * STEP_NS)
    assert (state.phase, state.reason, state.mask) == (Phase.ACQUIRE, Reason.FRAME_SIZE_CHANGED, None)
    (state,) = first.step(np.zeros((HEIGHT // 2, WIDTH, 3), np.uint8), 21 * STEP_NS)
    assert state.phase is Phase.ACQUIRE


def test_a_table_without_the_toy_gives_no_lock(make, toy_bank):
    tracker = make()
    tracker.add_target(toy_bank)
    (state,) = tracker.step(toy(-100, 60)[0], 0)
    assert state.phase is Phase.ACQUIRE
    assert state.reason in (Reason.NOTHING_PROPOSED, Reason.ALL_REJECTED)
    assert state.mask is None and state.box_px is None and state.presence == 0


def test_a_live_stream_does_not_wait_for_a_search(make, toy_bank, monkeypatch):
    """Held back until twelve frames went by, a search's mask is carried to the frame that is the newest then."""
    tracker = make(background=True)
    tracker.add_target(toy_bank)
    may_answer = threading.Event()
    search = tracker._searcher.search

    def held_back(*arguments):
        answer = search(*arguments)
        assert may_answer.wait(120)
        return answer

    monkeypatch.setattr(tracker._searcher, "search", held_back)
    before = [each for (each,) in show(tracker, film(0, 12))]
    assert {each.phase for each in before} == {Phase.ACQUIRE}
    may_answer.set()
    tracker._search.result(timeout=120)
    (state,) = tracker.step(film(12, 13)[0][1], 12 * STEP_NS)
    assert state.phase is Phase.VERIFY
    assert mask_iou(state.mask, toy(60 + 24, 60 - 6)[1]) > 0.8


def test_targets_have_names(make, toy_bank):
    tracker = make()
    tracker.add_target(toy_bank)
    tracker.add_target(toy_bank, "other")
    assert tracker.targets == ("toy", "other")
    with pytest.raises(ValueError, match="already"):
        tracker.add_target(toy_bank)
    tracker.remove_target("toy")
    assert tracker.targets == ("other",)
    with pytest.raises(UnknownTarget, match="there are: other"):
        tracker.remove_target("toy")


def test_bad_frames_and_times_are_refused(make):
    tracker = make()
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8 RGB"):
            tracker.step(wrong, 0)
    assert tracker.step(np.zeros((8, 8, 3), np.uint8), 5) == ()
    with pytest.raises(ValueError, match="time goes back"):
        tracker.step(np.zeros((8, 8, 3), np.uint8), 4)


def test_a_bank_of_another_recipe_is_refused(weights, toy_bank):
    weights("mobilenet_v2")
    embedder = Embedder(spec=CropSpec(margin=0.3))
    embedder.load()
    tracker = Tracker(background=False, embedder=embedder)
    with pytest.raises(BankMismatch, match="make the bank anew"):
        tracker.add_target(toy_bank)


def test_sam2_encodes_a_frame_once_for_the_search_and_the_track():
    """The real architecture with RANDOM weights: one pass serves automatic masks, the prompt and frame 0."""
    network = random_network()
    passes, encode = [], network.forward_image
    network.forward_image = lambda square: passes.append(1) or encode(square)
    backend = Sam2Backend(network=network)
    backend.load()
    image, ball = toy(80, 60)
    assert backend.see(image, {}) == {}
    assert passes == []
    assert isinstance(backend.decoder(image), Sam2Points)
    backend.begin("toy", ball)
    assert len(passes) == 1
    after = toy(82, 60)[0]
    assert set(backend.see(after, {"toy": True})) == {"toy"}
    assert len(passes) == 2
    other = Sam2Backend(network=network)
    other.load()
    other.restore(pickle.loads(pickle.dumps(backend.save())))
    last = toy(84, 60)[0]
    here, there = backend.see(last, {})["toy"], other.see(last, {})["toy"]
    np.testing.assert_array_equal(here.mask, there.mask)
    assert here.presence == there.presence
    backend.forget("toy")
    assert backend.see(image, {}) == {}
