"""The 13 tables of a nuScenes v1.0 database: field names, Arrow types, and which field points at which table.

Read by tables.py (JSON → Arrow) and synthetic.py (Arrow → JSON). Source: docs/schema_nuscenes.md of
nuscenes-devkit. Fields that newer releases add and that nothing here needs (category.index) are left where
they are.
"""

from __future__ import annotations

import pyarrow as pa

_VECTOR = pa.list_(pa.float64(), 3)
_QUATERNION = pa.list_(pa.float64(), 4)
_TEXT, _COUNT, _FLAG = pa.string(), pa.int64(), pa.bool_()

SCHEMAS: dict[str, dict[str, pa.DataType]] = {
    "attribute": {"token": _TEXT, "name": _TEXT, "description": _TEXT},
    "calibrated_sensor": {
        "token": _TEXT, "sensor_token": _TEXT, "translation": _VECTOR, "rotation": _QUATERNION,
        "camera_intrinsic": pa.list_(pa.list_(pa.float64())),
    },
    "category": {"token": _TEXT, "name": _TEXT, "description": _TEXT},
    "ego_pose": {"token": _TEXT, "timestamp": _COUNT, "rotation": _QUATERNION, "translation": _VECTOR},
    "instance": {
        "token": _TEXT, "category_token": _TEXT, "nbr_annotations": _COUNT, "first_annotation_token": _TEXT,
        "last_annotation_token": _TEXT,
    },
    "log": {"token": _TEXT, "logfile": _TEXT, "vehicle": _TEXT, "date_captured": _TEXT, "location": _TEXT},
    "map": {"token": _TEXT, "category": _TEXT, "filename": _TEXT, "log_tokens": pa.list_(_TEXT)},
    "sample": {"token": _TEXT, "timestamp": _COUNT, "prev": _TEXT, "next": _TEXT, "scene_token": _TEXT},
    "sample_annotation": {
        "token": _TEXT, "sample_token": _TEXT, "instance_token": _TEXT, "visibility_token": _TEXT,
        "attribute_tokens": pa.list_(_TEXT), "translation": _VECTOR, "size": _VECTOR, "rotation": _QUATERNION,
        "prev": _TEXT, "next": _TEXT, "num_lidar_pts": _COUNT, "num_radar_pts": _COUNT,
    },
    "sample_data": {
        "token": _TEXT, "sample_token": _TEXT, "ego_pose_token": _TEXT, "calibrated_sensor_token": _TEXT,
        "timestamp": _COUNT, "fileformat": _TEXT, "is_key_frame": _FLAG, "height": _COUNT, "width": _COUNT,
        "filename": _TEXT, "prev": _TEXT, "next": _TEXT,
    },
    "scene": {
        "token": _TEXT, "log_token": _TEXT, "nbr_samples": _COUNT, "first_sample_token": _TEXT,
        "last_sample_token": _TEXT, "name": _TEXT, "description": _TEXT,
    },
    "sensor": {"token": _TEXT, "channel": _TEXT, "modality": _TEXT},
    "visibility": {"token": _TEXT, "level": _TEXT, "description": _TEXT},
}  # fmt: skip

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")

# The seven classes of the nuScenes tracking task, numbered as in the sequences that others already train on.
CLASSES = ("car", "truck", "bus", "trailer", "pedestrian", "motorcycle", "bicycle")

# Official mapping of the tracking task (nuscenes-devkit eval/tracking/README.md); every other category is
# left out.
CLASS_OF_CATEGORY = {
    "vehicle.car": "car", "vehicle.truck": "truck", "vehicle.bus.bendy": "bus", "vehicle.bus.rigid": "bus",
    "vehicle.trailer": "trailer", "human.pedestrian.adult": "pedestrian", "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian", "human.pedestrian.police_officer": "pedestrian",
    "vehicle.motorcycle": "motorcycle", "vehicle.bicycle": "bicycle",
}  # fmt: skip

# Look like the class to a detector but are not scored: neither a hit nor a miss. Kept apart as void boxes.
VOID_OF_CATEGORY = {
    "human.pedestrian.personal_mobility": "pedestrian", "human.pedestrian.stroller": "pedestrian",
    "human.pedestrian.wheelchair": "pedestrian",
}  # fmt: skip
