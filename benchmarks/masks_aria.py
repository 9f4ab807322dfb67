"""How well prompts turn into masks: IoU with the true instances of two Aria pictures, per kind of prompt.

Run: `python -m benchmarks.masks_aria`. Reads ../shared/data/egocentric (ends with a sentence without it).
`sam2:mobile_sam` as it works in a run, on single pictures turned upright; and, as the peer that knows where things
are, the same network asked with the true boxes. An instance is a truth if it covers at least 1,000 pixels; a mask
counts with the instance that it overlaps most. Hands are counted, not scored: the truth's hands are a stiff model
beside the real fingers.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from actors.hand_finder import HandFinder
from actors.messages import Prompt
from data_jobs.egoworld.operators.geometry import mask_box, mask_iou
from data_jobs.egoworld.operators.mobile_sam import MasksParams, MobileSamMasks
from data_jobs.egoworld.operators.prompts import detector_asks, hand_asks

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "egocentric" / "adt"
LEAST_PX = 1000


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
        asks = hand_asks(hands, width, height)
        asks += detector_asks(operator._detector.detect(image), 6, 256, 0.5, width, height)
        for ask, mask in operator._segment(image, asks):
            overlap = max(mask_iou(mask.mask, one) for one in truth)
            found[ask.source].append(np.nan if ask.source == "hand_box" else overlap)
        embedded = operator._segmenter.embed(image)
        masks = operator._segmenter.segment(embedded, [Prompt(box_px=mask_box(one)) for one in truth])
        found["true box (peer)"] += [mask_iou(mask.mask, one) for mask, one in zip(masks, truth, strict=True)]
    sys.stdout.write("| prompt | masks | mean IoU | median IoU |\n|---|---|---|---|\n")
    for source in ("hand_box", "pinch_point", "detector_box", "true box (peer)"):
        ious = found[source]
        scored = bool(ious) and source != "hand_box"
        values = f"{np.mean(ious):.2f} | {np.median(ious):.2f}" if scored else "– | –"
        sys.stdout.write(f"| {source} | {len(ious)} | {values} |\n")


if __name__ == "__main__":
    main()
