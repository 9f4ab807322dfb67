"""The tables this job writes: columns, units, meaning. One place; meta.json, docs and validation read it.

The first columns of each table are those of the seed project's readers (`frame_index, timestamp_s, mask_rle` and
`frame_index, timestamp_s, pose`); ours follow.
"""

from __future__ import annotations

import pyarrow as pa

from data_jobs.runs.columns import Column, arrow_schema

FRAME = (
    Column("frame_index", pa.int64(), "0-based index of the frame in the whole video, in display order"),
    Column("timestamp_s", pa.float64(), "presentation time in seconds: pts × time_base"),
)
PTS = Column("pts", pa.int64(), "presentation time in units of the stream's time base: the frame's identity")

MASKS = (
    *FRAME,
    Column("mask_rle", pa.string(), 'COCO run lengths as JSON {"size": [height, width], "counts": "<compressed>"}'),
    PTS,
    Column("object_id", pa.int64(), "identity within the clip; -1: the frame was looked at and nothing was found"),
    Column(
        "class", pa.string(), "left_hand, right_hand, held_object or the detector's label; empty when object_id is -1"
    ),
    Column("score", pa.float32(), "confidence that the object is of this class, 0..1"),
    Column(
        "box", pa.list_(pa.float32(), 4), "x0, y0, x1, y1 of the mask in pixels, far edge exclusive; zeros when empty"
    ),
    Column(
        "predicted_iou", pa.float32(), "the segmenter's own estimate of the mask's IoU, 0..1; NaN where it makes none"
    ),
    Column("stability", pa.float32(), "IoU of the mask thresholded at +1 and at -1 logits, 0..1"),
    Column(
        "prompt",
        pa.string(),
        "what led to the mask: hand_box, pinch_point, detector_box or text_box in this very frame, forward or backward "
        "from another; empty when none",
    ),
)

HAND_POSE = (
    *FRAME,
    Column("pose", pa.list_(pa.float32()), "21 × (x, y, z) world landmarks in metres, origin at the hand's centre"),
    PTS,
    Column("hand_id", pa.int64(), "identity within the clip"),
    Column("handedness", pa.string(), "left or right, the person's own, in a picture that is not mirrored"),
    Column("handedness_score", pa.float32(), "confidence of the side, 0..1"),
    Column("score", pa.float32(), "confidence that this is a hand, 0..1"),
    Column(
        "landmarks_px",
        pa.list_(pa.float32(), 63),
        "21 × (x, y, z): pixels of the upright frame; z on the scale of x, wrist = 0",
    ),
    Column("box", pa.list_(pa.float32(), 4), "x0, y0, x1, y1 around the landmarks in pixels; may reach past the frame"),
)

MAPPING = (
    *FRAME,
    Column(
        "pose",
        pa.list_(pa.float32()),
        "joint angles in radians, named by `joints`; an Allegro has 16, a Shadow hand 22",
    ),
    PTS,
    Column("hand_id", pa.int64(), "the hand of hand_pose that this follows"),
    Column(
        "robot", pa.string(), "the robot hand and its side, that of most of the track: allegro_left, shadow_right, …"
    ),
    Column("flags", pa.int64(), "sum of 1 a tip was missing, 2 held: no usable hand, 4 slowed: the track jumped"),
    Column(
        "tip_error_m",
        pa.list_(pa.float32()),
        "distance of the robot's index, middle, ring and thumb tip from the scaled human one, seen from the wrist; "
        "NaN where none was seen",
    ),
    Column("joints", pa.list_(pa.string()), "names of the joints in `pose`, in its order"),
)

POSE_7 = "3 metres x, y, z then the unit quaternion w, x, y, z"

OBJECT_POSE = (
    *FRAME,
    Column("pose", pa.list_(pa.float32(), 7), f"camera_from_object: {POSE_7}; NaN where none was found"),
    PTS,
    Column("object_id", pa.int64(), "identity within the clip: the object_id of masks where a mask led to the pose"),
    Column("object", pa.string(), "name of the CAD model; manipulation: kind of solid"),
    Column("score", pa.float32(), "confidence of the pose, 0..1; templates: overlap of the drawn model and the mask"),
    Column("flags", pa.int64(), "sum of 1 refined: points of the picture agreed with the model, 2 guessed intrinsics"),
)

FAST3R_POSE = (
    *FRAME,
    Column(
        "pose",
        pa.list_(pa.float32(), 7),
        "camera_from_world: x, y, z in a unit of the clip's own, then the unit quaternion w, x, y, z; NaN where none",
    ),
    PTS,
    Column("outcome", pa.string(), "of the clip: reconstructed, no_parallax, too_few_matches or too_short"),
    Column("camera", pa.list_(pa.float32(), 4), "focal length x, y and principal point x, y in pixels; NaN where none"),
    Column("reprojection_px", pa.float32(), "mean distance of the points seen here from where they were matched"),
    Column(
        "points", pa.list_(pa.float32()), "x, y, z of every sparse point first seen in this frame, world, same unit"
    ),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "masks": MASKS,
    "hand_pose": HAND_POSE,
    "object_pose": OBJECT_POSE,
    "mapping": MAPPING,
    "fast3r_pose": FAST3R_POSE,
}


def schema_of(table: str) -> pa.Schema:
    """The Arrow schema of a table."""
    return arrow_schema(TABLES[table])


def field_specs(table: str) -> dict[str, dict[str, str]]:
    """Column name → type and meaning, as written into meta.json."""
    return {column.name: {"type": str(column.type), "meaning": column.meaning} for column in TABLES[table]}
