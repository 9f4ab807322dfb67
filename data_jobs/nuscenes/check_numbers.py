"""Numbers that tell sound labels from unsound ones: how smoothly boxes move, how much of the world is seen.

In: the joint tables of converted scenes. Out: Smoothness and distributions. Called by check.py. Knows nothing
of HTML.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.nuscenes.geometry import FloatArray
from data_jobs.nuscenes.matching import pairwise_iou

# Boxes cut by the image border grow and shrink with what is left of them; they are judged apart from whole
# ones.
MAX_TRUNCATION = 0.02

# A whole box that overlaps its own successor less than this has jumped: at 12 Hz real ones overlap by 0.8 and
# more, small fast ones near the camera by 0.5.
JUMP_IOU = 0.3


@dataclass(frozen=True, slots=True)
class Smoothness:
    """How boxes of one track move from frame to frame, over P triples of frames."""

    step_iou: FloatArray  # (P,) IoU of a box with where its two predecessors point
    bend_share: FloatArray  # (P,) second difference of the centre over the box's diagonal, per second squared
    jumps: int  # whole boxes with that IoU below JUMP_IOU
    gaps: int  # tracks that pause for a frame or more and come back
    median_dt_s: float


def smoothness(labels: pa.Table) -> Smoothness:
    """Of one or more scenes' labels; needs the columns scene, camera, id, frame, timestamp_us, the box,
    truncation."""
    order = pc.sort_indices(labels, [(key, "ascending") for key in ("scene", "camera", "id", "frame")])
    rows = labels.take(order)
    box = np.stack([rows[c].to_numpy() for c in ("x_px", "y_px", "w_px", "h_px")], axis=1)
    frame, time_s = rows["frame"].to_numpy(), rows["timestamp_us"].to_numpy() / 1e6
    track = _track_numbers(rows)
    whole = rows["truncation"].fill_null(0.0).to_numpy() <= MAX_TRUNCATION
    same = np.diff(track) == 0
    follows = same & (np.diff(frame) == 1)
    clean = follows & whole[:-1] & whole[1:]
    twice = clean[:-1] & clean[1:]
    dt = np.maximum(np.diff(time_s), 1e-6)[:, None]
    velocity = np.diff(box, axis=0) / dt
    ahead = box[1:-1] + velocity[:-1] * dt[1:]
    iou = pairwise_iou(np.concatenate([ahead[:, :2], np.maximum(ahead[:, 2:], 0)], axis=1), box[2:])[twice]
    drift = velocity[:, :2] + velocity[:, 2:] / 2  # of the centre
    bend = np.linalg.norm(np.diff(drift, axis=0), axis=1) / ((dt[:-1, 0] + dt[1:, 0]) / 2)
    size = np.linalg.norm(box[1:-1, 2:], axis=1)
    return Smoothness(
        step_iou=iou,
        bend_share=(bend / np.maximum(size, 1.0))[twice],
        jumps=int((iou < JUMP_IOU).sum()),
        gaps=int((same & (np.diff(frame) > 1)).sum()),
        median_dt_s=float(np.median(dt[follows])) if follows.any() else 0.0,
    )


def _track_numbers(rows: pa.Table) -> np.ndarray:
    columns = [rows[key].to_numpy(zero_copy_only=False) for key in ("camera", "id")]
    scene = np.unique(rows["scene"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)[1]
    changed = np.zeros(len(rows), dtype=bool)
    for column in (scene, *columns):
        changed[1:] |= column[1:] != column[:-1]
    return np.cumsum(changed)


def histogram(values: FloatArray, edges: FloatArray) -> list[tuple[str, float]]:
    """Bars for the report: (label of the bin, share of the values); values beyond the edges join the outer
    bins."""
    if not len(values):
        return []
    count, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return [(f"{low:g}–{high:g}", n / len(values)) for low, high, n in zip(edges, edges[1:], count, strict=False)]
