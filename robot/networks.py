"""Networks behind the loop's protocols: a policy actor as Policy, segmenter and depth actors as Perception.

In: objects made outside this folder (see __main__.py), known here only by the protocols below. Out: Policy and
Perception. Knows no torch; arrays go in and out.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from robot.contract import SEGMENTER_CLASSES, PolicyOffer, SegmenterOffer
from robot.errors import ObservationError, PolicyError
from robot.observation import Planes
from robot.records import Frame, PolicyInput


class PolicyActor(Protocol):
    """Owns a policy network. `describe` gives the fields of contract.PolicyOffer."""

    def describe(self) -> dict[str, Any]:
        """Read from the checkpoint."""

    def warm_up(self) -> None:
        """One forward pass."""

    def act(self, image: np.ndarray, low_dim: np.ndarray) -> np.ndarray:
        """(3, 2, 84, 84) float32 0..255 and (3, 18) float32 to (A,) float32."""

    def close(self) -> None:
        """Free it."""


class NetworkPolicy:
    """Policy protocol over a policy actor."""

    def __init__(self, actor: PolicyActor) -> None:
        self._actor = actor

    def offer(self) -> PolicyOffer:
        """What the checkpoint says."""
        return PolicyOffer(**self._actor.describe())

    def warm_up(self) -> None:
        """One pass, so that the first tick is not the slowest."""
        self._actor.warm_up()

    def reset(self) -> None:
        """The network keeps nothing between decisions."""

    def decide(self, given: PolicyInput) -> np.ndarray:
        """One forward pass."""
        if given.image is None or given.low_dim is None:
            raise PolicyError("this policy needs pictures and proprioception")
        return self._actor.act(given.image, given.low_dim)

    def close(self) -> None:
        """Free it."""
        self._actor.close()


class SegmenterActor(Protocol):
    """Owns a segmentation network."""

    def describe(self) -> dict[str, Any]:
        """`run` and `sha256` of its checkpoint, number of `classes`."""

    def segment(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB to (H, W) uint8 ids."""


class DepthActor(Protocol):
    """Owns a depth network."""

    def disparity(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB to (H, W) float32, larger = nearer."""


class NetworkPerception:
    """Perception protocol: class ids and disparity, each from a network or from the frame's own sensor."""

    def __init__(self, segmenter: SegmenterActor | None, depth: DepthActor | None, depth_epsilon_m: float) -> None:
        self._segmenter, self._depth = segmenter, depth
        self._epsilon_m = np.float32(depth_epsilon_m)
        self.segmenter = self._offer()

    def perceive(self, frame: Frame) -> Planes:
        """Run what there is."""
        return Planes(self._class_ids(frame), self._disparity(frame))

    def _offer(self) -> SegmenterOffer:
        if self._segmenter is None:
            return SegmenterOffer(SEGMENTER_CLASSES, "sensor")
        told = self._segmenter.describe()
        names = SEGMENTER_CLASSES if told["classes"] == len(SEGMENTER_CLASSES) else (f"{told['classes']} classes",)
        return SegmenterOffer(names, told["run"], told["sha256"])

    def _class_ids(self, frame: Frame) -> np.ndarray:
        if self._segmenter is not None:
            return self._segmenter.segment(frame.rgb)
        if frame.class_ids is None:
            raise ObservationError("this camera gives no class ids; name a segmentation checkpoint with --segmenter")
        return frame.class_ids

    def _disparity(self, frame: Frame) -> np.ndarray:
        if self._depth is not None:
            return self._depth.disparity(frame.rgb)
        if frame.depth_m is None:
            raise ObservationError("this camera gives no depth; use --depth depth_anything")
        return 1.0 / (frame.depth_m + self._epsilon_m)
