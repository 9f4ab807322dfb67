"""What to ask the segmenter for in one frame: hands, the object in each hand, and what a detector sees.

In: the frame's rows of hand_pose and the detections. Out: Asks, each a Prompt with a class and a score. Called by
mobile_sam.py. Pure NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.messages import Detection, Prompt
from data_jobs.egoworld.operators.geometry import area, clipped, grown, iou

WRIST, THUMB_TIP, INDEX_MCP, INDEX_TIP, MIDDLE_MCP = 0, 4, 5, 8, 9

# Landmarks sit on bones; the skin reaches about a finger's half width past them.
HAND_BOX_MARGIN = 0.12

# Points well inside a hand whatever its pose: the knuckles' side of the palm.
PALM_POINTS = (0, 5, 9, 17)

# Thumb and index closer than this share of the palm's length may hold something between them: a pen grip measures
# about 0.3, a cup held at its rim 0.7, a relaxed open hand 0.9 and more.
PINCH_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Ask:
    """One object wanted from the segmenter."""

    prompt: Prompt
    label: str
    score: float
    source: str  # hand_box | pinch_point | detector_box
    hand_id: int | None  # the hand it belongs to


def hand_asks(hands: Sequence[Mapping[str, Any]], width: int, height: int) -> list[Ask]:
    """A box and palm points for every hand, and a point for what it may hold."""
    asks = []
    for hand in hands:
        points = np.asarray(hand["landmarks_px"], np.float32).reshape(21, 3)[:, :2]
        box = clipped(grown(np.asarray(hand["box"], np.float32), HAND_BOX_MARGIN), width, height)
        if area(box) <= 0:
            continue
        prompt = Prompt(box_px=box, points_px=points[list(PALM_POINTS)])
        asks.append(Ask(prompt, f"{hand['handedness']}_hand", float(hand["score"]), "hand_box", hand["hand_id"]))
        held = _pinch_prompt(points)
        if held is not None:
            asks.append(Ask(held, "held_object", float(hand["score"]), "pinch_point", hand["hand_id"]))
    return asks


def _pinch_prompt(points: np.ndarray) -> Prompt | None:
    """The point between thumb and index tip, with the palm as what is not meant; None for an open hand."""
    palm = float(np.linalg.norm(points[MIDDLE_MCP] - points[WRIST]))
    if np.linalg.norm(points[THUMB_TIP] - points[INDEX_TIP]) > PINCH_SHARE * max(palm, 1.0):
        return None
    pinch = (points[THUMB_TIP] + points[INDEX_TIP]) / 2
    asked = np.stack([pinch, points[WRIST], points[MIDDLE_MCP]])
    return Prompt(points_px=asked, point_labels=np.array([1, 0, 0]))


def detector_asks(
    detections: Sequence[Detection], most: int, min_area_px: float, nms_iou: float, width: int, height: int
) -> list[Ask]:
    """The best `most` detections by score after suppression of overlapping boxes, whatever their label."""
    kept: list[Detection] = []
    for found in sorted(detections, key=lambda d: (-d.score, d.label, *d.box_px.tolist())):
        large = area(clipped(found.box_px, width, height)) >= min_area_px
        if large and all(iou(found.box_px, other.box_px) < nms_iou for other in kept):
            kept.append(found)
    return [
        Ask(Prompt(box_px=clipped(d.box_px, width, height)), d.label, d.score, "detector_box", None)
        for d in kept[:most]
    ]
