"""The tables of a converted scene: columns, units, meaning. One place; sequences.py and docs/formats.md read it.

Frames of reference stand in the names of the rotations and translations they belong to: the ego's and the camera's
poses are in nuScenes' global frame (a map, metres).
"""

from __future__ import annotations

import pyarrow as pa

from data_jobs.runs.columns import Column

_FRAME = (
    Column("camera", pa.int8(), "0 front, 1 front left, 2 front right, 3 back, 4 back left, 5 back right"),
    Column("frame", pa.int32(), "1-based within its camera"),
    Column("timestamp_us", pa.int64(), "microseconds: the image's own time"),
    Column("is_key_frame", pa.bool_(), "whether the image belongs to an annotated keyframe"),
)


def _listed(size: int) -> pa.DataType:
    return pa.list_(pa.float64(), size)


FRAMES = (
    *_FRAME,
    Column("sample_data_token", pa.string(), "the image's token in nuScenes"),
    Column("filename", pa.string(), "the image's path in nuScenes"),
    Column("image_size_px", _listed(2), "width, height"),
    Column("ego_translation_m", _listed(3), "global_from_ego: x, y, z in metres at the image's time"),
    Column("ego_rotation_wxyz", _listed(4), "global_from_ego: unit quaternion"),
    Column("camera_translation_m", _listed(3), "ego_from_camera: x, y, z in metres"),
    Column("camera_rotation_wxyz", _listed(4), "ego_from_camera: unit quaternion"),
    Column("intrinsics_px", _listed(9), "3 × 3, row by row, pixels"),
)

LABELS = (
    *_FRAME,
    Column("id", pa.int32(), "1-based and dense, the same in all six cameras of the scene"),
    Column("class_id", pa.int8(), "0 car, 1 truck, 2 bus, 3 trailer, 4 pedestrian, 5 motorcycle, 6 bicycle"),
    Column("void", pa.bool_(), "a stroller, wheelchair or scooter: neither wanted nor wrong"),
    Column("x_px", pa.float64(), "left edge of the box inside the image, pixels"),
    Column("y_px", pa.float64(), "upper edge"),
    Column("w_px", pa.float64(), "width"),
    Column("h_px", pa.float64(), "height"),
    Column("truncation", pa.float64(), "share of the box cut off by the image's border, 0..1; null where unknown"),
    Column("visibility_level", pa.int8(), "nuScenes' level 1 to 4, the lower of the two keyframes'"),
    Column("centre_x_m", pa.float64(), "of the 3-D box in the global frame at the image's time, metres; null in 2-D"),
    Column("centre_y_m", pa.float64(), "likewise"),
    Column("centre_z_m", pa.float64(), "likewise"),
)

IDENTITIES = (
    Column("id", pa.int32(), "as in labels"),
    Column("instance_token", pa.string(), "the object's token in nuScenes"),
    Column("category", pa.string(), "nuScenes' own name"),
    Column("class_name", pa.string(), "the tracking class"),
    Column("void", pa.bool_(), "as in labels"),
    Column("first_keyframe", pa.int32(), "0-based index of the first keyframe that annotates it"),
)

TABLES = {"labels": LABELS, "frames": FRAMES, "identities": IDENTITIES}
