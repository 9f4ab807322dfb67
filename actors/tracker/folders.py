"""Template folders in SAM-6D's form: rgb_0.png, mask_0.png, rgb_1.png, … as its BlenderProc renderer writes them.

In: a folder. Out: Views; and back. Called by the command line. `xyz_i.npy` files may lie beside them and are not read.
Camera poses, which SAM-6D keeps elsewhere, are written to poses.npy and read when they are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from actors.tracker.errors import BankUnusable
from actors.tracker.mesh import View

POSES_FILE = "poses.npy"
MASK_LEVEL = 127  # of 255


def read_folder(folder: Path) -> list[View]:
    """All views, in order. Raises BankUnusable: no template, a gap in the numbers, an empty mask, sizes that differ."""
    count = len(list(folder.glob("rgb_*.png"))) if folder.is_dir() else 0
    if not count:
        raise BankUnusable(f"{folder} holds no templates; expected rgb_0.png and mask_0.png, rgb_1.png and so on")
    poses = _poses(folder, count)
    return [_view(folder, number, None if poses is None else poses[number]) for number in range(count)]


def write_folder(views: Sequence[View], folder: Path) -> None:
    """The same files, for SAM-6D and for a person to look at."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, view in enumerate(views):
        cv2.imwrite(str(folder / f"rgb_{number}.png"), view.image[:, :, ::-1])
        cv2.imwrite(str(folder / f"mask_{number}.png"), view.mask.astype(np.uint8) * 255)
    poses = [view.camera_from_object for view in views if view.camera_from_object is not None]
    if len(poses) == len(views):
        np.save(folder / POSES_FILE, np.stack(poses))


def _view(folder: Path, number: int, pose: np.ndarray | None) -> View:
    picture = _picture(folder / f"rgb_{number}.png", cv2.IMREAD_COLOR)
    mask = _picture(folder / f"mask_{number}.png", cv2.IMREAD_GRAYSCALE) > MASK_LEVEL
    if picture.shape[:2] != mask.shape:
        raise BankUnusable(
            f"{folder}: rgb_{number}.png is {picture.shape[1]}×{picture.shape[0]}, its mask "
            f"{mask.shape[1]}×{mask.shape[0]}; they must have one size"
        )
    if not mask.any():
        raise BankUnusable(f"{folder}/mask_{number}.png is empty: it must be white where the object is")
    return View(np.ascontiguousarray(picture[:, :, ::-1]), mask, pose)


def _picture(path: Path, how: int) -> np.ndarray:
    pixels = cv2.imread(str(path), how) if path.is_file() else None
    if pixels is None:
        raise BankUnusable(f"{path} is missing or no picture; templates are numbered from 0 without gaps")
    return pixels


def _poses(folder: Path, count: int) -> np.ndarray | None:
    path = folder / POSES_FILE
    if not path.is_file():
        return None
    try:
        poses = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BankUnusable(f"{path} cannot be read: {error}") from error
    if poses.shape != (count, 4, 4):
        raise BankUnusable(f"{path} has shape {poses.shape}, expected ({count}, 4, 4), one pose per template")
    return poses
