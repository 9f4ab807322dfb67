"""nuscenes-devkit's own boxes and speed, for the tests and benchmarks. Runs in an environment of its own:

    uv venv /tmp/devkit && uv pip install --python /tmp/devkit/bin/python --no-deps nuscenes-devkit==1.2.0 &&
    \\ uv pip install --python /tmp/devkit/bin/python numpy pyquaternion shapely cachetools tqdm pillow
    matplotlib \
        opencv-python-headless scikit-learn fire parameterized pandas scipy
    /tmp/devkit/bin/python tests/data_jobs/nuscenes/devkit_oracle.py ../shared/data/av2_as_nuscenes
    v1.0-av2mini --time

`--time` prints microseconds per projection of the loop that the fine-tuning recipe runs: copy the box, move
it to the ego and the camera frame, project its corners, test its visibility, take the extremes.
`--centres HELDOUT` prints the error of `get_boxes` at the lidar sweeps against the held-out boxes.
"""

import sys
import time

import numpy as np
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.geometry_utils import BoxVisibility, box_in_image, view_points
from pyquaternion import Quaternion

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")


def project(nusc: NuScenes, sample_data_token: str, box_global):
    data = nusc.get("sample_data", sample_data_token)
    calibration = nusc.get("calibrated_sensor", data["calibrated_sensor_token"])
    pose = nusc.get("ego_pose", data["ego_pose_token"])
    box = box_global.copy()
    box.translate(-np.array(pose["translation"]))
    box.rotate(Quaternion(pose["rotation"]).inverse)
    box.translate(-np.array(calibration["translation"]))
    box.rotate(Quaternion(calibration["rotation"]).inverse)
    if box.center[2] < 0.1:
        return None
    intrinsics, size = np.array(calibration["camera_intrinsic"]), (data["width"], data["height"])
    corners = view_points(box.corners(), intrinsics, normalize=True)[:2]
    if not box_in_image(box, intrinsics, size, vis_level=BoxVisibility.ANY):
        return None
    return (*np.maximum(corners.min(axis=1), 0), *np.minimum(corners.max(axis=1), size))


def time_projections(nusc: NuScenes) -> None:
    jobs = [
        (sample["data"][camera], nusc.get_box(token))
        for sample in nusc.sample
        for camera in CAMERAS
        for token in sample["anns"]
    ]
    start = time.perf_counter()
    seen = sum(project(nusc, token, box) is not None for token, box in jobs)
    seconds = time.perf_counter() - start
    sys.stdout.write(f"\n{len(jobs)} projections, {seen} seen, µs each: {1e6 * seconds / len(jobs)}\n")


def centre_errors(nusc: NuScenes, heldout: str) -> None:
    import pandas as pd

    truth = pd.read_parquet(heldout)
    errors = []
    for token, rows in truth.groupby("lidar_sample_data_token"):
        sample = nusc.get("sample", nusc.get("sample_data", token)["sample_token"])
        before = {
            nusc.get("sample_annotation", t)["instance_token"] for t in nusc.get("sample", sample["prev"])["anns"]
        }
        names = [nusc.get("sample_annotation", t)["instance_token"] for t in sample["anns"]]
        boxes = dict(zip(names, nusc.get_boxes(token), strict=True))
        for row in rows.itertuples():
            if row.instance_token in boxes and row.instance_token in before:
                errors.append(np.linalg.norm(boxes[row.instance_token].center - (row.x, row.y, row.z)))
    sys.stdout.write(
        f"\ncentres of {len(errors)} boxes: mean {np.mean(errors):.4f} m, 95 % {np.percentile(errors, 95):.4f} m\n"
    )


if __name__ == "__main__":
    database = NuScenes(version=sys.argv[2], dataroot=sys.argv[1], verbose=False)
    time_projections(database) if sys.argv[3] == "--time" else centre_errors(database, sys.argv[4])
