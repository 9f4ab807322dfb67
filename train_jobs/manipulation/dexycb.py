"""DexYCB as Samples: the four splits, labels as they are in its files, crops around hands with their own cameras.

In: a folder in DexYCB's layout, a setup (s0 to s3) and a split. Out: the list of its frames, Samples of some of them.
Called by whoever has the data set; its licence (CC BY-NC 4.0) keeps it out of what ships. Layout, splits and meanings
after Chao et al. 2021 and the documentation of its toolkit:

    <subject>/<sequence>/meta.yml                                  ycb_ids, ycb_grasp_ind, mano_sides, num_frames, …
    <subject>/<sequence>/<serial>/color_000000.jpg                 640 × 480
    <subject>/<sequence>/<serial>/labels_000000.npz                joint_3d (1, 21, 3), joint_2d, pose_y (N, 3, 4),
                                                                   pose_m (1, 51), seg (480, 640)
    calibration/intrinsics/<serial>_640x480.yml                    color: fx, fy, ppx, ppy

`joint_3d` is −1 throughout where there is no hand. `pose_m` is 48 numbers (3 of the global turn, 45 principal
components: not angles) and 3 of translation. A left hand's picture is mirrored, as the network knows right hands only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
import yaml

from models.manipulation.geometry import changed_intrinsics, crop_map
from train_jobs.manipulation.augment import mirror
from train_jobs.manipulation.errors import BadData
from train_jobs.manipulation.samples import MOST_OBJECTS, Samples, together

Setup = Literal["s0", "s1", "s2", "s3"]
Split = Literal["train", "val", "test"]
SUBJECTS = tuple(f"subject-{k:02d}" for k in range(1, 11))
SERIALS, SEQUENCES, HEIGHT_PX, WIDTH_PX = 8, 100, 480, 640
JOINTS, PCA_NUMBERS, POSE_NUMBERS = 21, 48, 51
MISSING = -1.0
CROP_SCALE = 1.4  # of the joints' box
OTHER_SHAPE, NO_OBJECT = -1, -2


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of the set."""

    sequence: Path
    serial: str
    number: int


@dataclass(frozen=True, slots=True)
class Label:
    """What a label file says."""

    joints_m: np.ndarray  # (21, 3), 0 where missing
    labelled: np.ndarray  # (21,) bool
    pose_pca: np.ndarray  # (48,) global turn and principal components
    translation_m: np.ndarray  # (3,)
    object_poses: np.ndarray  # (N, 4, 4) camera from object


