"""The robot's eyes on a GPU: milliseconds of depth and of segmentation for a picture of 640 × 480.

In: a Setting. Out: Comparisons for gpu.py. Depth is Depth Anything V2 Small of the hub; segmentation the SO-101's
network that ships, and MobileSAM with one box.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from actors.depth import IMAGENET_MEAN, IMAGENET_STD, PATCH_PX, SIDE_PX, DepthAnything
from actors.messages import Prompt
from actors.segmenter import PromptSegmenter
from actors.so101_segmenter import SHIPPED, So101Segmenter
from benchmarks.on_device import Setting, depth_network, pictures
from benchmarks.paired import Comparison, Fact, in_turns
from benchmarks.robot_decide import as_trained

COMMAND = "make bench-gpu"


def depth(setting: Setting) -> Iterator[Comparison | Fact]:
    """Beside transformers' own preparation and enlargement around the same network."""
    side_px = PATCH_PX * 4 if setting.small else SIDE_PX
    actor, picture = DepthAnything(setting.device, side_px), pictures()[0]
    network, note = depth_network(setting)
    actor.load(network)
    peer = _transformers(network, setting.device, side_px)
    what = f"depth of a picture, Depth Anything V2 Small{note}"
    yield _timed(setting, what, "transformers", lambda: actor.disparity(picture), lambda: peer(picture))
    yield Fact(f"{what}: peak of memory", setting.peak(lambda: actor.disparity(picture)), COMMAND)


def segmentation(setting: Setting) -> Iterator[Comparison | Fact]:
    """The robot's network beside itself as it was trained; MobileSAM beside this machine's processor."""
    picture = pictures()[0]
    actor, trained = So101Segmenter(SHIPPED, setting.device), as_trained(SHIPPED, setting.device)
    actor.load()
    what, peer = "segmentation of a picture, SO-101's network", "the network as trained"
    yield _timed(setting, what, peer, lambda: actor.segment(picture), lambda: trained(picture))
    prompt = [Prompt(box_px=np.array([260.0, 200.0, 400.0, 300.0], np.float32))]
    here, there = PromptSegmenter(device=setting.device), PromptSegmenter()
    here.load()
    there.load()
    what, peer = "picture and one box, MobileSAM", "this machine's processor, one thread"
    works = [lambda who=who: who.segment(who.embed(picture), prompt) for who in (here, there)]
    yield _timed(setting, what, peer, *works)


def _timed(
    setting: Setting, what: str, peer: str, ours: Callable[[], object], theirs: Callable[[], object]
) -> Comparison:
    samples = in_turns(lambda: 1e3 * setting.seconds(ours), lambda: 1e3 * setting.seconds(theirs))
    return Comparison(what, peer, "ms", "less", *samples, COMMAND)


def _transformers(network: Any, device: str, side_px: int) -> Callable[[np.ndarray], Any]:
    """Its image processor, the network, its post-processing."""
    from transformers import DPTImageProcessor

    processor = DPTImageProcessor(
        size={"height": side_px, "width": side_px},
        ensure_multiple_of=PATCH_PX,
        keep_aspect_ratio=True,
        image_mean=IMAGENET_MEAN.tolist(),
        image_std=IMAGENET_STD.tolist(),
    )

    @torch.inference_mode()
    def estimate(picture: np.ndarray) -> Any:
        told = network(**processor(picture, return_tensors="pt").to(device))
        (found,) = processor.post_process_depth_estimation(told, target_sizes=[picture.shape[:2]])
        return found["predicted_depth"].cpu().numpy()

    return estimate
