"""URDF files → the tables that forward kinematics needs: joints in order, links with their fixed offsets.

In: a path. Out: a RobotTree of NumPy arrays. Called by allegro.py; knows nothing of torch. Reads revolute, continuous
and fixed joints (what hands and arms have); meshes, inertias and transmissions are not looked at. Errors name the
file, the joint and the field.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import RobotFileInvalid

MOVING, FIXED = ("revolute", "continuous"), "fixed"


@dataclass(frozen=True, slots=True)
class RobotTree:
    """J moving joints, parents first within each branch, and L links. Lengths in metres, angles in radians."""

    joints: tuple[str, ...]
    parent: np.ndarray  # (J,) the moving joint that carries this one, −1 for the base
    rotation: np.ndarray  # (J, 3, 3) of the joint's frame in its parent joint's frame, at angle 0
    offset_m: np.ndarray  # (J, 3)
    axis: np.ndarray  # (J, 3) unit
    lower_rad: np.ndarray  # (J,)
    upper_rad: np.ndarray  # (J,)
    speed_rad_s: np.ndarray  # (J,)
    links: tuple[str, ...]
    link_joint: np.ndarray  # (L,) the moving joint that carries the link, −1 for the base
    link_rotation: np.ndarray  # (L, 3, 3) of the link in that joint's frame
    link_offset_m: np.ndarray  # (L, 3)

    def link(self, name: str) -> int:
        """Index of a link. Raises RobotFileInvalid, which lists the links."""
        if name not in self.links:
            raise RobotFileInvalid(f"there is no link {name!r}; links are {', '.join(self.links)}")
        return self.links.index(name)


@dataclass(frozen=True, slots=True)
class _Joint:
    name: str
    kind: str
    parent: str
    child: str
    rotation: np.ndarray
    offset_m: np.ndarray
    axis: np.ndarray
    limit: tuple[float, float, float]  # lower, upper, speed


def read_urdf(path: Path) -> RobotTree:
    """Read a URDF file; moving joints come in the file's order. Raises RobotFileInvalid."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise RobotFileInvalid(f"{path} is no readable URDF file: {error}") from error
    joints = [_read_joint(path, element) for element in root.findall("joint")]
    links = [str(element.get("name")) for element in root.findall("link")]
    return _assemble(path, joints, links)


def _assemble(path: Path, joints: list[_Joint], links: list[str]) -> RobotTree:
    unknown = {end for joint in joints for end in (joint.parent, joint.child)} - set(links)
    if unknown:
        raise RobotFileInvalid(f"{path}: joints name links that do not exist: {', '.join(sorted(unknown))}")
    above = {joint.child: joint for joint in joints}
    roots = [link for link in links if link not in above]
    if len(above) != len(joints) or len(roots) != 1:
        raise RobotFileInvalid(f"{path}: links do not form one tree; without a parent are {', '.join(roots) or 'none'}")
    moving = [joint for joint in joints if joint.kind in MOVING]
    index = {joint.name: k for k, joint in enumerate(moving)}

    def carried(link: str) -> tuple[int, np.ndarray, np.ndarray]:
        """The moving joint that carries a link, and the link's pose in that joint's frame."""
        rotation, offset, seen = np.eye(3), np.zeros(3), 0
        while link in above:
            joint, seen = above[link], seen + 1
            if joint.kind in MOVING:
                return index[joint.name], rotation, offset
            if seen > len(joints):
                raise RobotFileInvalid(f"{path}: link {link!r} hangs in a circle of joints")
            rotation, offset, link = joint.rotation @ rotation, joint.rotation @ offset + joint.offset_m, joint.parent
        return -1, rotation, offset

    bases = [carried(joint.parent) for joint in moving]
    ends = [carried(link) for link in links]
    limits = np.array([joint.limit for joint in moving]).reshape(-1, 3)
    return RobotTree(
        tuple(joint.name for joint in moving),
        np.array([base[0] for base in bases], dtype=np.int64),
        np.array([base[1] @ joint.rotation for base, joint in zip(bases, moving, strict=True)]).reshape(-1, 3, 3),
        np.array([b[1] @ joint.offset_m + b[2] for b, joint in zip(bases, moving, strict=True)]).reshape(-1, 3),
        np.array([joint.axis for joint in moving]).reshape(-1, 3),
        limits[:, 0], limits[:, 1], limits[:, 2],
        tuple(links),
        np.array([end[0] for end in ends], dtype=np.int64),
        np.array([end[1] for end in ends]),
        np.array([end[2] for end in ends]),
    )  # fmt: skip


def _read_joint(path: Path, element: ElementTree.Element) -> _Joint:
    name, kind = str(element.get("name")), str(element.get("type"))
    where = f"{path}, joint {name!r}"
    if kind not in (*MOVING, FIXED):
        raise RobotFileInvalid(f"{where}: type {kind!r} is not read; only {', '.join((*MOVING, FIXED))}")
    origin = element.find("origin")
    offset = _numbers(where, origin, "xyz", "0 0 0")
    rotation = _from_rpy(_numbers(where, origin, "rpy", "0 0 0"))
    axis = _numbers(where, element.find("axis"), "xyz", "1 0 0")
    length = float(np.linalg.norm(axis))
    if kind != FIXED and length == 0:
        raise RobotFileInvalid(f"{where}: its axis has no length")
    ends = [element.find(end) for end in ("parent", "child")]
    if any(end is None for end in ends):
        raise RobotFileInvalid(f"{where}: a parent or child is missing")
    parent, child = (str(end.get("link")) for end in ends if end is not None)
    limit = _limit(where, element.find("limit"), kind) if kind in MOVING else (0.0, 0.0, 0.0)
    return _Joint(name, kind, parent, child, rotation, offset, axis / length if length else axis, limit)


def _limit(where: str, element: ElementTree.Element | None, kind: str) -> tuple[float, float, float]:
    if element is None and kind != "continuous":
        raise RobotFileInvalid(f"{where}: a revolute joint needs a limit")
    values = {} if element is None else element.attrib
    try:
        speed = float(values.get("velocity", math.inf))
        free = kind == "continuous"
        lower, upper = (-math.inf, math.inf) if free else (float(values["lower"]), float(values["upper"]))
    except (KeyError, ValueError) as error:
        raise RobotFileInvalid(f"{where}: limit needs numbers lower and upper ({error})") from error
    if not lower < upper:
        raise RobotFileInvalid(f"{where}: lower limit {lower} is not below upper {upper}")
    return lower, upper, speed


def _numbers(where: str, element: ElementTree.Element | None, field: str, default: str) -> np.ndarray:
    text = default if element is None else element.get(field, default)
    try:
        values = np.array([float(part) for part in text.split()])
    except ValueError:
        values = np.zeros(0)
    if values.shape != (3,) or not np.isfinite(values).all():
        raise RobotFileInvalid(f"{where}: {field} {text!r} is not three numbers")
    return values


def _from_rpy(rpy_rad: np.ndarray) -> np.ndarray:
    """Rz(yaw) Ry(pitch) Rx(roll), URDF's convention."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(rpy_rad), np.cos(rpy_rad)
    return np.array([
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ])  # fmt: skip
