"""SAM 2 with seeded RANDOM weights (the architecture is real; no public memory weights can be had without a hub),
frames drawn here, and the package's own video predictor as the oracle.
"""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch

from models.sam2.build import build
from models.sam2.picture import prepare
from tests.one_thread import one_thread  # noqa: F401

HEIGHT, WIDTH = 96, 128


def random_network(architecture: str = "sam2.1_hiera_tiny", side_px: int = 64, seed: int = 7):
    """Seeded random weights everywhere, large enough that memory and pointers move the masks."""
    torch.manual_seed(seed)
    network = build(architecture, side_px)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 or name.startswith(("maskmem", "no_")):
                fan_in = parameter[0].numel() if parameter.ndim > 1 else parameter.numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.5 / fan_in**0.5))
    return network


def film(frames: int, seed: int = 0) -> list[np.ndarray]:
    """A disc on a moving texture; it is gone for frames 20 to 25 of every 40."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 255, (HEIGHT * 2, WIDTH * 2, 3), dtype=np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pictures = []
    for index in range(frames):
        picture = texture[index % HEIGHT :, index % WIDTH :][:HEIGHT, :WIDTH].copy()
        if not 20 <= index % 40 < 26:
            centre = (30 + index % 60, 40 + 10 * np.sin(index / 5))
            picture[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 15**2] = (230, 30, 40)
        pictures.append(picture)
    return pictures


def disc(x0: float, y0: float, radius: float = 15) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (x - x0) ** 2 + (y - y0) ** 2 < radius**2


def encode_each_picture_once(network) -> None:
    """Both sides ask the one backbone for the same pictures: answer the second time from a table."""
    answers, encode = {}, network.forward_image

    def remembered(square):
        key = hash(square.numpy().tobytes())
        if key not in answers:
            answers[key] = encode(square)
        return answers[key]

    network.forward_image = remembered


class Official:
    """The package's predictor over a whole film, propagated one frame at a time; nothing is ever pruned."""

    def __init__(self, network, pictures: list[np.ndarray]) -> None:
        images = torch.cat([prepare(each, network.image_size, "cpu", torch.float32) for each in pictures])
        with patch("sam2.sam2_video_predictor.load_video_frames", return_value=(images, *pictures[0].shape[:2])):
            self.state = network.init_state("drawn")
        self.network = network

    def mask(self, frame: int, name: str, mask: np.ndarray) -> None:
        self.network.add_new_mask(self.state, frame, name, mask)

    def points(self, frame: int, name: str, points, labels, box=None) -> None:
        self.network.add_new_points_or_box(self.state, frame, name, points, labels, box=box)

    def step(self, frame: int) -> dict[str, torch.Tensor]:
        (_, names, _) = next(iter(self.network.propagate_in_video(self.state, frame, 0)))
        found = {}
        for index, name in enumerate(names):
            out = self.state["output_dict_per_obj"][index]
            entry = out["cond_frame_outputs"].get(frame) or out["non_cond_frame_outputs"][frame]
            found[name] = (entry["pred_masks"], float(entry["object_score_logits"]))
        return found


@pytest.fixture(scope="session")
def network():
    return random_network()
