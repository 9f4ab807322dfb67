"""HandReader: pictures → hands in metres, how sure they are, what they touch and hold; alone or in a row.

In: (H, W, 3) uint8 RGB and the camera's intrinsics. Out: a HandReading per hand. Called by the operator
`hamer:manipulation` and, spawned as an actor, by whoever has a live camera. Hands are found and sided by MediaPipe's
networks (actors/hand_finder.py); what they do is read by ours (models/manipulation). It remembers nothing between
calls: streams do, and they belong to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from actors.hand_finder import HandFinder, Variant
from actors.messages import Hand, Side
from models.manipulation.checkpoint import MANIPULATION, TEMPORAL, load, load_temporal
from models.manipulation.crops import Crop, crop_hand, unmirrored
from models.manipulation.network import ManipulationTransformer
from models.manipulation.temporal import LAYERS, WINDOW, Frames, TemporalFusion, frame_tokens
from models.manipulation.things import ObjectOutput

Floats = npt.NDArray[np.float32]
# Frames that are fused at a time, and how many before them they can see.
CHUNK, BEFORE = 256, LAYERS * (WINDOW - 1)
# An object is told when its query is at least so sure: what the table of docs/manipulation.md counts.
SURE = 0.5


@dataclass(frozen=True, slots=True)
class Thing:
    """An object beside or in a hand, in the camera's frame."""

    query: int  # which of the network's ten told it: the same object is mostly told by the same one
    kind: str  # as the weights name it
    camera_from_object: Floats  # (4, 4)
    confidence: float  # 0..1


@dataclass(frozen=True, slots=True)
class HandReading:
    """One hand in one picture, in the camera's frame."""

    side: Side
    side_score: float
    joints_m: Floats  # (21, 3)
    confidence: float  # 0..1: the less sure of finder and network
    touching: Floats  # (10,) probabilities: five finger ends, then the five bones before them
    things: tuple[Thing, ...]  # those that are at least SURE, the surest first
    tokens: Floats  # (3, C) what `fused` needs of the picture


class HandReader:
    """Verbs: load, warm_up, look, read, fused, close. The same pictures give the same readings.

    Without `temporal` weights it reads pictures, and `fused` is refused.
    """

    def __init__(
        self, weights: Path = MANIPULATION, temporal: Path | None = TEMPORAL, variant: Variant = "full"
    ) -> None:
        self._weights, self._temporal = weights, temporal
        self.finder = HandFinder(variant)
        self._network: ManipulationTransformer | None = None
        self._fusion: TemporalFusion | None = None
        self._kinds: list[str] = []

    def load(self) -> None:
        """Read all networks. Raises MissingWeight with the command to run, UnexpectedModel."""
        self.finder.load()
        if self._network is None:
            self._network, note = load(self._weights)
            self._kinds = note.get("classes", [])
            if self._temporal is not None:
                self._fusion = load_temporal(self._temporal, self._network.size)

    def warm_up(self) -> None:
        """Load, and read a picture once."""
        self.load()
        self.finder.warm_up()
        size = self._loaded().size.image_px
        self._read(Crop(torch.zeros(3, size, size, dtype=torch.uint8), torch.eye(3), np.eye(3)), "right", 0.5, 0.0)

    def look(self, image: np.ndarray, intrinsics: np.ndarray) -> list[HandReading]:
        """Hands of one picture, looked for anew; intrinsics (3, 3) in its pixels."""
        return self.read(image, self.finder.find(image), intrinsics)

    def read(self, image: np.ndarray, hands: Sequence[Hand], intrinsics: np.ndarray) -> list[HandReading]:
        """One reading per hand that the finder found in this picture."""
        size = self._loaded().size.image_px
        camera = np.asarray(intrinsics, np.float64)
        crops = [crop_hand(image, hand.landmarks_px, camera, hand.side, size) for hand in hands]
        return [self._read(crop, hand.side, hand.side_score, hand.presence_score)
                for crop, hand in zip(crops, hands, strict=True)]  # fmt: skip

    @torch.no_grad()
    def _read(self, crop: Crop, side: Side, side_score: float, presence: float) -> HandReading:
        answer = self._loaded()(crop.picture[None], crop.intrinsics[None])
        sure = float(answer.hand.confidence_logits.sigmoid().mean())
        return HandReading(
            side, side_score, _in_camera(answer.hand.joints_m[0].numpy(), crop), min(sure, presence),
            answer.contacts.confidence_logits[0].sigmoid().numpy(), _things(answer.objects, crop, self._kinds),
            frame_tokens(answer)[0].numpy(),
        )  # fmt: skip

    @torch.no_grad()
    def fused(self, track: Sequence[HandReading], time_s: np.ndarray) -> Floats:
        """Joints (T, 21, 3) of one hand over time, each frame told by itself and those before. Times rise."""
        if self._fusion is None:
            raise RuntimeError("no temporal weights are loaded; name them, then call load() first")
        # A mirrored hand is seen by the network as a right one: a track is one hand, of one side.
        mirrored = track[0].side == "left"
        joints = torch.from_numpy(unmirrored(np.stack([one.joints_m for one in track]), mirrored))
        tokens = torch.from_numpy(np.stack([one.tokens for one in track]))
        time = torch.from_numpy(np.asarray(time_s, np.float64) - time_s[0]).float()
        parts = []
        for at in range(0, len(track), CHUNK):
            first = max(0, at - BEFORE)
            rows = slice(first, at + CHUNK)
            told = self._fusion(Frames(tokens[None, rows], joints[None, rows], time[None, rows]))
            parts.append(told.joints_m[0, at - first :])
        return unmirrored(torch.cat(parts).numpy(), mirrored)

    def close(self) -> None:
        """Free the networks. Safe before load() and when called twice."""
        self.finder.close()
        self._network = self._fusion = None

    def _loaded(self) -> ManipulationTransformer:
        if self._network is None:
            raise RuntimeError("the hand reader is not loaded; call load() first")
        return self._network


def _in_camera(joints_m: Floats, crop: Crop) -> Floats:
    """Joints (21, 3) read in a crop, in the frame of the camera that took the whole picture."""
    return np.asarray(joints_m @ crop.camera_from_crop.T.astype(np.float32))


def _things(told: ObjectOutput, crop: Crop, kinds: Sequence[str]) -> tuple[Thing, ...]:
    """What the first picture's queries are sure of."""
    sure, turns = told.confidence_logits[0].sigmoid().numpy(), told.rotations()[0].numpy()
    places, classes = told.positions_m[0].numpy(), told.class_logits[0].argmax(-1).tolist()
    found = []
    for query in np.argsort(-sure, kind="stable")[: int((sure >= SURE).sum())].tolist():
        pose = np.eye(4, dtype=np.float32)
        pose[:3, :3], pose[:3, 3] = crop.camera_from_crop @ turns[query], crop.camera_from_crop @ places[query]
        if np.linalg.det(pose[:3, :3]) < 0:  # mirrored back: a solid is alike when its x is turned round too
            pose[:3, 0] *= -1
        kind = kinds[classes[query]] if classes[query] < len(kinds) else f"class {classes[query]}"
        found.append(Thing(query, kind, pose, float(sure[query])))
    return tuple(found)
