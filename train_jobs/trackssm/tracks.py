"""True tracks from files: nuScenes conversions, MOT folders, TrackSSM label files, all in one record.

In: a folder. Out: Sequences, in the order of their names. Called by job.py through windows.py. Reads what data_jobs/
nuscenes writes (`gt/gt.txt`, `frames.parquet`), but knows nothing of how it was made.

- conversion: `<split>/scene-XXXX_CAM/{gt/gt.txt, frames.parquet}`: times, camera poses and lenses are those recorded.
- MOT folder: `<sequence>/{gt/gt.txt, seqinfo.ini}`: counted pedestrians; times from the frame rate; no camera poses.
- label files: `<sequence>/<track>.txt`, rows `0 frame cx cy w h visibility` as shares of the image; rate by caller.
"""

from __future__ import annotations

import configparser
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.box_kalman import FloatArray
from train_jobs.trackssm.errors import BadTracks

IntArray = npt.NDArray[np.int64]

PEDESTRIAN = 4  # class number of MOT's pedestrians among the seven of nuScenes
# Cameras that a lidar fires are at 10 to 12 Hz, from median to median; 25 and 30 Hz are two rates.
RATE_SPREAD = 1.15
# Label files have no size of image; any will do for boxes that are shares of it.
LABEL_IMAGE_WH = (1000.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Sequence:
    """One camera's true boxes: R rows on F frames, sorted by frame."""

    name: str
    time_s: FloatArray  # (F,)
    rate_hz: float  # nominal
    image_wh: tuple[float, float]
    frame: IntArray  # (R,) from 0
    id: IntArray  # (R,) dense from 0
    box_px: FloatArray  # (R, 4) centre x, centre y, width, height
    class_id: IntArray  # (R,)
    global_from_camera: FloatArray  # (F, 3, 4), the identity where not known
    intrinsics_px: FloatArray  # (F, 3, 3)
    way_known: bool


def read_folder(folder: Path, rate_hz: float | None = None) -> tuple[list[Sequence], list[Sequence]]:
    """(training, validation) sequences of a folder of any of the three kinds.

    A conversion's `train` and `held_out` splits, else every fifth sequence is held out. Raises BadTracks.
    """
    if any(folder.glob("*/*/frames.parquet")):
        parts = [[_converted(p.parent) for p in sorted(folder.glob(f"{s}/*/frames.parquet"))] for s in SPLITS]
        if not all(parts):
            missing = [split for split, part in zip(SPLITS, parts, strict=True) if not part]
            raise BadTracks(f"{folder} has no sequences of split {' or '.join(missing)}, which `convert` makes")
        return parts[0], parts[1]
    found = [_mot(p.parents[1]) for p in sorted(folder.glob("*/gt/gt.txt"))]
    if not found:
        names = sorted({p.parent for p in folder.glob("*/*.txt")})
        if names and rate_hz is None:
            raise BadTracks(f"label files in {folder} do not say their frame rate; give --rate")
        found = [_labels(name, float(rate_hz or 0)) for name in names]
    if len(found) < 2:
        raise BadTracks(
            f"{folder} holds {len(found)} sequences, expected two or more, one of them to hold out: a conversion, "
            f"<sequence>/gt/gt.txt, or <sequence>/<track>.txt"
        )
    held = [s for k, s in enumerate(found) if k % 5 == 4 or (len(found) < 5 and k == len(found) - 1)]
    return [s for s in found if s not in held], held


SPLITS = ("train", "held_out")


def check_one_rate(sequences: Listed[Sequence], why: str) -> None:
    """Raise BadTracks unless the frame rates of all sequences are within RATE_SPREAD of each other."""
    rates = {s.rate_hz: s.name for s in sequences}
    if max(rates) > RATE_SPREAD * min(rates):
        told = ", ".join(f"{name} has {rate:g} Hz" for rate, name in sorted(rates.items()))
        raise BadTracks(f"the sequences have different frame rates ({told}); {why}")


def _numbers(path: Path, least: int, delimiter: str | None = ",") -> FloatArray:
    try:
        rows = np.loadtxt(path, delimiter=delimiter, ndmin=2, dtype=np.float64)
    except (OSError, ValueError) as error:
        raise BadTracks(f"{path} is not a table of numbers: {error}") from error
    if not rows.size:
        return np.zeros((0, least))
    if rows.shape[1] < least:
        raise BadTracks(f"{path} has {rows.shape[1]} columns, expected at least {least}")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise BadTracks(f"{path}, line {bad[0] + 1}: a value is not a finite number")
    return rows


def _mot_boxes(rows: FloatArray) -> FloatArray:
    return np.concatenate([rows[:, 2:4] + rows[:, 4:6] / 2, rows[:, 4:6]], axis=1)


def _made(
    path: Path, name: str, time_s: FloatArray, rate: float, wh: tuple[float, float], frame: IntArray,
    identity: IntArray, box: FloatArray, class_id: IntArray, poses: FloatArray | None = None,
    lens: FloatArray | None = None,
) -> Sequence:  # fmt: skip
    flat = np.flatnonzero((box[:, 2:] <= 0).any(axis=1))
    if len(flat):
        raise BadTracks(f"{path}: the box of id {identity[flat[0]]} in frame {frame[flat[0]] + 1} has no area")
    pairs = frame * (identity.max(initial=0) + 1) + identity
    if len(np.unique(pairs)) < len(pairs):
        raise BadTracks(f"{path}: an id stands twice in a frame")
    if len(frame) and not 0 <= frame.min() <= frame.max() < len(time_s):
        raise BadTracks(f"{path}: frame {frame.max() + 1} is beyond the {len(time_s)} of the sequence")
    order = np.lexsort((identity, frame))
    still = np.tile(np.eye(3, 4), (len(time_s), 1, 1))
    # Without calibration, a lens of about 53 degrees: what it is matters little where the camera's way is not known.
    plain = np.tile(np.array([[wh[0], 0, wh[0] / 2], [0, wh[0], wh[1] / 2], [0, 0, 1.0]]), (len(time_s), 1, 1))
    return Sequence(
        name, time_s, rate, wh, frame[order], np.unique(identity, return_inverse=True)[1][order], box[order],
        class_id[order], still if poses is None else poses, plain if lens is None else lens, poses is not None,
    )  # fmt: skip


def _mot(folder: Path) -> Sequence:
    parser = configparser.ConfigParser()
    try:
        parser.read(folder / "seqinfo.ini")
        info = parser["Sequence"]
        rate, length = float(info["frameRate"]), int(info["seqLength"])
        wh = (float(info["imWidth"]), float(info["imHeight"]))
    except (configparser.Error, KeyError, ValueError) as error:
        raise BadTracks(f"{folder / 'seqinfo.ini'} has no usable {error}") from error
    if min(rate, length, *wh) <= 0:
        raise BadTracks(f"{folder / 'seqinfo.ini'}: frameRate, seqLength, imWidth and imHeight must be positive")
    path = folder / "gt" / "gt.txt"
    rows = _numbers(path, 7)
    # The eighth of nine columns is a class; of ten, as in MOT15, a place in the world.
    counted = (rows[:, 6] == 1) & ((rows[:, 7] == 1) if rows.shape[1] == 9 else True)
    rows = rows[counted]
    whole = rows[:, :2].astype(np.int64)
    classes = np.full(len(rows), PEDESTRIAN)
    time_s = np.arange(length) / rate
    return _made(path, folder.name, time_s, rate, wh, whole[:, 0] - 1, whole[:, 1], _mot_boxes(rows), classes)


def _labels(folder: Path, rate: float) -> Sequence:
    parts = []
    for number, path in enumerate(sorted(folder.glob("*.txt"))):
        rows = _numbers(path, 6, None)
        parts.append(np.column_stack([rows[:, 1:6], np.full(len(rows), number)]))
    rows = np.concatenate(parts)
    frame = rows[:, 0].astype(np.int64) - (int(rows[:, 0].min()) if len(rows) else 0)
    box = rows[:, 1:5] * np.tile(LABEL_IMAGE_WH, 2)
    time_s = np.arange(frame.max(initial=-1) + 1) / rate
    identity = rows[:, 5].astype(np.int64)
    return _made(
        folder, folder.name, time_s, rate, LABEL_IMAGE_WH, frame, identity, box, np.full(len(rows), PEDESTRIAN)
    )


def _converted(folder: Path) -> Sequence:
    table = pq.read_table(folder / "frames.parquet")
    time = table["timestamp_us"].to_numpy()
    time_s = (time - time[0]) / 1e6 if len(time) else np.zeros(0)
    ego, camera = (_poses(table, part) for part in ("ego", "camera"))
    origin = np.einsum("fij,fj->fi", ego[:, :, :3], camera[:, :, 3]) + ego[:, :, 3]
    poses = np.concatenate([ego[:, :, :3] @ camera[:, :, :3], origin[:, :, None]], axis=2)
    lens = _listed(table, "intrinsics_px").reshape(-1, 3, 3)
    width, height = _listed(table, "image_size_px")[0] if len(table) else (1.0, 1.0)
    path = folder / "gt" / "gt.txt"
    rows = _numbers(path, 9)
    whole = rows[:, [0, 1, 7]].astype(np.int64)
    rate = round(1 / float(np.median(np.diff(time_s)))) if len(time_s) > 1 else 0.0
    return _made(path, folder.name, time_s, rate, (float(width), float(height)), whole[:, 0] - 1, whole[:, 1],
                 _mot_boxes(rows), whole[:, 2], poses, lens)  # fmt: skip


def _listed(table: pa.Table, name: str) -> FloatArray:
    column = table[name].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1).astype(np.float64)


def _poses(table: pa.Table, part: str) -> FloatArray:
    """(F, 3, 4) from a unit quaternion w x y z and a translation."""
    w, x, y, z = _listed(table, f"{part}_rotation_wxyz").T
    turn = np.stack(
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
         2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
         2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=1,
    ).reshape(-1, 3, 3)  # fmt: skip
    return np.concatenate([turn, _listed(table, f"{part}_translation_m")[:, :, None]], axis=2)
