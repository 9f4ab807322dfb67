"""Forward kinematics and Jacobians of a joint tree, batched in torch: all joints of one depth in one operation.

In: angles (..., J). Out: positions of chosen links, and their derivatives. Called by models/retarget. Differentiable;
the Jacobian is also given in closed form, because a solver needs it at every step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from models.kinematics.urdf import RobotTree


class TreeKinematics(nn.Module):
    """Positions of F chosen links of a tree. Holds constants only, no parameters."""

    def __init__(self, tree: RobotTree, links: Sequence[str], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.tree = tree
        chosen = [tree.link(name) for name in links]
        depth = _depths(tree.parent)
        # Joints sorted by depth; parents as places in that order, shifted by one: place 0 is the base.
        self.order = np.argsort(depth, kind="stable")
        place = np.empty(len(depth), dtype=np.int64)
        place[self.order] = np.arange(len(depth))
        ends = np.cumsum(np.bincount(depth)).tolist()
        self.levels = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        up = np.where(tree.parent < 0, 0, place[tree.parent] + 1)[self.order]
        axis = tree.axis[self.order]
        skew = np.zeros((len(axis), 3, 3))
        for (i, j), (k, sign) in {(0, 1): (2, -1), (0, 2): (1, 1), (1, 2): (0, -1)}.items():
            skew[:, i, j], skew[:, j, i] = sign * axis[:, k], -sign * axis[:, k]
        rest = tree.rotation[self.order]
        holder = np.where(tree.link_joint[chosen] < 0, 0, place[tree.link_joint[chosen]] + 1)
        constants: dict[str, np.ndarray] = {
            # Rodrigues: rest · (I + sin K + (1 − cos) K²) as three constant matrices.
            "still": rest, "by_sine": rest @ skew, "by_versine": rest @ skew @ skew,
            "offset": tree.offset_m[self.order], "axis": axis, "link_offset": tree.link_offset_m[chosen],
        }  # fmt: skip
        for name, value in constants.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=dtype))
        own = _moved_link(tree, chosen)
        for name, places in (
            ("own", own),
            ("up", up),
            ("holder", holder),
            ("sorted_to_file", place),
            ("file_to_sorted", self.order),
        ):
            self.register_buffer(name, torch.as_tensor(places))

    def _frames(self, angles_rad: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations (..., 1 + J, 3, 3) and positions (..., 1 + J, 3) of base and joints, by depth."""
        angles = angles_rad[..., self.file_to_sorted]
        sine, versine = angles.sin()[..., None, None], (1 - angles.cos())[..., None, None]
        local = self.still + sine * self.by_sine + versine * self.by_versine
        shape = angles.shape[:-1]
        turns = [torch.eye(3, dtype=local.dtype, device=local.device).expand(*shape, 1, 3, 3)]
        places = [torch.zeros(*shape, 1, 3, dtype=local.dtype, device=local.device)]
        start = 0
        for level in self.levels:
            # Within a level, parents are all in the level before: they are looked up relative to its start.
            rows = self.up[level] - start
            turn, place = turns[-1][..., rows, :, :], places[-1][..., rows, :]
            places.append(place + (turn @ self.offset[level][..., None])[..., 0])
            turns.append(turn @ local[..., level, :, :])
            start = level.start + 1
        return torch.cat(turns, -3), torch.cat(places, -2)

    def forward(self, angles_rad: Tensor) -> Tensor:
        """Positions (..., F, 3) in metres of the chosen links in the base, for angles (..., J)."""
        turns, places = self._frames(angles_rad)
        return _link_positions(turns, places, self.holder, self.link_offset)

    def with_columns(self, angles_rad: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (..., F, 3), and for each joint (..., J, 3) the derivative of the one chosen link that it moves.

        For trees whose fingers part at the base: there these columns are the whole Jacobian (`own` names the links).
        """
        turns, places = self._frames(angles_rad)
        points = _link_positions(turns, places, self.holder, self.link_offset)
        axes = (turns[..., 1:, :, :] @ self.axis[..., None])[..., 0]  # (..., J, 3): turning leaves a joint's axis
        columns = torch.linalg.cross(axes, points[..., self.own[self.file_to_sorted], :] - places[..., 1:, :])
        return points, columns[..., self.sorted_to_file, :]


def _link_positions(turns: Tensor, places: Tensor, holder: Tensor, offset: Tensor) -> Tensor:
    return places[..., holder, :] + (turns[..., holder, :, :] @ offset[..., None])[..., 0]


def _depths(parent: np.ndarray) -> np.ndarray:
    depth = np.zeros(len(parent), dtype=np.int64)
    for k in range(len(parent)):
        at = parent[k]
        while at >= 0:
            depth[k], at = depth[k] + 1, parent[at]
    return depth


def _moved_link(tree: RobotTree, links: Sequence[int]) -> np.ndarray:
    """(J,) which of the chosen links each joint moves: the last one, if several; 0 if none."""
    moved = np.zeros(len(tree.joints), dtype=np.int64)
    for row, link in enumerate(links):
        at = tree.link_joint[link]
        while at >= 0:
            moved[at], at = row, tree.parent[at]
    return moved
