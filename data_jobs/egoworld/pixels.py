"""From a decoded frame, in whatever pixel format it comes, to upright RGB.

In: av.VideoFrame. Out: (H, W, 3) uint8, turned as a player would show it. Called by clip.py and
hand_speed.py; probe.py and shots.py use parts. Colour matrix and range follow the frame's tags (ITU-T H.273);
an untagged frame is BT.601 limited, as in FFmpeg and OpenCV. High dynamic range is not tone-mapped. The same
frame gives the same bytes in every window and on every thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from data_jobs.runs.errors import InputError

# AVColorSpace (H.273 table 4) to the coefficients that swscale knows (libswscale/swscale.h, SWS_CS_*).
_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT601 = 5
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
# SWS_BILINEAR | SWS_BITEXACT (libswscale/swscale.h): chroma interpolation fixed here, not by a library
# default.
_SCALER_FLAGS = 0x2 | 0x80000


class RgbConverter:
    """Converts frames of one video; keeps one scaler per colour description."""

    def __init__(self, rotation_deg: int) -> None:
        self._quarter_turns = (-rotation_deg // 90) % 4  # np.rot90 turns counter-clockwise
        self._scalers: dict[tuple[int, bool], VideoReformatter] = {}

    def into(self, frame: Any, out: np.ndarray) -> bool:
        """Write the frame upright into `out` (H, W, 3) uint8; False, and nothing written, when the sizes
        differ."""
        image = np.rot90(self.stored(frame), self._quarter_turns)
        if image.shape != out.shape:
            return False
        out[...] = image
        return True

    def stored(self, frame: Any, width: int | None = None, height: int | None = None) -> np.ndarray:
        """The frame as stored, not turned: (H, W, 3) uint8 RGB, valid while the caller holds it; resized on
        request."""
        matrix = _MATRIX.get(int(frame.colorspace), _BT601)
        full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
        # One scaler per description: swscale keeps the last matrix that was set, even when the next frame
        # names none.
        scaler = self._scalers.setdefault((matrix, full), VideoReformatter())
        rgb = scaler.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=matrix,
            dst_colorspace=_BT601,  # of no effect on RGB; naming it keeps PyAV from assuming "same as source"
            interpolation=_SCALER_FLAGS,
            src_color_range=2 if full else 1,
            dst_color_range=1,
        )
        plane = rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(rgb.height, plane.line_size)
        return rows[:, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)


def clockwise_turn_deg(frame: Any, name: str) -> int:
    """The clockwise turn from stored to shown: 0, 90, 180 or 270.

    FFmpeg's angle is counter-clockwise (libavutil/display.h, av_display_rotation_get).
    Raises InputError for a slanted or mirrored picture, which would swap left and right hands.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is not None:
        matrix = np.frombuffer(data, np.int32)
        if int(matrix[0]) * int(matrix[4]) - int(matrix[1]) * int(matrix[3]) < 0:
            raise InputError(f"{name} is marked to be shown mirrored; re-encode it the right way round")
    if frame.rotation % 90:
        raise InputError(
            f"{name} is marked to be shown turned by {frame.rotation} degrees; only quarter turns can be read"
        )
    return -frame.rotation % 360
