"""The stream against the package's own video predictor: the same bits, and memory that does not grow."""

from __future__ import annotations

import logging
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.sam2.build import build
from models.sam2.stream import StreamingSam2
from tests.models.sam2.conftest import HEIGHT, WIDTH, Official, disc, encode_each_picture_once, film, random_network

BALANCED = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"


def balance_presence(network, pictures) -> None:
    """Move the random head's bias so that the object counts as present in some frames and absent in others."""
    stream = StreamingSam2(network)
    scores = []
    for picture in pictures:
        stream.see(picture)
        if stream.frame == 0:
            stream.prompt("disc", mask=disc(30, 40))
        scores.append(stream.propagate()["disc"].presence)
    bias = dict(network.named_parameters())[BALANCED]
    with torch.no_grad():
        bias -= float(np.median(scores[1:]))


def run_both(network, pictures, script):
    """`script(frame, do)` prompts both sides; yields (frame, name, theirs, ours) and checks names."""
    stream, official = StreamingSam2(network, "exact"), Official(network, pictures)
    for frame, picture in enumerate(pictures):
        stream.see(picture)
        script(frame, stream, official, "before")
        if not stream.objects:
            continue
        theirs, ours = official.step(frame), stream.propagate()
        assert list(theirs) == list(ours)
        for name in ours:
            yield frame, name, theirs[name], ours[name]
        script(frame, stream, official, "after")


def churn(frame, stream, official, when, removed=38, added=45) -> None:
    """Masks, boxes, points; re-prompts before and after tracking; objects added and removed."""
    if (frame, when) == (0, "before"):
        stream.prompt("disc", mask=disc(30, 40))
        official.mask(0, "disc", disc(30, 40))
    if (frame, when) == (9, "before"):
        box = np.array([40, 30, 80, 70], np.float32)
        stream.prompt("second", box_px=box)
        official.points(9, "second", None, None, box=box)
    if (frame, when) == (17, "after"):  # a correction of a tracked frame, with the previous logits
        points, labels = np.array([[50, 40], [10, 10]], np.float32), np.array([1, 0], np.int32)
        stream.prompt("disc", points_px=points, labels=labels)
        official.points(17, "disc", points, labels)
    if (frame, when) == (30, "before"):  # found again after it was gone
        stream.prompt("disc", mask=disc(60, 45))
        official.mask(30, "disc", disc(60, 45))
    if (frame, when) == (removed, "before"):
        stream.forget("second")
        official.network.remove_object(official.state, "second")
    if (frame, when) == (added, "before"):
        points, labels = np.array([[64, 48]], np.float32), np.array([1], np.int32)
        stream.prompt("third", points_px=points, labels=labels)
        official.points(added, "third", points, labels)


@pytest.mark.parametrize("architecture", ["sam2.1_hiera_tiny", pytest.param("sam2_hiera_tiny", marks=pytest.mark.slow)])
def test_the_logits_are_those_of_the_unpruned_official_predictor(architecture):
    pictures = film(70)
    network = random_network(architecture)
    encode_each_picture_once(network)
    balance_presence(network, pictures[:12])
    compared, signs = 0, set()
    for frame, name, (logits, presence), ours in run_both(network, pictures, churn):
        assert torch.equal(logits, ours.logits), f"{name} differs in frame {frame}"
        assert presence == ours.presence
        compared += 1
        signs.add(presence > 0)
    assert compared > 100
    assert signs == {True, False}, "the film must show frames with and without the object"


