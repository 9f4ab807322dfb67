"""`check`: one HTML page that shows whether labels are sound. Pictures, plans from above, smoothness, visible
share.

In: a converted folder, and the image folder where there is one. Out: a self-contained HTML file. Called by
__main__.py. Numbers come from check_numbers.py, pictures from check_pictures.py.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from data_jobs.nuscenes.check_numbers import JUMP_IOU, Smoothness, histogram, smoothness
from data_jobs.nuscenes.check_pictures import camera_picture, legend, plan_picture
from data_jobs.nuscenes.convert import STATS
from data_jobs.nuscenes.schema import CAMERAS
from data_jobs.runs.errors import RunError

# Where in each scene pictures are taken, as a share of its frames.
INSTANTS = (0.25, 0.5, 0.75)

# Scenes whose labels go into the smoothness numbers; 40 scenes are a million boxes.
NUMBER_SCENES = 40

# The order of the rig seen from above: left to right, front row first.
VIEW_ORDER = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")


def write_report(converted: Path, dataroot: Path | None, target: Path, scenes: int) -> list[str]:
    """Write the page; returns its main facts as sentences. Raises RunError when the folder holds nothing
    converted."""
    if not (converted / STATS).is_file():
        raise RunError(f"{converted} has no {STATS}; run `convert` into it first")
    stats = json.loads((converted / STATS).read_text())
    folders = sorted(converted.glob("joint/split=*/scene=*"))
    if not folders:
        raise RunError(f"{converted} holds no converted scene")
    motion = smoothness(_labels(folders[:: max(1, len(folders) // NUMBER_SCENES)]))
    shown = [_scene(folder, dataroot) for folder in folders[:: max(1, len(folders) // max(1, scenes))][:scenes]]
    missing = sum(scene["missing"] for scene in shown)
    warnings = []
    if missing:
        where = f"under {dataroot}" if dataroot else "because no --dataroot was given"
        warnings.append(f"{missing} images are not there ({where}): their boxes are drawn on a blank canvas.")
    if motion.jumps:
        warnings.append(
            f"{motion.jumps} boxes jump: they overlap where their two predecessors point by less than {JUMP_IOU:g}."
        )
    page = _template().render(
        title=converted.name, stats=stats, warnings=warnings, motion=_motion_rows(motion), plots=_plots(motion),
        legend=legend(), scenes=shown,
    )  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    return [*warnings, *(f"{name}: {value}" for name, value in _motion_rows(motion))]


def _template() -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, undefined=StrictUndefined, autoescape=select_autoescape()).get_template(
        "check.html.jinja"
    )


def _labels(folders: list[Path]) -> pa.Table:
    """Labels of these scenes with their name as a column."""
    tables = []
    for folder in folders:
        table = pq.ParquetFile(folder / "labels.parquet").read()
        tables.append(table.append_column("scene", pa.array([folder.name] * len(table), pa.string())))
    return pa.concat_tables(tables)


def _motion_rows(motion: Smoothness) -> list[tuple[str, str]]:
    def quantiles(values: np.ndarray, digits: int) -> str:
        if not len(values):
            return "nothing to measure"
        low, middle, high = np.percentile(values, [5, 50, 95])
        return f"{low:.{digits}f} / {middle:.{digits}f} / {high:.{digits}f}"

    return [
        ("median time between frames of a track", f"{1000 * motion.median_dt_s:.1f} ms"),
        ("IoU with where the two boxes before point, 5 / 50 / 95 %", quantiles(motion.step_iou, 3)),
        ("acceleration in diagonals per s², 5 / 50 / 95 %", quantiles(motion.bend_share, 2)),
        (f"whole boxes that jump (IoU below {JUMP_IOU:g})", str(motion.jumps)),
        ("pauses inside tracks", str(motion.gaps)),
    ]


def _plots(motion: Smoothness) -> list[dict[str, Any]]:
    plots = [
        ("IoU with where the two boxes before point", histogram(motion.step_iou, np.arange(11, dtype=np.float64) / 10)),
        ("Acceleration, diagonals per s²", histogram(motion.bend_share, np.array([0, 0.5, 1, 2, 4, 8, 16, 32, 64]))),
    ]
    return [{"title": t, "bars": bars, "top": max((s for _, s in bars), default=1.0) or 1.0} for t, bars in plots]


def _scene(folder: Path, dataroot: Path | None) -> dict[str, Any]:
    frames = pq.ParquetFile(folder / "frames.parquet").read()
    labels = pq.ParquetFile(folder / "labels.parquet").read()
    instants = [_instant(frames, labels, share, dataroot) for share in INSTANTS]
    return {
        "name": folder.name.removeprefix("scene="),
        "split": folder.parent.name.removeprefix("split="),
        "instants": instants,
        "missing": sum(instant["missing"] for instant in instants),
    }


def _instant(frames: pa.Table, labels: pa.Table, share: float, dataroot: Path | None) -> dict[str, Any]:
    """The six cameras' frames nearest to one time, and the plan."""
    times = np.sort(frames["timestamp_us"].to_numpy())
    at = times[int(share * (len(times) - 1))]
    pictures, missing, front = [], 0, None
    for name in VIEW_ORDER:
        mine = frames.filter(pc.equal(frames["camera"], CAMERAS.index(name)))
        if not len(mine):
            continue
        row = mine.slice(int(np.argmin(np.abs(mine["timestamp_us"].to_numpy() - at))), 1).to_pylist()[0]
        here = pc.and_(pc.equal(labels["camera"], row["camera"]), pc.equal(labels["frame"], row["frame"]))
        picture, found = camera_picture(row, labels.filter(here), dataroot)
        pictures.append(base64.b64encode(picture).decode())
        missing += not found
        front = row if front is None or name == "CAM_FRONT" else front
    caption = f"{(at - times[0]) / 1e6:.2f} s after the first frame"
    plan = base64.b64encode(plan_picture(front, labels)).decode() if front else ""
    return {"pictures": pictures, "plan": plan, "caption": caption, "missing": missing}
