"""Depth estimator: owns Depth Anything V2 Small and turns a picture into disparity.

In: RGB pictures. Out: relative disparity, larger = nearer, same size. Called by the robot's worker thread (through
robot.networks) and by serve. The weights come from the model hub (Apache-2.0); where no hub is reachable the robot's
sensor or simulator gives the depth.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from models.errors import MissingWeight

REPOSITORY = "depth-anything/Depth-Anything-V2-Small-hf"
# The short side that the model was trained with, a multiple of its 14-pixel patches (Depth-Anything-V2, 518).
SIDE_PX = 518
PATCH_PX = 14
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def from_hub() -> Any:
    """The published network, fetched unless it is cached. Raises MissingWeight with the command that gets it."""
    from transformers import AutoModelForDepthEstimation

    try:
        return AutoModelForDepthEstimation.from_pretrained(REPOSITORY)
    except OSError as error:
        raise MissingWeight(
            f"{REPOSITORY} is neither cached nor reachable; get it with `hf download {REPOSITORY}`, or use the "
            "sensor's depth"
        ) from error


class DepthAnything:
    """Four verbs: load, warm_up, disparity, close."""

    def __init__(self, device: str = "cpu", side_px: int = SIDE_PX) -> None:
        self._device = device
        self._side_px = side_px
        self._network: Any = None

    def load(self, network: Any = None) -> None:
        """Fetch the network from the hub, or take one that is given. Raises MissingWeight when none can be had."""
        network = from_hub() if network is None else network
        self._network = network.eval().to(self._device)

    def warm_up(self) -> None:
        """One pass on a grey picture."""
        self.disparity(np.full((480, 640, 3), 128, np.uint8))

    def disparity(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB to (H, W) float32, larger = nearer, up to an unknown scale and shift."""
        if self._network is None:
            raise RuntimeError("load() the depth model before using it")
        height_px, width_px = rgb.shape[:2]
        with torch.inference_mode():
            pixels = torch.tensor(self._prepare(rgb), device=self._device)
            depth = self._network(pixel_values=pixels).predicted_depth[0].float().cpu().numpy()
        return cv2.resize(depth, (width_px, height_px), interpolation=cv2.INTER_LINEAR)

    def close(self) -> None:
        """Free the network. Safe before load() and when called twice."""
        self._network = None

    def _prepare(self, rgb: np.ndarray) -> np.ndarray:
        """(1, 3, h, w) float32, short side as trained, both sides whole patches."""
        scale = self._side_px / min(rgb.shape[:2])
        height, width = (max(1, round(n * scale / PATCH_PX)) * PATCH_PX for n in rgb.shape[:2])
        resized = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255.0
        return ((resized - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)[None]
