"""How fast each operator of configs/egoworld_full.yaml is on one clip: processor time, models loaded before.

Run: `python -m benchmarks.operator_rates VIDEO [--seconds 10]`. Each operator works as in a run, on the tables of those
before it. Processor time, so that a busy machine does not decide; on one core it is the wall time of a quiet one.
`fast3r:pycolmap` is left out where pycolmap is not installed; objects need meshes: benchmarks/object_pose_lmo.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.egoworld.manifest import clips, clips_of
from data_jobs.egoworld.operators.registry import operator_class
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.splitters import FixedStride, Split
from data_jobs.runs.errors import RunError

OPERATORS = (
    ("hamer", "mediapipe", {}, "frames"),
    ("sam2", "mobile_sam", {}, "prompted frames"),
    ("dex_retarget", "batched", {}, "hands"),
    ("dex_retarget", "dex_retargeting", {}, "hands"),
    ("dex_retarget", "dex_retargeting", {"robot": "shadow"}, "hands"),
    ("fast3r", "pycolmap", {"interval_s": 1.0, "max_views": 10}, "views"),
)


def main() -> None:
    """One row per operator."""
    parser = argparse.ArgumentParser()
    parser.add_argument("video", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    video = probe(str(options.video), options.video.name)
    frames = min(video.frame_count, round(options.seconds * float(video.fps)))
    clip = next(clips(clips_of(video, Split(((0, frames),)), FixedStride())))
    tables: dict[str, pa.Table] = {}
    sys.stdout.write(f"{clip.name}: {frames} frames of {clip.width}x{clip.height}\n\n")
    sys.stdout.write("| operator | what | how many | per second of processor time |\n|---|---|---|---|\n")
    for key, backend, params, what in OPERATORS:
        operator_type = operator_class(key, backend)
        values = operator_type.Params.model_validate(params)
        try:
            getattr(operator_type, "specified", lambda values: None)(values)
        except RunError as error:
            sys.stdout.write(f"| {key}:{backend} | {error} | | |\n")
            continue
        operator = operator_type(values)
        operator.load()
        start = time.process_time()
        table = operator.run(clip, tables, 16)
        spent = time.process_time() - start
        operator.close()
        tables.setdefault(key, table)
        many = {"frames": frames, "hands": len(table)}.get(what, pc.count_distinct(table["frame_index"]).as_py())
        name = f"{key}:{backend}" + (f" ({params['robot']})" if "robot" in params else "")
        sys.stdout.write(f"| {name} | {what} | {many} | {many / spent:,.2f} |\n")


if __name__ == "__main__":
    main()