def real_film(shared_dir, frames: int) -> list[np.ndarray]:
    """Four real pictures in turn; an even board hides all of them in frames 20 to 25 of every 40."""
    import cv2

    files = sorted((shared_dir / "data/lmo/rgb").glob("*.jpg"))[:4]
    real = [cv2.resize(cv2.imread(str(file))[:, :, ::-1], (WIDTH, HEIGHT)) for file in files]
    board = np.full((HEIGHT, WIDTH, 3), (90, 70, 50), np.uint8)
    return [board if 20 <= index % 40 < 26 else real[index % 4] for index in range(frames)]


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_same_at_1024_px_with_the_real_image_weights(shared_dir):
    """Real pictures and the real image half; the memory half is RANDOM, seeded. All that happens in the small film,
    with fewer frames of several objects: two steps of one object take a quarter of a minute.
    """
    path = shared_dir / "weights/sam2_hiera_tiny_image_fp16.safetensors"
    if not path.is_file():
        pytest.skip(f"the real SAM 2 image weights are not here: {path}")
    network = random_network("sam2_hiera_tiny", side_px=1024)
    tensors = load_file(path)
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    encode_each_picture_once(network)
    pictures = real_film(shared_dir, 65)
    balance_presence(network, pictures[17:23])
    compared, frames, signs = 0, set(), set()
    script = partial(churn, removed=14, added=60)
    for frame, name, (logits, presence), ours in run_both(network, pictures, script):
        assert torch.equal(logits, ours.logits), f"{name} differs in frame {frame}"
        assert presence == ours.presence
        compared += 1
        frames.add(frame)
        signs.add(presence > 0)
        logging.info("frame %d, %s: equal, presence %+.2f", frame, name, presence)  # of interest for half an hour
    assert len(frames) == 65
    assert compared == 65 + 5 + 5
    assert signs == {True, False}, "the film must show frames with and without the object"


def sizes(thing, seen=None) -> tuple[int, int]:
    """Bytes of tensors (each storage once) and number of entries, through containers and slots."""
    seen = set() if seen is None else seen
    if isinstance(thing, torch.Tensor):
        storage = thing.untyped_storage()
        if storage.data_ptr() in seen:
            return 0, 1
        seen.add(storage.data_ptr())
        return storage.nbytes(), 1
    if isinstance(thing, dict):
        parts = list(thing.values())
    elif isinstance(thing, list | tuple | set):
        parts = list(thing)
    elif isinstance(thing, torch.nn.Module):
        return 0, 1
    else:
        slots = [getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ())]
        parts = slots or list(getattr(thing, "__dict__", {}).values())
    found = [sizes(part, seen) for part in parts]
    return sum(size for size, _ in found), len(found) + sum(count for _, count in found)


class Canned(StreamingSam2):
    """The same stream over four frames encoded once: flatness needs many frames, not many encodings."""

    def __init__(self, network, mode) -> None:
        super().__init__(network, mode)
        self.canned = [self.encode(picture) for picture in film(4)]

    def advance(self, count: int) -> None:
        for _ in range(count):
            self.see(self.canned[(self.frame + 1) % 4])
            if self.frame == 0:
                self.prompt("disc", mask=disc(30, 40))
            self.propagate()

    def state_sizes(self) -> tuple[int, int]:
        return sizes({key: value for key, value in vars(self).items() if key != "canned"})


@pytest.fixture(scope="module")
def small():
    network = random_network(side_px=64)
    with torch.no_grad():
        dict(network.named_parameters())[BALANCED].fill_(50.0)  # always present: robust mode then remembers all
    return network


@pytest.mark.parametrize("mode", ["exact", "robust"])
def test_bytes_and_entries_are_equal_after_n_2n_and_10n_frames(small, mode):
    stream = Canned(small, mode)
    stream.advance(20)
    after_n = stream.state_sizes()
    stream.advance(20)
    after_2n = stream.state_sizes()
    stream.advance(160)
    assert stream.frame == 199
    assert after_n == after_2n == stream.state_sizes()


def reacquire(stream: Canned, times: int) -> list[int]:
    dropped = []
    for _ in range(times):
        stream.see(stream.canned[(stream.frame + 1) % 4])
        found = stream.prompt("disc", mask=disc(30, 40))
        if found.dropped_conditioning is not None:
            dropped.append(found.dropped_conditioning)
        stream.propagate()
    return dropped