def places(setup: Setup, split: Split) -> tuple[list[int], list[int], list[int]]:
    """Indices of subjects, cameras and sequences (of each subject's hundred) of a split."""
    every = list(range(SEQUENCES))
    subjects, serials = list(range(len(SUBJECTS))), list(range(SERIALS))
    if setup == "s0":
        if split == "train":
            return subjects, serials, [k for k in every if k % 5 != 4]
        return (subjects[:2] if split == "val" else subjects[2:]), serials, [k for k in every if k % 5 == 4]
    if setup == "s1":
        return {"train": [0, 1, 2, 3, 4, 5, 9], "val": [6], "test": [7, 8]}[split], serials, every
    if setup == "s2":
        return subjects, {"train": [0, 1, 2, 3, 4, 5], "val": [6], "test": [7]}[split], every
    if setup == "s3":
        wanted = {"val": {3, 19}, "test": {7, 11, 15}}
        held_out = {3, 7, 11, 15, 19}
        kept = [k for k in every if (k // 5 in wanted[split] if split in wanted else k // 5 not in held_out)]
        return subjects, serials, kept
    raise BadData(f"unknown setup {setup!r} of DexYCB; there are {', '.join(get_args(Setup))}")


def frames(folder: Path, setup: Setup, split: Split) -> list[Frame]:
    """Every frame of a split, in order. Raises BadData that names what the folder lacks."""
    if split not in get_args(Split):
        raise BadData(f"unknown split {split!r} of DexYCB; there are {', '.join(get_args(Split))}")
    subjects, serials, sequences = places(setup, split)
    found = []
    for subject in subjects:
        own = _folders(_subject(folder, subject), SEQUENCES)
        for index in sequences:
            meta = _meta(own[index])
            cameras = _folders(own[index], SERIALS)
            found += [Frame(own[index], cameras[k].name, n) for k in serials for n in range(int(meta["num_frames"]))]
    return found


def _subject(folder: Path, index: int) -> Path:
    """`20200709-subject-01`: the date comes first."""
    here = sorted(folder.glob(f"*-{SUBJECTS[index]}"))
    if len(here) != 1:
        raise BadData(f"{folder} has {len(here)} folders *-{SUBJECTS[index]}, DexYCB has one")
    return here[0]


def _folders(folder: Path, count: int) -> list[Path]:
    here = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(here) != count:
        raise BadData(f"{folder} has {len(here)} folders, DexYCB has {count} there: the download is not complete")
    return here


@cache
def _meta(sequence: Path) -> dict[str, Any]:
    return _yaml(sequence / "meta.yml", ("ycb_ids", "mano_sides", "num_frames"))


def _yaml(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadData(f"cannot read {path}: {' '.join(str(error).split())}") from error
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            raise BadData(f"{path} has no {key!r}")
    return dict(values)


@cache
def intrinsics(folder: Path, serial: str) -> np.ndarray:
    """(3, 3) of a camera's colour pictures at 640 × 480."""
    path = folder / "calibration" / "intrinsics" / f"{serial}_{WIDTH_PX}x{HEIGHT_PX}.yml"
    colour = _yaml(path, ("color",))["color"]
    try:
        fx, fy, x, y = (float(colour[key]) for key in ("fx", "fy", "ppx", "ppy"))
    except (KeyError, TypeError, ValueError) as error:
        raise BadData(f"{path}: color needs the numbers fx, fy, ppx, ppy ({error})") from error
    return np.array([[fx, 0, x], [0, fy, y], [0, 0, 1]])


def read_label(path: Path) -> Label:
    """A label file. Raises BadData that names the array that is missing or of another shape."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in ("joint_3d", "pose_m", "pose_y")}
    except (OSError, ValueError, KeyError) as error:
        raise BadData(f"cannot read {path}: {error}") from error
    for name, shape in (("joint_3d", (1, JOINTS, 3)), ("pose_m", (1, POSE_NUMBERS))):
        if arrays[name].shape != shape:
            raise BadData(f"{path}: {name} is {arrays[name].shape}, DexYCB's is {shape}")
    if arrays["pose_y"].ndim != 3 or arrays["pose_y"].shape[1:] != (3, 4):
        raise BadData(f"{path}: pose_y is {arrays['pose_y'].shape}, DexYCB's is (N, 3, 4)")
    joints = arrays["joint_3d"][0].astype(np.float64)
    labelled = ~np.all(joints == MISSING, axis=1)
    poses = np.tile(np.eye(4), (len(arrays["pose_y"]), 1, 1))
    poses[:, :3] = arrays["pose_y"]
    pose = arrays["pose_m"][0].astype(np.float64)
    return Label(np.where(labelled[:, None], joints, 0.0), labelled, pose[:PCA_NUMBERS], pose[PCA_NUMBERS:], poses)


def read(folder: Path, chosen: list[Frame], size_px: int) -> Samples:
    """Crops of these frames around their hands; around the picture's middle where there is none."""
    if not chosen:
        raise BadData(f"no frame of {folder} was chosen")
    return together([_sample(folder, frame, size_px) for frame in chosen])


def _sample(folder: Path, frame: Frame, size_px: int) -> Samples:
    stem, meta = frame.sequence / frame.serial, _meta(frame.sequence)
    label = read_label(stem / f"labels_{frame.number:06d}.npz")
    colour = stem / f"color_{frame.number:06d}.jpg"
    image = cv2.imread(str(colour))
    if image is None:
        raise BadData(f"cannot read the picture {colour}")
    if image.shape[:2] != (HEIGHT_PX, WIDTH_PX):
        raise BadData(f"{colour} is {image.shape[1]} × {image.shape[0]}, DexYCB's are {WIDTH_PX} × {HEIGHT_PX}")
    camera = intrinsics(folder, frame.serial)
    crop = _crop(label, camera, size_px)
    picture = cv2.warpAffine(image[..., ::-1], crop.numpy(), (size_px, size_px), flags=cv2.INTER_AREA)
    sample = _labelled(label, meta, picture, changed_intrinsics(torch.tensor(camera), crop))
    return mirror(sample) if meta["mano_sides"][0] == "left" else sample


def _crop(label: Label, camera: np.ndarray, size_px: int) -> torch.Tensor:
    """(2, 3) float64 from the picture to a square around the hand."""
    low, high = np.array([WIDTH_PX / 2 - 150] * 2), np.array([WIDTH_PX / 2 + 150] * 2)
    if label.labelled.any():
        seen = label.joints_m[label.labelled] @ camera.T
        pixels = seen[:, :2] / seen[:, 2:]
        low, high = pixels.min(axis=0), pixels.max(axis=0)
    side = CROP_SCALE * max(float((high - low).max()), 32.0)
    left, top = (low + high) / 2 - side / 2
    x, y, wide = (torch.tensor(value, dtype=torch.float64) for value in (left, top, side))
    return crop_map(x, y, wide, size_px)


def _labelled(label: Label, meta: dict[str, Any], picture: np.ndarray, camera: torch.Tensor) -> Samples:
    classes = [int(number) - 1 for number in meta["ycb_ids"]][:MOST_OBJECTS]
    # The one that is grasped comes first.
    grasped = int(meta.get("ycb_grasp_ind", 0))
    order = sorted(range(len(classes)), key=lambda k: k != grasped)
    poses, kinds = np.tile(np.eye(4), (MOST_OBJECTS, 1, 1)), np.full(MOST_OBJECTS, NO_OBJECT)
    numbers = np.full(MOST_OBJECTS, -1)
    for place, k in enumerate(order):
        if k < len(label.object_poses):
            poses[place], kinds[place], numbers[place] = label.object_poses[k], OTHER_SHAPE, classes[k]
    return Samples(
        pictures=torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None],
        intrinsics=camera.float()[None],
        joints_m=torch.tensor(label.joints_m, dtype=torch.float32)[None],
        joints_labelled=torch.from_numpy(label.labelled)[None],
        has_hand=torch.tensor([bool(label.labelled.any())]),
        object_poses=torch.tensor(poses, dtype=torch.float32)[None],
        object_kinds=torch.tensor(kinds)[None],
        object_halves_m=torch.zeros(1, MOST_OBJECTS, 3),
        object_classes=torch.tensor(numbers)[None],
        contact_points_m=torch.zeros(1, 10, 3),
        touching=torch.zeros(1, 10, dtype=torch.bool),
        contacts_labelled=torch.zeros(1, 10, dtype=torch.bool),  # it has none: they would come from meshes
    )
