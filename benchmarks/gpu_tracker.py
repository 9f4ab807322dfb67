"""The tracker on a GPU: frames followed per second, eager and compiled, and how long it takes to lock on.

In: a Setting. Out: Comparisons and Facts for gpu.py. SAM 2 follows one object with its memory full; each peer does the
same work on the same device in the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from actors.tracker.banks import Bank, make_bank
from actors.tracker.flow import FlowBackend
from actors.tracker.mesh import View
from actors.tracker.search import Searcher, Sought
from actors.tracker.video import Sam2Backend
from actors.tracker.work import Desk
from benchmarks.on_device import ARCHITECTURE, Setting, pictures, sam2
from benchmarks.paired import REPEATS, Comparison, Fact, in_turns
from benchmarks.tracker_memory import WARM_UP, Official, Ours
from models.embedding.embedder import Embedder
from models.proposals import propose
from models.sam2.automatic import Sam2Points
from models.sam2.build import compile_encoder
from models.sam2.picture import prepare
from models.sam2.stream import StreamingSam2

COMMAND = "make bench-gpu"
PER_S = ("frames/s", "more")
MS = ("ms", "less")


def following(setting: Setting) -> Iterator[Comparison | Fact]:
    """Eager float32 beside the official predictor, bfloat16 beside float32, compiled beside eager."""
    network, note = sam2(setting)
    half, _ = sam2(setting, torch.bfloat16)
    compiled, _ = sam2(setting, torch.bfloat16)
    compile_encoder(compiled)
    what = f"frames followed, {ARCHITECTURE}{note}"
    eager, eager_half = _rate(setting, _ours(network)), _rate(setting, _ours(half))
    official = _rate(setting, _official(setting, network))
    yield Comparison(f"{what}, float32", "the official predictor", *PER_S, *in_turns(eager, official), COMMAND)
    yield Comparison(f"{what}, bfloat16", "float32", *PER_S, *in_turns(eager_half, eager), COMMAND)
    quick = _rate(setting, _ours(compiled))
    yield Comparison(f"{what}, bfloat16, compiled", "eager", *PER_S, *in_turns(quick, eager_half), COMMAND)
    for name, rate in (("float32", eager), ("bfloat16", eager_half)):
        yield Fact(f"{what}, {name}: peak of memory", setting.peak(rate), COMMAND)


def _mask() -> np.ndarray:
    mask = np.zeros(pictures()[0].shape[:2], bool)
    mask[200:300, 260:400] = True
    return mask


def _ours(network: Any) -> Any:
    return Ours(network, list(pictures()), encode_first=False)


def _official(setting: Setting, network: Any) -> Any:
    square = prepare(pictures()[0], setting.side_px, setting.device, torch.float32)
    frames = WARM_UP + (REPEATS + 1) * setting.frames
    return Official(network, square.expand(frames, -1, -1, -1), pictures()[0].shape[:2], None)


def _rate(setting: Setting, side: Any) -> Callable[[], float]:
    """Frames per second from here on, the memory filled before."""
    mask = _mask()
    for _ in range(WARM_UP):
        side.step(mask)
    return lambda: setting.frames / setting.seconds(lambda: [side.step(mask) for _ in range(setting.frames)])


def masks(setting: Setting) -> Iterator[Comparison | Fact]:
    """Automatic masks of a picture, what acquisition begins with."""
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    network, note = sam2(setting)
    stream, picture, profile = StreamingSam2(network), pictures()[0], setting.profile

    def ours() -> int:
        return len(propose(Sam2Points(network, stream.encode(picture)), profile).masks)

    # Its defaults are our thresholds; its batch is its own.
    generator = SAM2AutomaticMaskGenerator(network, points_per_side=profile.points_per_side)
    generator.predictor._bb_feat_sizes = [(setting.side_px // scale,) * 2 for scale in (4, 8, 16)]
    times = in_turns(_ms(setting, ours), _ms(setting, lambda: generator.generate(picture)))
    what = f"automatic masks, {ARCHITECTURE}{note}, {profile.points_per_side}² points, {ours()} found"
    yield Comparison(what, "SAM2AutomaticMaskGenerator", *MS, *times, COMMAND)
    yield Fact(f"{what}: peak of memory", setting.peak(ours), COMMAND)


def acquisition(setting: Setting) -> Iterator[Comparison | Fact]:
    """From a picture to the best match of a target, MobileSAM here and on the processor; then with SAM 2."""
    here, there = (_search(setting, FlowBackend(Desk(False), device), device) for device in (setting.device, "cpu"))
    what = f"acquisition, {setting.profile.points_per_side}² points"
    times = in_turns(_ms(setting, here), _ms(setting, there))
    yield Comparison(f"{what}, MobileSAM and MobileNetV2", "this machine's processor", *MS, *times, COMMAND)
    network, note = sam2(setting)
    memory = _search(setting, Sam2Backend(network=network), setting.device)
    times = in_turns(_ms(setting, memory), _ms(setting, here))
    yield Comparison(f"{what}, {ARCHITECTURE}{note} and MobileNetV2", "with MobileSAM", *MS, *times, COMMAND)


def _search(setting: Setting, backend: Any, device: str) -> Callable[[], object]:
    embedder = Embedder(device=device, chunk=128)
    embedder.load()
    backend.load()
    searcher, sought = Searcher(backend.decoder, embedder, setting.profile), {"it": Sought(_bank(embedder), None)}
    # A copy each time: a backend does not encode the picture again that it saw last.
    return lambda: searcher.search(pictures()[1].copy(), sought)


def _bank(embedder: Embedder) -> Bank:
    return make_bank("it", [View(pictures()[0], _mask(), None)], embedder)


def _ms(setting: Setting, work: Callable[[], object]) -> Callable[[], float]:
    return lambda: 1e3 * setting.seconds(work)