@pytest.mark.parametrize("times", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_robust_stays_flat_through_a_thousand_reacquisitions(small, times):
    stream = Canned(small, "robust")
    stream.advance(20)
    reacquire(stream, 10)
    before = stream.state_sizes()
    dropped = reacquire(stream, times)
    assert len(dropped) == times
    assert 0 not in dropped, "the first frame is the one to be kept"
    assert before == stream.state_sizes()


def test_exact_says_when_it_has_to_forget_a_prompted_frame(small, caplog):
    stream = Canned(small, "exact")
    stream.most_conditioning = 5
    stream.advance(1)
    assert reacquire(stream, 4) == []
    assert not caplog.records
    assert reacquire(stream, 3) == [1, 2, 3]
    assert "more than 5 prompted frames" in caplog.text


def test_a_restored_stream_goes_on_with_the_same_bits(network):
    import pickle

    pictures = film(30)
    first = StreamingSam2(network)
    for picture in pictures[:22]:
        first.see(picture)
        if first.frame == 0:
            first.prompt("disc", mask=disc(30, 40))
        first.propagate()
    saved = pickle.loads(pickle.dumps(first.save()))
    second = StreamingSam2(network)
    second.restore(saved)
    for picture in pictures[22:]:
        first.see(picture)
        second.see(picture)
        assert torch.equal(first.propagate()["disc"].logits, second.propagate()["disc"].logits)


def test_a_state_of_another_mode_is_refused(network):
    with pytest.raises(ValueError, match="cannot go on"):
        StreamingSam2(network, "robust").restore(StreamingSam2(network, "exact").save())


def test_objects_of_one_layout_share_a_pass(network):
    """Equal to the loop within float rounding (a batch changes the order of sums), in a third of the calls."""
    pictures = film(12)
    calls = {}
    results = {}
    for shared in (False, True):
        stream = StreamingSam2(network, "exact", share_passes=shared)
        calls[shared] = 0
        step = network.track_step

        def counted(*args, _shared=shared, _step=step, **kwargs):
            calls[_shared] += 1
            return _step(*args, **kwargs)

        network.track_step = counted
        try:
            for picture in pictures:
                stream.see(picture)
                if stream.frame == 0:
                    for index in range(3):
                        stream.prompt(str(index), mask=disc(30 + 20 * index, 40))
                results[shared] = stream.propagate()
        finally:
            del network.track_step
    assert calls[False] - 3 == 3 * (calls[True] - 3) == 3 * 11
    for name, segment in results[True].items():
        torch.testing.assert_close(segment.logits, results[False][name].logits, rtol=1e-3, atol=1e-3)


def test_frames_that_are_not_trusted_are_not_remembered(small):
    stream = Canned(small, "robust")
    stream.advance(1)
    stream.prompt("other", mask=disc(80, 50))
    stream.advance(4)
    bank = stream._objects["disc"].bank
    before = list(bank.recent)
    stream.see(stream.canned[0])
    stream.propagate(learn={"disc": False})
    assert list(bank.recent) == before
    assert len(stream._objects["other"].bank.recent) == len(before) + 1


def test_frames_without_the_object_are_not_remembered(small):
    bias = dict(small.named_parameters())[BALANCED]
    stream = Canned(small, "robust")
    stream.advance(5)
    with torch.no_grad():
        bias.fill_(-50.0)
    try:
        before = list(stream._objects["disc"].bank.recent)
        stream.see(stream.canned[0])
        assert stream.propagate()["disc"].presence < 0
        assert list(stream._objects["disc"].bank.recent) == before
    finally:
        with torch.no_grad():
            bias.fill_(50.0)


def test_bfloat16_is_bfloat16_throughout():
    network = random_network(side_px=64).to(torch.bfloat16)
    stream = StreamingSam2(network)
    seen = stream.see(film(1)[0])
    assert {each.dtype for each in seen.features} == {torch.bfloat16}
    stream.prompt("disc", mask=disc(30, 40))
    stream.propagate()
    stream.see(film(2)[1])
    assert torch.isfinite(stream.propagate()["disc"].logits).all()
    (memory,) = stream._objects["disc"].bank.conditioning.values()
    assert memory.features.dtype == memory.pointer.dtype == torch.bfloat16


def test_bad_prompts_and_frames_are_refused(network):
    stream = StreamingSam2(network)
    with pytest.raises(RuntimeError, match="see"):
        stream.prompt("disc", mask=disc(30, 40))
    with pytest.raises(ValueError, match="uint8 RGB"):
        stream.see(np.zeros((4, 4), np.uint8))
    stream.see(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(ValueError, match="empty mask"):
        stream.prompt("disc", mask=np.zeros((HEIGHT, WIDTH), bool))
    with pytest.raises(ValueError, match="96×128"):
        stream.prompt("disc", mask=np.ones((3, 4), bool))
    with pytest.raises(ValueError, match="either a mask"):
        stream.prompt("disc")
    with pytest.raises(ValueError, match="remembers every frame"):
        stream.propagate(learn={"disc": False})
    with pytest.raises(ValueError, match="no SAM 2 architecture"):
        build("sam3")
    with pytest.raises(ValueError, match="multiple of 32"):
        build("sam2_hiera_tiny", 500)
