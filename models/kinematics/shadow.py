"""The Shadow Dexterous Hand E3M5, left or right, from the palm outwards: its description and the links that matter.

In: a side. Out: a path and link names. Called by models/retarget/library.py. The files beside this one hold the
kinematics: 22 joints, four per finger and one more each for little finger and thumb.
"""

from __future__ import annotations

from pathlib import Path

WRIST = "wrist"
_FINGERS = {"thumb": "th", "index": "ff", "middle": "mf", "ring": "rf", "little": "lf"}


def urdf_path(side: str) -> Path:
    """Where the description of a hand lies."""
    return Path(__file__).parent / f"shadow_{side}.urdf"


def tips(side: str) -> dict[str, str]:
    """Finger → link at its tip."""
    return {finger: f"{side[0]}h_{short}tip" for finger, short in _FINGERS.items()}
