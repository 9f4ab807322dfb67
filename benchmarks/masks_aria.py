"""How well prompts turn into masks: IoU with the true instances of two Aria pictures, per kind of prompt.

Run: `python -m benchmarks.masks_aria`. Reads ../shared/data/egocentric (ends with a sentence without it).
`sam2:mobile_sam` as it works in a run, on single pictures turned upright; and, as the peer that knows where things
are, the same network asked with the true boxes. An instance is a truth if it covers at least 1,000 pixels; a mask
counts with the instance that it overlaps most. Hands are counted, not scored: the truth's hands are a stiff model
beside the real fingers. These hands wear black gloves; where the finder sees none, their thumb and index tip, wrist and
middle knuckle as marked by eye take its place, and the table says so: then `pinch_point` is about the prompt alone.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from actors.hand_finder import HandFinder
from actors.messages import Prompt
from data_jobs.egoworld.operators.geometry import mask_box, mask_iou
from data_jobs.egoworld.operators.mobile_sam import MasksParams, MobileSamMasks
from data_jobs.egoworld.operators.prompts import INDEX_TIP, MIDDLE_MCP, THUMB_TIP, WRIST, detector_asks, hand_asks

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "egocentric" / "adt"
LEAST_PX = 1000
# Per picture and hand: thumb tip, index tip, wrist and middle knuckle, pixels of the upright picture, to some 5 pixels.
BY_EYE = (
    (((667, 1031), (653, 1000), (470, 1160), (535, 1010)), ((1103, 1031), (1071, 1003), (1187, 1220), (1203, 1015))),
    (((651, 1028), (629, 992), (440, 1150), (505, 1005)), ((1139, 1021), (1107, 992), (1222, 1200), (1225, 1010))),
)


def marked(points: tuple[tuple[int, int], ...], hand_id: int) -> dict[str, Any]:
    """A row of hand_pose with the four points that are known; the other knuckles lie half way down the palm."""
    thumb, index, wrist, knuckle = np.array(points, np.float32)
    landmarks = np.zeros((21, 3), np.float32)
    landmarks[:, :2] = (wrist + knuckle) / 2
    landmarks[[THUMB_TIP, INDEX_TIP, WRIST, MIDDLE_MCP], :2] = thumb, index, wrist, knuckle
    box = np.concatenate([np.min(points, axis=0), np.max(points, axis=0)]).astype(np.float32)
    return {"landmarks_px": landmarks.ravel(), "box": box, "handedness": "", "score": 1.0, "hand_id": hand_id}


def main() -> None:
    """One row per kind of prompt."""
    if not DATA.is_dir():
        sys.exit(f"there is no {DATA}: this measurement needs the two Aria pictures")
    operator = MobileSamMasks(MasksParams())
    operator.load()
    finder = HandFinder()
    finder.warm_up()
    assert operator._segmenter is not None and operator._detector is not None
    found: dict[str, list[float]] = defaultdict(list)
    asked: Counter[str] = Counter()
    for number in (0, 1):
        stored = cv2.cvtColor(cv2.imread(str(DATA / f"frame{number}_rgb.jpg")), cv2.COLOR_BGR2RGB)
        image = np.ascontiguousarray(np.rot90(stored, -1))
        ids = np.rot90(cv2.imread(str(DATA / f"frame{number}_instances.png"), cv2.IMREAD_UNCHANGED), -1)
        truth = [ids == i for i in np.unique(ids) if i and np.count_nonzero(ids == i) >= LEAST_PX]
        height, width = image.shape[:2]
        hands = [
            {"landmarks_px": h.landmarks_px.ravel(), "box": h.box_px, "handedness": h.side, "score": 1.0, "hand_id": k}
            for k, h in enumerate(finder.find(image))
        ]
        how = "" if hands else " (hands marked by eye)"
        hands = hands or [marked(points, k) for k, points in enumerate(BY_EYE[number])]
        asks = hand_asks(hands, width, height)
        asks += detector_asks(operator._detector.detect(image), 6, 256, 0.5, width, height)
        for ask, mask in operator._segment(image, asks):
            overlap = max(mask_iou(mask.mask, one) for one in truth)
            by_hand = ask.source != "detector_box"
            found[ask.source + how * by_hand].append(np.nan if ask.source == "hand_box" else overlap)
        for ask in asks:
            asked[ask.source + how * (ask.source != "detector_box")] += 1
        embedded = operator._segmenter.embed(image)
        masks = operator._segmenter.segment(embedded, [Prompt(box_px=mask_box(one)) for one in truth])
        asked["true box (peer)"] += len(truth)
        found["true box (peer)"] += [mask_iou(mask.mask, one) for mask, one in zip(masks, truth, strict=True)]
    sys.stdout.write("| prompt | asked | masks kept | mean IoU | median IoU |\n|---|---|---|---|---|\n")
    for source, many in sorted(asked.items()):
        ious = found[source]
        scored = bool(ious) and not np.isnan(ious).any()
        values = f"{np.mean(ious):.2f} | {np.median(ious):.2f}" if scored else "– | –"
        sys.stdout.write(f"| {source} | {many} | {len(ious)} | {values} |\n")


if __name__ == "__main__":
    main()
