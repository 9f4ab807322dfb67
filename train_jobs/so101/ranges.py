"""How far the look of the simulated table varies: ranges to train in, and others to be judged in.

In: nothing. Out: frozen records of ranges. Used by look.py (what is rendered) and spoil.py (what a camera does to it).
The held-out ranges reach beyond the training ones at both ends and use patterns and kinds of clutter of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class LookRanges:
    """What varies in the scene, drawn anew for every frame or episode."""

    brightness: Range  # diffuse of the lamp
    ambient: Range  # diffuse and ambient of the head light
    lamp_xy_m: Range  # where the lamp hangs, both axes
    lamp_height_m: Range
    shadows: float  # share of scenes with cast shadows
    table_value: Range  # brightness of the table's pattern
    table_contrast: Range
    patterns: tuple[str, ...]
    red_hue: Range  # of the cube, turns; 0 is red
    red_saturation: Range
    red_value: Range
    arm_hue: Range  # of printed parts; never the cube's
    clutter: tuple[int, int]  # fewest and most things lying about
    clutter_hue: Range  # never the cube's
    camera_shift_m: float  # largest, each axis
    camera_turn_rad: float  # largest, each axis
    camera_fov_deg: float  # largest change


@dataclass(frozen=True, slots=True)
class SpoilRanges:
    """What a camera does to the picture."""

    gamma: Range
    gain: Range  # per channel: white balance
    exposure: Range
    blur: Range  # sigma, in thousandths of the picture's width
    noise: Range  # sigma, of 255
    jpeg: tuple[int, int]  # quality
    desaturation: Range


TRAIN_LOOK = LookRanges(
    brightness=(0.25, 0.9), ambient=(0.15, 0.6), lamp_xy_m=(-0.6, 0.8), lamp_height_m=(0.7, 1.8), shadows=0.4,
    table_value=(0.15, 0.95), table_contrast=(0.0, 0.35), patterns=("checker", "noise", "plain"),
    red_hue=(-0.02, 0.02), red_saturation=(0.75, 1.0), red_value=(0.55, 1.0), arm_hue=(0.08, 0.92),
    clutter=(0, 5), clutter_hue=(0.09, 0.9), camera_shift_m=0.003, camera_turn_rad=0.035, camera_fov_deg=1.5,
)  # fmt: skip
# The segmentation network learns from more: what is printed on a table with sharp edges it took for things, and things
# in the dark for table.
SEG_LOOK = replace(
    TRAIN_LOOK, brightness=(0.21, 0.95), ambient=(0.11, 0.65), shadows=0.55, table_value=(0.12, 0.98),
    table_contrast=(0.0, 0.42), patterns=("checker", "noise", "plain", "shards", "prints", "strokes"), clutter=(0, 7),
)  # fmt: skip
TRAIN_SPOIL = SpoilRanges(
    gamma=(0.72, 1.4), gain=(0.84, 1.16), exposure=(0.72, 1.22), blur=(0.0, 6.5), noise=(0.0, 9.0), jpeg=(48, 100),
    desaturation=(0.0, 0.28),
)  # fmt: skip

HELD_OUT_LOOK = LookRanges(
    brightness=(0.2, 1.0), ambient=(0.1, 0.7), lamp_xy_m=(-0.8, 1.0), lamp_height_m=(0.5, 2.2), shadows=0.6,
    table_value=(0.1, 1.0), table_contrast=(0.0, 0.45), patterns=("stripes", "cloth", "blots"),
    red_hue=(-0.025, 0.025), red_saturation=(0.7, 1.0), red_value=(0.5, 1.0), arm_hue=(0.07, 0.93),
    clutter=(2, 8), clutter_hue=(0.08, 0.91), camera_shift_m=0.004, camera_turn_rad=0.05, camera_fov_deg=2.0,
)  # fmt: skip
HELD_OUT_SPOIL = SpoilRanges(
    gamma=(0.7, 1.45), gain=(0.82, 1.18), exposure=(0.7, 1.25), blur=(0.0, 7.0), noise=(0.0, 10.0), jpeg=(40, 100),
    desaturation=(0.0, 0.3),
)  # fmt: skip
