"""What a converted scene is on disk: two Arrow tables for the whole rig, one MOT sequence folder per camera.

In: a Scene and its labels. Out: bytes by file name, the same for the same input. Called by job.py; read
back by mot_files.py and by whoever opens the tables. Knows nothing of interpolation or of where the folders lie.

`gt/gt.txt`:  frame, id, x, y, w, h, 1, class 0–6, visibility level 1–4, −1 (1-based frames, pixels), the
format that the seed recipe trains on and that TrackEval reads. Void boxes are in `gt/void.txt`, in the same
columns. `frames.parquet` gives every frame its timestamp, image and poses.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_jobs.nuscenes.columns import FRAMES, IDENTITIES, LABELS
from data_jobs.nuscenes.label import Interpolation, Labels, Rate, label, sequence_images
from data_jobs.nuscenes.scenes import Images, Scene
from data_jobs.nuscenes.schema import CAMERAS, CLASSES
from data_jobs.runs.columns import arrow_schema

NOMINAL_RATE_HZ = 12


def frame_table(scene: Scene, rate: Rate) -> pa.Table:
    """One row per frame of each of the six cameras: time, image, poses, calibration."""
    cameras = range(len(CAMERAS))
    return pa.concat_tables(_camera_frames(camera, sequence_images(scene, camera, rate)) for camera in cameras)


def label_table(scene: Scene, rate: Rate, interpolation: Interpolation) -> pa.Table:
    """One row per box: ids are shared by the six cameras and dense, 1 to the number of the scene's
    instances."""
    tables = []
    for camera in range(len(CAMERAS)):
        images = sequence_images(scene, camera, rate)
        tables.append(_camera_labels(scene, camera, images, label(scene, camera, images, interpolation)))
    return pa.concat_tables(tables)


def _camera_frames(camera: int, images: Images) -> pa.Table:
    n = len(images.time_us)

    def listed(values: np.ndarray) -> pa.Array:
        flat = values.reshape(n, -1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])

    return pa.table(
        {
            "camera": pa.array(np.full(n, camera), pa.int8()),
            "frame": pa.array(np.arange(1, n + 1), pa.int32()),
            "timestamp_us": pa.array(images.time_us, pa.int64()),
            "is_key_frame": images.keyframe >= 0,
            "sample_data_token": pa.array(images.token, pa.string()),
            "filename": pa.array(images.filename, pa.string()),
            "image_size_px": listed(images.size_px),
            "ego_translation_m": listed(images.ego_origin),
            "ego_rotation_wxyz": listed(images.ego_rotation),
            "camera_translation_m": listed(images.camera_origin),
            "camera_rotation_wxyz": listed(images.camera_rotation),
            "intrinsics_px": listed(images.intrinsics),
        },
        arrow_schema(FRAMES),
    )


def _camera_labels(scene: Scene, camera: int, images: Images, labels: Labels) -> pa.Table:
    n, low = len(labels.image), labels.box_px[:, :2]
    size = labels.box_px[:, 2:] - low
    x_m, y_m, z_m = (pa.array(axis, from_pandas=True) for axis in labels.centre_m.T)  # NaN becomes null
    return pa.table(
        {
            "camera": pa.array(np.full(n, camera), pa.int8()),
            "frame": pa.array(labels.image + 1, pa.int32()),
            "timestamp_us": pa.array(images.time_us[labels.image], pa.int64()),
            "is_key_frame": images.keyframe[labels.image] >= 0,
            "id": pa.array(labels.instance + 1, pa.int32()),
            "class_id": pa.array(scene.instance_class[labels.instance], pa.int8()),
            "void": scene.instance_void[labels.instance],
            "x_px": low[:, 0],
            "y_px": low[:, 1],
            "w_px": size[:, 0],
            "h_px": size[:, 1],
            "truncation": pa.array(labels.truncation, from_pandas=True),
            "visibility_level": pa.array(labels.level, pa.int8()),
            "centre_x_m": x_m.cast(pa.float64()),
            "centre_y_m": y_m.cast(pa.float64()),
            "centre_z_m": z_m.cast(pa.float64()),
        },
        arrow_schema(LABELS),
    )


def identity_table(scene: Scene) -> pa.Table:
    """The side table between dense ids and nuScenes' instance tokens."""
    first = np.full(len(scene.instance_token), len(scene.keyframe_us))
    np.minimum.at(first, scene.annotation_instance, scene.annotation_keyframe)
    return pa.table(
        {
            "id": pa.array(np.arange(1, len(scene.instance_token) + 1), pa.int32()),
            "instance_token": pa.array(scene.instance_token, pa.string()),
            "category": pa.array(scene.instance_category, pa.string()),
            "class_name": pa.array([CLASSES[k] for k in scene.instance_class], pa.string()),
            "void": scene.instance_void,
            "first_keyframe": pa.array(first, pa.int32()),
        },
        arrow_schema(IDENTITIES),
    )


def sequence_files(name: str, camera: int, frames: pa.Table, labels: pa.Table, rate: Rate) -> Mapping[str, bytes]:
    """The files of one camera's sequence folder, `gt/gt.txt` last. `frames` and `labels` are the scene's, all
    cameras."""
    frames = frames.filter(pc.equal(frames["camera"], camera))
    labels = labels.filter(pc.equal(labels["camera"], camera))
    return {
        "frames.parquet": parquet_bytes(frames),
        "seqinfo.ini": _seqinfo(name, frames, rate),
        "gt/void.txt": mot_text(labels.filter(labels["void"])),
        "gt/gt.txt": mot_text(labels.filter(pc.invert(labels["void"]))),
    }


def mot_text(labels: pa.Table) -> bytes:
    """Rows `frame,id,x,y,w,h,conf,class,visibility,-1`, two decimals."""
    columns = ("frame", "id", "x_px", "y_px", "w_px", "h_px", "class_id", "visibility_level")
    rows = zip(*(labels[column].to_pylist() for column in columns), strict=True)
    lines = [f"{f},{i},{x:.2f},{y:.2f},{w:.2f},{h:.2f},1.000000,{c},{v}.00,-1\n" for f, i, x, y, w, h, c, v in rows]
    return "".join(lines).encode()


def _seqinfo(name: str, frames: pa.Table, rate: Rate) -> bytes:
    times = frames["timestamp_us"].to_numpy()
    hertz = NOMINAL_RATE_HZ if rate == "12" or len(times) < 2 else round(1e6 / float(np.median(np.diff(times))))
    width, height = (int(v) for v in frames["image_size_px"][0].as_py()) if len(frames) else (0, 0)
    return (
        f"[Sequence]\nname={name}\nframeRate={hertz}\nseqLength={len(frames)}\nimWidth={width}\nimHeight={height}\n"
    ).encode()


def parquet_bytes(table: pa.Table) -> bytes:
    """A Parquet file in memory; equal tables give equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
