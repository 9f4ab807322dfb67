"""HandFinder: owns MediaPipe's palm and landmark models and finds hands in pictures and in streams.

In: (H, W, 3) uint8 RGB images. Out: Hands. Called by data_jobs/egoworld operators and serve. Knows nothing
of Ray or files beyond the weights catalogue.

Sides: MediaPipe labels hands as if every image were a mirrored selfie. Ours are not mirrored, so its label
is swapped here, and `Hand.side` is the person's own left or right.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from actors.messages import Hand, Side
from models import weights
from models.hands.regions import Region
from models.hands.tracker import HandTracker, TrackedHand

Variant = Literal["full", "lite"]


class HandFinder:
    """Finds up to `max_hands` hands. The same images give bit-identical hands, whatever else runs.

    Safe to call from several threads (calls wait for each other). `lite` needs about two thirds of `full`'s
    time and misses a few more hands.
    """

    def __init__(self, variant: Variant = "full", max_hands: int = 2, threads: int = 1) -> None:
        if variant not in ("full", "lite"):
            raise ValueError(f"variant {variant!r} is unknown; choose 'full' or 'lite'")
        if max_hands < 1 or threads < 1:
            raise ValueError(f"max_hands and threads must be at least 1, not {max_hands} and {threads}")
        self.variant, self.max_hands, self.threads = variant, max_hands, threads
        self._tracker: HandTracker | None = None

    @property
    def weight_names(self) -> tuple[str, str]:
        """Catalogue names of the two models, for `models.weights.fetch` and `sha256_of`."""
        return f"palm_detection_{self.variant}", f"hand_landmark_{self.variant}"

    def load(self) -> None:
        """Read the models; a second call does nothing. Raises MissingWeight with the command to run."""
        if self._tracker is None:
            palm, landmark = (weights.path_of(name) for name in self.weight_names)
            self._tracker = HandTracker(palm, landmark, self.max_hands, self.threads)

    def warm_up(self) -> None:
        """Load, and run both models once, so that the first real image is not slower than the others."""
        self.load()
        blank = np.zeros((192, 192, 3), np.uint8)
        tracker = self._loaded()
        tracker(blank, [])
        tracker(blank, [Region(96.0, 96.0, 96.0, 0.0)])

    def find(self, image: np.ndarray) -> list[Hand]:
        """Hands in one (H, W, 3) uint8 RGB image, best palm first, looked for anew."""
        return [_hand(tracked) for tracked in self._loaded()(_checked(image), [])]

    def open_stream(self) -> HandStream:
        """A new stream of images that follow each other; any number may be open at once."""
        return HandStream(self)

    def follow(self, image: np.ndarray, last_seen: list[Region]) -> tuple[list[Hand], list[Region]]:
        """Hands in an image, looked for around `last_seen`; and the regions to give for the next one."""
        tracked = self._loaded()(_checked(image), last_seen)
        return [_hand(one) for one in tracked], [one.next_region for one in tracked]

    def close(self) -> None:
        """Free the models. Safe before load() and when called twice."""
        self._tracker = None

    def _loaded(self) -> HandTracker:
        if self._tracker is None:
            raise RuntimeError("the hand finder is not loaded; call load() first (or again, after close())")
        return self._tracker


class HandStream:
    """Hands along one video: its result is fully determined by the images given since it was opened.

    Where hands were in the last image is looked at first, and palms are searched only while fewer than
    `max_hands` are followed: steadier and faster than `HandFinder.find` on every image. The images must be
    of one size.
    """

    def __init__(self, finder: HandFinder) -> None:
        self._finder = finder
        self._last_seen: list[Region] = []
        self._size: tuple[int, ...] | None = None

    def next(self, image: np.ndarray) -> list[Hand]:
        """Hands in the next (H, W, 3) uint8 RGB image. Raises ValueError when its size has changed."""
        if self._size not in (None, image.shape):
            raise ValueError(f"a stream of {self._size} images was given one of {image.shape}; open a new stream")
        hands, self._last_seen = self._finder.follow(image, self._last_seen)
        self._size = image.shape
        return hands


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}")
    return np.ascontiguousarray(image)


def _hand(tracked: TrackedHand) -> Hand:
    found = tracked.landmarks
    xy = found.points_px[:, :2]
    side: Side = "right" if found.left_if_mirrored > 0.5 else "left"
    return Hand(
        side=side,
        side_score=max(found.left_if_mirrored, 1 - found.left_if_mirrored),
        presence_score=found.presence,
        landmarks_px=found.points_px,
        world_landmarks_m=found.world_m,
        box_px=np.concatenate([xy.min(axis=0), xy.max(axis=0)]),
    )
