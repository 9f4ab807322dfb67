"""A clip as a recording for the Rerun viewer: pictures, masks, hands, robot joints and poses on one time line.

In: a run's folder, clip ids. Out: one `.rrd` file per clip. Called by the command line's `view`. Needs the optional
package rerun-sdk; the HTML report needs nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from pycocotools import mask as coco

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.clip_tables import NOTHING_FOUND
from data_jobs.egoworld.overlay import FINGER_BONES
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.report_data import summarise
from data_jobs.egoworld.schemas import TABLES
from data_jobs.runs.errors import RunError

WINDOW_FRAMES = 8
JPEG_QUALITY = 80
LONGEST_SIDE_PX = 960  # a recording of a clip then takes tens of megabytes, not hundreds


def write_recordings(run_folder: Path, output: Path, clip_ids: Sequence[str] = ()) -> list[Path]:
    """One file per done clip (or per id given) in a new or empty folder. RunError says what cannot be done."""
    try:
        import rerun
    except ImportError as error:
        raise RunError("view needs the package rerun-sdk: install the extra `view` (pip install rerun-sdk)") from error
    summary = summarise(run_folder)
    by_id = {one.clip.clip_id: one for one in summary.clips}
    unknown = [clip_id for clip_id in clip_ids if clip_id not in by_id]
    if unknown:
        raise RunError(f"{unknown[0]} is no done clip of {run_folder}; `status` counts them, `report` lists them")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(f"{output} exists and is not an empty folder; give a new one with --output")
    output.mkdir(parents=True, exist_ok=True)
    paths = []
    for clip_id in clip_ids or sorted(by_id):
        path = output / f"{clip_id}.rrd"
        partial = path.with_suffix(".part")
        recording = rerun.RecordingStream("egoworld", recording_id=clip_id)
        recording.save(partial)
        _record(rerun, recording, by_id[clip_id].clip, by_id[clip_id].folder)
        recording.flush()
        recording.disconnect()
        paths.append(partial.replace(path))
    return paths


def _record(rerun: Any, recording: Any, clip: Clip, folder: Path) -> None:
    tables = {name: _by_frame(folder / f"{name}.parquet") for name in TABLES}
    shrink = min(1.0, LONGEST_SIDE_PX / max(clip.width, clip.height))
    recording.log("clip", rerun.TextDocument((folder / "meta.json").read_text(encoding="utf-8")), static=True)
    for window in ClipReader(clip, WINDOW_FRAMES).windows():
        for i, image in enumerate(window.images):
            index = int(window.frame_index[i])
            recording.set_time("video", duration=float(window.timestamp_s[i]))
            small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
            recording.log("picture", rerun.Image(small).compress(jpeg_quality=JPEG_QUALITY))
            rows = {name: table[index] for name, table in tables.items() if index in table}
            for name, draw in (
                ("masks", _masks),
                ("hand_pose", _hands),
                ("mapping", _robot),
                ("object_pose", _objects),
            ):
                if name in rows:
                    draw(rerun, recording, rows[name], small.shape[:2], shrink)
            if "fast3r_pose" in rows:
                _camera(rerun, recording, rows["fast3r_pose"][0])


def _masks(rerun: Any, recording: Any, rows: list[dict[str, Any]], size: tuple[int, int], shrink: float) -> None:
    ids = np.zeros(size, np.uint16)
    for row in rows:
        if row["object_id"] != NOTHING_FOUND:
            mask = cv2.resize(coco.decode(json.loads(row["mask_rle"])), size[::-1], interpolation=cv2.INTER_NEAREST)
            ids[mask > 0] = row["object_id"] + 1
    recording.log("picture/masks", rerun.SegmentationImage(ids))
    known = [row for row in rows if row["object_id"] != NOTHING_FOUND]
    boxes = [np.array(row["box"]).reshape(2, 2) * shrink for row in known]
    labels = [f"{row['class']} {row['object_id']}" for row in known]
    mins, sizes = [box[0] for box in boxes], [box[1] - box[0] for box in boxes]
    recording.log("picture/boxes", rerun.Boxes2D(mins=mins, sizes=sizes, labels=labels))


def _hands(rerun: Any, recording: Any, rows: list[dict[str, Any]], size: tuple[int, int], shrink: float) -> None:
    for side in ("left", "right"):
        mine = [row for row in rows if row["handedness"] == side]
        flat = [np.reshape(row["landmarks_px"], (21, 3))[:, :2] * shrink for row in mine]
        solid = [np.reshape(row["pose"], (21, 3)) for row in mine]
        chains = [[0, *finger] for finger in FINGER_BONES]
        recording.log(f"picture/{side}_hand", rerun.LineStrips2D([one[chain] for one in flat for chain in chains]))
        recording.log(f"hand/{side}", rerun.LineStrips3D([one[chain] for one in solid for chain in chains]))


def _robot(rerun: Any, recording: Any, rows: list[dict[str, Any]], size: tuple[int, int], shrink: float) -> None:
    for row in rows:
        for name, angle in zip(row["joints"], row["pose"], strict=True):
            recording.log(f"robot/{row['robot']}/{name}", rerun.Scalars(angle))


def _objects(rerun: Any, recording: Any, rows: list[dict[str, Any]], size: tuple[int, int], shrink: float) -> None:
    for row in rows:
        if np.isfinite(row["pose"]).all():
            recording.log(f"camera/objects/{row['object']}", _transform(rerun, row["pose"], from_parent=False))


def _camera(rerun: Any, recording: Any, row: dict[str, Any]) -> None:
    if np.isfinite(row["pose"]).all():
        # The table holds camera_from_world; below `world` the camera is a child.
        recording.log("world/camera", _transform(rerun, row["pose"], from_parent=True))
    if row["points"]:
        points = np.reshape(row["points"], (-1, 3))
        recording.log(f"world/points/{row['frame_index']}", rerun.Points3D(points))


def _transform(rerun: Any, pose: Sequence[float], *, from_parent: bool) -> Any:
    x, y, z, qw, qx, qy, qz = pose
    relation = rerun.TransformRelation.ChildFromParent if from_parent else rerun.TransformRelation.ParentFromChild
    quaternion = rerun.Quaternion(xyzw=[qx, qy, qz, qw])
    return rerun.Transform3D(translation=[x, y, z], quaternion=quaternion, relation=relation)


def _by_frame(path: Path) -> dict[int, list[dict[str, Any]]]:
    """Frame index → rows; empty when the table was not published."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    if path.exists():
        for row in pq.ParquetFile(path).read().to_pylist():
            found[row["frame_index"]].append(row)
    return found
