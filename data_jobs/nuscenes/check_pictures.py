"""Pictures for `check`: labelled boxes on the camera image (or a blank canvas), and the same instant from
above.

In: rows of the joint tables. Out: JPEG bytes. Called by check.py. Knows nothing of HTML or folders but the
image's path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.nuscenes import geometry
from data_jobs.nuscenes.schema import CAMERAS, CLASSES

# BGR, one per class: told apart on grey and for the colour-blind (Okabe and Ito 2008).
COLOURS = ((178, 114, 0), (0, 94, 213), (66, 228, 240), (167, 121, 204), (115, 158, 0), (233, 180, 86), (0, 159, 230))
INK, PAPER, GRID = (60, 60, 60), (245, 245, 245), (215, 215, 215)

PICTURE_WIDTH = 640
PLAN_SIDE, PLAN_RANGE_M = 460, 60.0


def camera_picture(frame: dict[str, Any], labels: pa.Table, dataroot: Path | None) -> tuple[bytes, bool]:
    """JPEG of one frame with its boxes, and whether a real image lies under them."""
    width, height = (int(v) for v in frame["image_size_px"])
    path = dataroot / frame["filename"] if dataroot else None
    image = cv2.imread(str(path)) if path is not None and path.is_file() else None
    found = image is not None
    canvas = image if image is not None else np.full((height, width, 3), PAPER, np.uint8)
    scale = PICTURE_WIDTH / width
    canvas = cv2.resize(canvas, (PICTURE_WIDTH, round(height * scale)), interpolation=cv2.INTER_AREA)
    for row in labels.to_pylist():
        draw_box(canvas, row, scale)
    name = f"{CAMERAS[frame['camera']]}  frame {frame['frame']}{'  keyframe' if frame['is_key_frame'] else ''}"
    cv2.putText(canvas, name, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 3, cv2.LINE_AA)
    cv2.putText(canvas, name, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, INK, 1, cv2.LINE_AA)
    return jpeg(canvas), found


def draw_box(canvas: np.ndarray, row: dict[str, Any], scale: float) -> None:
    """One labelled box with its id; void boxes are thin."""
    low = (round(row["x_px"] * scale), round(row["y_px"] * scale))
    high = (round((row["x_px"] + row["w_px"]) * scale), round((row["y_px"] + row["h_px"]) * scale))
    colour = COLOURS[row["class_id"]]
    cv2.rectangle(canvas, low, high, colour, 1 if row["void"] else 2, cv2.LINE_AA)
    text = f"{row['id']}{' void' if row['void'] else ''}"
    cv2.putText(canvas, text, (low[0] + 2, max(low[1] - 3, 32)), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)


def plan_picture(frame: dict[str, Any], labels: pa.Table) -> bytes:
    """JPEG from above at the frame's time: forward is up, rings every 20 m, objects that any camera labels
    near then."""
    canvas = np.full((PLAN_SIDE, PLAN_SIDE, 3), PAPER, np.uint8)
    middle = PLAN_SIDE // 2
    for ring in (20, 40, 60):
        cv2.circle(canvas, (middle, middle), round(ring / PLAN_RANGE_M * middle), GRID, 1, cv2.LINE_AA)
        at = (middle + 3, middle - round(ring / PLAN_RANGE_M * middle) + 12)
        cv2.putText(canvas, f"{ring} m", at, cv2.FONT_HERSHEY_SIMPLEX, 0.35, INK, 1, cv2.LINE_AA)
    cv2.arrowedLine(canvas, (middle, middle + 8), (middle, middle - 12), INK, 2, cv2.LINE_AA, tipLength=0.5)
    known = labels.filter(pc.is_valid(labels["centre_x_m"]))
    for identity, class_id, ahead_m, left_m in _around(frame, known):
        point = (round(middle - left_m / PLAN_RANGE_M * middle), round(middle - ahead_m / PLAN_RANGE_M * middle))
        cv2.circle(canvas, point, 4, COLOURS[class_id], -1, cv2.LINE_AA)
        cv2.putText(
            canvas, str(identity), (point[0] + 5, point[1] + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.35, INK, 1, cv2.LINE_AA
        )
    if not len(known):
        text = "no 3-D positions: labels were blended in 2-D"
        cv2.putText(canvas, text, (60, middle + 40), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
    return jpeg(canvas)


def _around(frame: dict[str, Any], labels: pa.Table) -> list[tuple[int, int, float, float]]:
    """(id, class, metres ahead, metres left) of each object, from its label nearest in time, within half a
    frame gap."""
    if not len(labels):
        return []
    apart = np.abs(labels["timestamp_us"].to_numpy() - frame["timestamp_us"])
    near = labels.take(pa.array(np.argsort(apart, kind="stable")[: int((apart < 60_000).sum())]))
    _, first = np.unique(near["id"].to_numpy(), return_index=True)
    near = near.take(pa.array(first))
    centre = np.stack([near[f"centre_{axis}_m"].to_numpy() for axis in "xyz"], axis=1)
    ego = geometry.rotation_matrices(np.array(frame["ego_rotation_wxyz"]))
    seen = (centre - np.array(frame["ego_translation_m"])) @ ego
    return list(zip(near["id"].to_pylist(), near["class_id"].to_pylist(), seen[:, 0], seen[:, 1], strict=True))


def legend() -> list[tuple[str, str]]:
    """(class name, CSS colour) in class order."""
    return [(name, f"rgb({r},{g},{b})") for name, (b, g, r) in zip(CLASSES, COLOURS, strict=True)]


def jpeg(canvas: np.ndarray) -> bytes:
    """Encoded bytes."""
    return cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()
