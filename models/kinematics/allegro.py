"""The Allegro hand, left or right: its joint tree, with fingers in the order index, middle, ring, thumb.

In: a side. Out: an AllegroHand with limits and finger tip kinematics. Called by models/retarget. The files beside this
one hold the kinematics. Some descriptions of the left hand number its fingers from the ring finger; ours, like the
manufacturer's, counts both hands from the index finger.

The base frame (`base_link`) has z towards the finger tips and x out of the palm; `wrist` lies 95 mm behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.errors import UnknownRobot
from models.kinematics.tree import TreeKinematics
from models.kinematics.urdf import RobotTree, read_urdf

SIDES = ("left", "right")
FINGERS = ("index", "middle", "ring", "thumb")
JOINTS = 16
# Links at the finger tips, in the order of FINGERS.
TIPS = ("link_3.0_tip", "link_7.0_tip", "link_11.0_tip", "link_15.0_tip")


@dataclass(frozen=True, slots=True)
class AllegroHand:
    """16 joints in the order index, middle, ring, thumb; four per finger, from the palm outwards."""

    side: str
    tree: RobotTree
    lower_rad: np.ndarray  # (16,)
    upper_rad: np.ndarray  # (16,)
    speed_rad_s: np.ndarray  # (16,)

    def kinematics(self, links: tuple[str, ...], dtype: torch.dtype = torch.float64) -> TreeKinematics:
        """Forward kinematics of these links."""
        return TreeKinematics(self.tree, links, dtype)


def allegro(side: str) -> AllegroHand:
    """The left or the right hand. Raises UnknownRobot for another side."""
    if side not in SIDES:
        raise UnknownRobot(f"an Allegro hand is left or right, not {side!r}")
    tree = read_urdf(urdf_path(side))
    return AllegroHand(side, tree, tree.lower_rad, tree.upper_rad, tree.speed_rad_s)


def urdf_path(side: str) -> Path:
    """Where the description of a hand lies."""
    return Path(__file__).parent / f"allegro_{side}.urdf"
