"""A folder of rendered frames on disk: uint8 memory maps that a killed rendering goes on with.

In: a folder, a size, a count, a seed. Out: `rgb.u8`, `ids.u8` and `frames.json`, which says what they hold and how many
are whole. Written by `python -m train_jobs.so101_seg render`, read by trainer.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from train_jobs.errors import CannotStart
from train_jobs.so101.ranges import SEG_LOOK
from train_jobs.so101_seg.studio import Studio

NOTE_EVERY = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What a folder of frames is to hold."""

    count: int
    seed: int
    width_px: int
    height_px: int
    look: str = repr(SEG_LOOK)


@dataclass(frozen=True, slots=True)
class Frames:
    """Memory maps, only as long as the frames that are whole."""

    rgb: np.ndarray  # (N, H, W, 3) uint8
    ids: np.ndarray  # (N, H, W) uint8
    plan: Plan

    def __len__(self) -> int:
        return len(self.rgb)


def render(folder: Path, plan: Plan, tell: Callable[[int], None] = lambda done: None) -> None:
    """Render what is missing. Raises CannotStart when the folder holds frames of another plan."""
    done = _done(folder, plan)
    folder.mkdir(parents=True, exist_ok=True)
    rgb, ids = _maps(folder, plan, "r+" if done else "w+")
    studio = Studio(SEG_LOOK, plan.seed, plan.width_px, plan.height_px)
    try:
        for number in range(done, plan.count):
            rgb[number], ids[number] = studio.frame(number)
            if (number + 1) % NOTE_EVERY == 0 or number + 1 == plan.count:
                rgb.flush()
                ids.flush()
                _note(folder, plan, number + 1)
                tell(number + 1)
    finally:
        studio.close()


def read(folder: Path) -> Frames:
    """The frames that are whole. Raises CannotStart without any."""
    try:
        note = json.loads((folder / "frames.json").read_text())
        plan = Plan(**note["plan"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotStart(f"{folder} holds no rendered frames; make some with `render --output {folder}`") from error
    rgb, ids = _maps(folder, plan, "r")
    return Frames(rgb[: note["done"]], ids[: note["done"]], plan)


def _done(folder: Path, plan: Plan) -> int:
    path = folder / "frames.json"
    if not path.is_file():
        return 0
    note = json.loads(path.read_text())
    if note["plan"] != asdict(plan):
        raise CannotStart(f"{folder} holds frames of another plan; give the same options, or another --output")
    return int(note["done"])


def _note(folder: Path, plan: Plan, done: int) -> None:
    beside = folder / ".frames.json"
    beside.write_text(json.dumps({"plan": asdict(plan), "done": done}, indent=1))
    beside.replace(folder / "frames.json")


def _maps(folder: Path, plan: Plan, mode: Literal["r", "r+", "w+"]) -> tuple[np.memmap, np.memmap]:
    shape = (plan.count, plan.height_px, plan.width_px)
    rgb = np.memmap(folder / "rgb.u8", np.uint8, mode, shape=(*shape, 3))
    return rgb, np.memmap(folder / "ids.u8", np.uint8, mode, shape=shape)
