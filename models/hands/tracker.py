"""Hands in one image, and hands along a stream: palms where needed, landmarks everywhere.

In: (H, W, 3) uint8 RGB and the regions in which hands were last seen. Out: Landmarks with the region to
look in next. Called by actors/hand_finder.py. Keeps no state of its own: what a stream remembers is the
list of regions it hands back in. Follows hand_landmark_tracking_cpu.pbtxt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.hands.landmarks import LandmarkModel, Landmarks
from models.hands.palm import PalmDetector
from models.hands.regions import Region, region_of_landmarks, region_of_palm, without_repeats

MIN_PRESENCE = 0.5  # the graph's ThresholdingCalculator


@dataclass(frozen=True, slots=True)
class TrackedHand:
    """A hand, and where to look for it in the next image."""

    landmarks: Landmarks
    next_region: Region


class HandTracker:
    """Palm detector and landmark model as one."""

    def __init__(self, palm_path: Path, landmark_path: Path, max_hands: int = 2, threads: int = 1) -> None:
        """Load both models. Raises UnexpectedModel."""
        self._palms = PalmDetector(palm_path, threads)
        self._landmarks = LandmarkModel(landmark_path, threads)
        self.max_hands = max_hands

    def __call__(self, image: np.ndarray, last_seen: list[Region]) -> list[TrackedHand]:
        """Hands in `image`. `last_seen`: `next_region`s of the image before; empty = look everywhere.

        Palms are looked for only while fewer than max_hands are being followed: they cost as much as two
        hands.
        """
        regions = list(last_seen)
        if len(last_seen) < self.max_hands:
            palms = self._palms(image)[: self.max_hands]
            regions = [region_of_palm(palm.box_px, palm.keypoints_px) for palm in palms] + regions
        found = [self._landmarks(image, region) for region in without_repeats(regions)]
        hands = [one for one in found if one.presence > MIN_PRESENCE]
        if len(hands) > self.max_hands:
            # New palms and followed hands together may be too many; MediaPipe then gives more hands than asked for.
            hands = sorted(hands, key=lambda one: one.presence, reverse=True)[: self.max_hands]
        return [TrackedHand(one, region_of_landmarks(one.points_px)) for one in hands]
