"""Masks of every frame of a clip from prompts on a few: forwards from each prompt, and backwards from new objects.

In: a clip's frames in order and again backwards in parts, what is to be asked at a prompt, a segmenter's streams.
Out: mask rows in columns. Called by sam2_video.py. Holds one window of frames, the streams' flat memories and the run
lengths of the masks, whatever the clip's length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.operators.geometry import encode_rle, mask_box, mask_iou
from data_jobs.egoworld.operators.prompts import Ask
from data_jobs.egoworld.operators.video_identity import Identity, Sighting, match

# Two prompts that return the same pixels are one object; the first asked wins.
SAME_OBJECT_IOU = 0.7
# A tracked mask that the detection confirms so well is better left alone than restarted.
AGREED_IOU = 0.8
# An object out of sight this long is no longer looked for in every frame; it may still be recognised at a prompt.
FORGET_S = 6.0
PROBE = "probe"  # name of a prompt of which it is not yet known whose it is


class Stream(Protocol):
    """What follows objects from frame to frame: actors.video_segmenter.FrameStream."""

    def see(self, image: np.ndarray) -> dict[str, Any]:
        """Next frame; Followed by name."""

    def box(self, name: str, box_px: np.ndarray) -> Any:
        """Begin with a box."""

    def mask(self, name: str, mask: np.ndarray) -> Any:
        """Begin, or correct, with a mask."""

    def forget(self, name: str) -> None:
        """Stop following."""

    def appearance(self, mask: np.ndarray) -> np.ndarray:
        """Looks of what is inside."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One object's mask in one frame, as it will be written."""

    frame_index: int
    timestamp_s: float
    pts: int
    object_id: int
    mask_rle: str
    box: np.ndarray
    score: float
    stability: float
    prompt: str  # text_box, hand_box, or forward / backward


class Propagation:
    """One clip. Call `run` once; then `placed` and `identities` hold the result."""

    def __init__(
        self,
        open_stream: Callable[[], Stream],
        ask: Callable[[np.ndarray, int], Sequence[Ask]],
        prompted: Sequence[int],
        window_frames: int,
    ) -> None:
        self._open_stream, self._ask = open_stream, ask
        self._prompted, self._window_frames = list(prompted), window_frames
        self._forward = open_stream()
        self._followed: set[int] = set()
        self._written: set[tuple[int, int]] = set()  # (frame, object) since the last prompt
        self.identities: dict[int, Identity] = {}
        self.placed: list[Placed] = []

    def run(self, reader: ClipReader) -> list[tuple[int, float, int]]:
        """Go through the clip once forwards, and backwards over the stretches before objects that appear later.

        Returns every frame of the clip: index, seconds, pts.
        """
        asked, frames = set(self._prompted), []
        for window in reader.windows():
            for i, image in enumerate(window.images):
                frame = (int(window.frame_index[i]), float(window.timestamp_s[i]), int(window.pts[i]))
                frames.append(frame)
                found = {int(name): one for name, one in self._forward.see(image).items()}
                how = dict.fromkeys(found, "forward")
                if frame[0] in asked:
                    new = self._at_prompt(image, frame, found, how)
                    self._backwards(reader, image, frame[0], new)
                    self._written.clear()
                self._write(frame, found, how)
                self._forget_lost(frame[1])
        return frames

    def _at_prompt(
        self, image: np.ndarray, frame: tuple[int, float, int], found: dict[int, Any], how: dict[int, str]
    ) -> dict[int, np.ndarray]:
        """Ask, tell old from new, follow the new; puts masks into `found`, returns those of objects that came."""
        asks, sightings = self._sightings(image, frame[0])
        present = {k: one.mask for k, one in found.items() if one.mask.any()}
        of = match(sightings, self.identities, present)
        came: dict[int, np.ndarray] = {}
        for i, (ask, sighting) in enumerate(zip(asks, sightings, strict=True)):
            k = of.get(i)
            if k is None:
                k = len(self.identities)
                self.identities[k] = Identity()
            if k not in present:
                came[k] = sighting.mask
            if k not in present or mask_iou(present[k], sighting.mask) < AGREED_IOU:
                found[k] = self._forward.mask(str(k), sighting.mask)
                how[k] = ask.source
                self._followed.add(k)
            self.identities[k].found(sighting.label, sighting.score, sighting.looks, frame[1])
        return came

    def _sightings(self, image: np.ndarray, index: int) -> tuple[list[Ask], list[Sighting]]:
        """What is asked for, segmented; duplicates and empty masks dropped."""
        asks: list[Ask] = []
        sightings: list[Sighting] = []
        for ask in self._ask(image, index):
            assert ask.prompt.box_px is not None, "every ask of this operator has a box"
            one = self._forward.box(PROBE, ask.prompt.box_px)
            self._forward.forget(PROBE)
            if not one.mask.any() or any(mask_iou(one.mask, other.mask) >= SAME_OBJECT_IOU for other in sightings):
                continue
            asks.append(ask)
            sightings.append(Sighting(ask.label, ask.score, one.mask, self._forward.appearance(one.mask)))
        return asks, sightings

    def _backwards(self, reader: ClipReader, image: np.ndarray, index: int, came: Mapping[int, np.ndarray]) -> None:
        """Follow objects that came since the prompt before back to it; what was found forwards stays."""
        earlier = [frame for frame in self._prompted if frame < index]
        if not came or not earlier:
            return
        stream = self._open_stream()
        stream.see(image)
        for k, mask in came.items():
            stream.mask(str(k), mask)
        last = index
        while last > earlier[-1]:
            first = max(earlier[-1], last - self._window_frames)
            part = list(reader.frames_at(range(first, last)))
            for window in reversed(part):
                frame = (int(window.frame_index[0]), float(window.timestamp_s[0]), int(window.pts[0]))
                found = {int(name): one for name, one in stream.see(window.images[0]).items()}
                self._write(frame, found, dict.fromkeys(found, "backward"))
            last = first

    def _write(self, frame: tuple[int, float, int], found: dict[int, Any], how: dict[int, str]) -> None:
        for k, one in sorted(found.items()):
            if one.mask.any() and (frame[0], k) not in self._written:
                self._written.add((frame[0], k))
                score = self.identities[k].score * one.presence
                rle, box = encode_rle(one.mask), mask_box(one.mask)
                self.placed.append(Placed(*frame, k, rle, box, score, one.stability, how[k]))
                self.identities[k].last_seen_s = max(self.identities[k].last_seen_s, frame[1])

    def _forget_lost(self, time_s: float) -> None:
        for k in sorted(self._followed):
            if time_s - self.identities[k].last_seen_s > FORGET_S:
                self._forward.forget(str(k))
                self._followed.discard(k)
