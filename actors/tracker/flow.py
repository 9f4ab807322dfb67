"""Following on a CPU: optical flow carries a mask from frame to frame, MobileSAM draws it anew every so often.

In: frames and the masks to start from. Out: masks and presence. Implements backend.Backend; called by tracker.py.
Knows nothing of templates. MobileSAM's weights come with the embedded default.

A redrawing may take longer than a frame lasts. It is done at the desk on the frame it was asked for, and its mask is
moved by what the flow measured since.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.segmenter import WEIGHT_NAME
from actors.tracker.backend import Followed, box_of, mask_iou
from actors.tracker.motion import LEAST_POINTS, Grey, follow, similarity, warp
from actors.tracker.work import Desk
from models import weights
from models.proposals import PointDecoder

if TYPE_CHECKING:
    from models.mobile_sam.network import MobileSam

MOST_POINTS = 120
REDRAW_EVERY = 12  # frames; sooner when too few points are left
REDRAW_BELOW = 0.5  # share of the points that were there when the mask was drawn
# A redrawn mask that overlaps the carried one less is of something else, and the carried one stays.
LEAST_REDRAW_IOU = 0.5
SLOWER_THE_SURER = 0.3  # share of a new measurement in the running presence


@dataclass(slots=True)
class _Object:
    mask: np.ndarray  # (H, W) bool, now
    points: np.ndarray  # (N, 2) float32, now
    drawn_with: int  # points when the mask was drawn
    presence: float = 1.0
    age: int = 0  # frames since it was drawn
    since_asked: np.ndarray = field(default_factory=lambda: np.eye(3))  # motion since the redrawing was asked for
    redrawing: Future | None = None


class FlowBackend:
    """See backend.Backend."""

    def __init__(self, desk: Desk, device: str = "cpu", redraw_every: int = REDRAW_EVERY) -> None:
        self._desk, self._device, self._redraw_every = desk, device, redraw_every
        self._model: MobileSam | None = None
        self._objects: dict[str, _Object] = {}
        self._image: np.ndarray | None = None
        self._grey: Grey | None = None
        self._encoded: tuple[np.ndarray, Any, Any] | None = None

    weight_names = (WEIGHT_NAME,)

    def load(self) -> None:
        """See Backend."""
        if self._model is None:
            path = weights.path_of(WEIGHT_NAME)
            from models.mobile_sam.network import load_mobile_sam

            self._model = load_mobile_sam(path, self._device)

    def decoder(self, image: np.ndarray) -> PointDecoder:
        """See Backend."""
        from models.mobile_sam.automatic import MobileSamPoints

        return MobileSamPoints(self._network, *self._encode(image))

    def see(self, image: np.ndarray, learn: Mapping[str, bool]) -> dict[str, Followed]:
        """See Backend. An object that must not be learnt is carried on, but not drawn anew."""
        grey = Grey.of(image)
        for name, each in self._objects.items():
            if self._grey is not None:
                self._carry(each, self._grey, grey)
            self._take_redrawing(each, grey)
            if learn.get(name, True) and self._wants_redrawing(each):
                self._ask_redrawing(each, image)
                self._take_redrawing(each, grey)
        self._image, self._grey = image, grey
        return {name: Followed(each.mask, each.presence) for name, each in self._objects.items()}

    def begin(self, name: str, mask: np.ndarray) -> Followed:
        """See Backend."""
        if self._grey is None:
            raise RuntimeError("see() a frame first")
        points = self._grey.corners(MOST_POINTS, mask)
        self._objects[name] = _Object(mask, points, len(points))
        return Followed(mask, 1.0)

    def forget(self, name: str) -> None:
        """See Backend."""
        self._objects.pop(name, None)

    def save(self) -> dict[str, Any]:
        """See Backend. The last frame goes along: the next one's motion is measured against it."""
        return {
            "grey": None if self._grey is None else [self._grey.pixels, self._grey.scale],
            "objects": {
                name: {
                    "mask": each.mask,
                    "points": each.points,
                    "drawn_with": each.drawn_with,
                    "presence": each.presence,
                    "age": each.age,
                }
                for name, each in self._objects.items()
            },
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """See Backend."""
        self._grey = None if saved["grey"] is None else Grey(*saved["grey"])
        self._image = self._encoded = None
        self._objects = {name: _Object(**each) for name, each in saved["objects"].items()}

    def close(self) -> None:
        """See Backend."""
        self._model = self._encoded = None

    # --- inside --------------------------------------------------------------------------------------------------

    @property
    def _network(self) -> MobileSam:
        if self._model is None:
            raise RuntimeError("the tracker is not loaded; call load() first (or again, after close())")
        return self._model

    def _encode(self, image: np.ndarray) -> tuple[Any, Any]:
        """The embedding and how the picture lies on the square; the last picture's is kept."""
        held = self._encoded
        if held is None or held[0] is not image:
            from models.mobile_sam.geometry import prepare

            square, fit = prepare(image)
            held = (image, self._network.encode(square.to(self._device), fit.resized_height), fit)
            self._encoded = held
        return held[1], held[2]

    def _carry(self, each: _Object, before: Grey, after: Grey) -> None:
        """One frame of flow: the mask moves as most of its points do."""
        moved, good = follow(before, after, each.points)
        fitted = similarity(each.points[good], moved[good])
        each.age += 1
        if fitted is None:
            each.points = moved[good]
            each.presence *= 1 - SLOWER_THE_SURER
            return
        transform, agree = fitted
        each.points = moved[good][agree]
        each.mask = warp(each.mask, transform)
        each.since_asked = transform @ each.since_asked
        kept = min(1.0, len(each.points) / max(each.drawn_with, LEAST_POINTS))
        # Points wear off between redrawings; half of them left is still a sure track.
        each.presence += SLOWER_THE_SURER * (min(1.0, 2 * kept) - each.presence)

    def _wants_redrawing(self, each: _Object) -> bool:
        few = len(each.points) < max(LEAST_POINTS, REDRAW_BELOW * each.drawn_with)
        waited = self._redraw_every // 3 if few else self._redraw_every
        return each.redrawing is None and each.age >= waited and bool(each.mask.any())

    def _ask_redrawing(self, each: _Object, image: np.ndarray) -> None:
        mask = each.mask
        each.since_asked, each.age = np.eye(3), 0
        each.redrawing = self._desk.submit(lambda: self._draw(image, mask))

    def _take_redrawing(self, each: _Object, grey: Grey) -> None:
        if each.redrawing is None or not each.redrawing.done():
            return
        drawn, each.redrawing = warp(each.redrawing.result(), each.since_asked), None
        if mask_iou(drawn, each.mask) < LEAST_REDRAW_IOU:
            each.presence *= 1 - SLOWER_THE_SURER
            return
        each.mask = drawn
        each.points = grey.corners(MOST_POINTS, drawn)
        each.drawn_with = len(each.points)

    def _draw(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """MobileSAM's mask for the box around `mask` and the point deepest inside it."""
        import cv2
        import torch

        from models.mobile_sam.geometry import to_picture

        box = box_of(mask)
        assert box is not None, "only masks that hold something are drawn anew"
        embedding, fit = self._encode(image)
        padded = np.pad(mask.astype(np.uint8), 1)
        depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        logits, _ = self._network.decode(
            embedding,
            box=torch.tensor(fit.to_square(box.reshape(2, 2)).reshape(4), device=self._device),
            points_K2=torch.tensor(fit.to_square(np.array([[x, y]])), device=self._device),
            labels_K=torch.ones(1, dtype=torch.int32, device=self._device),
            several=False,
        )
        return to_picture(logits[0].cpu(), fit).numpy()
