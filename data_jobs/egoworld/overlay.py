"""Draws what a run found onto its pictures, and a clip's worth of such pictures into a video.

In: a frame with its hands and masks, or a Clip with its ClipTables. Out: a new image, or an H.264 MP4 that a browser
plays. Called by report.py and by hand. What was not computed for the very frame is not drawn as if it were: a mask
of an earlier frame is a thin outline that fades and carries its age.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.clip_tables import ClipTables, HandRow, MaskRow
from data_jobs.egoworld.overlay_text import Labels
from data_jobs.egoworld.records import Clip, Window

# Okabe and Ito's colours for every kind of colour vision (jfly.uni-koeln.de/color), shared out: five for objects, one
# per object_id, and the two that differ most in lightness as well as hue for the sides.
OBJECT_RGB = ((0, 158, 115), (240, 228, 66), (204, 121, 167), (0, 114, 178), (213, 94, 0))
SIDE_RGB = {"left": (86, 180, 233), "right": (230, 159, 0)}
# Paul Tol's "bright" scheme (Technical note SRON/EPS/TN/09-002): thumb to little finger.
FINGER_RGB = ((238, 102, 119), (204, 187, 68), (34, 136, 51), (102, 204, 238), (170, 51, 119))
# MediaPipe's landmarks: wrist 0, then four per finger from the thumb; the palm closes over the knuckles.
FINGER_BONES = tuple(tuple(range(4 * finger + 1, 4 * finger + 5)) for finger in range(5))
PALM = (0, 1, 5, 9, 13, 17, 0)
EDGE_RGB = (20, 20, 20)
FILL = 0.42  # of the object's colour in a mask computed for this frame
# An outline of an earlier frame loses strength over this time and never quite goes: it is the last that is known.
FADE_S = 2.0
FAINTEST = 0.35
# Lines and letters are right for this many pixels of the picture's shorter side, and scale with it.
REFERENCE_PX = 480
THINNEST = 0.35
WINDOW_FRAMES = 16
# What a page shows; pictures larger than this are scaled down after drawing.
LONGEST_SIDE_PX = 1280
ENCODER_OPTIONS = {"crf": "23", "preset": "veryfast", "bf": "0", "threads": "2"}
BT709 = 1  # ITU-T H.273, for matrix, primaries and transfer: what browsers assume


def draw(image: np.ndarray, hands: Sequence[HandRow], masks: Sequence[MaskRow], boldness: float = 1.0) -> np.ndarray:
    """A copy of `image` (H, W, 3) uint8 RGB with masks, hand skeletons and labels on it.

    Lines and letters follow the picture's size; `boldness` makes them larger for a picture that is shown small.
    Raises ValueError when a mask has another size than the image.
    """
    picture = image.copy()
    unit = boldness * max(min(image.shape[:2]) / REFERENCE_PX, THINNEST)
    labels = Labels(image.shape[1], image.shape[0], unit)
    for row in sorted(masks, key=lambda row: -int(row.mask.sum())):
        _draw_mask(picture, row, unit, labels)
    for hand in hands:
        _draw_hand(picture, hand, unit, labels)
    labels.draw(picture)
    return picture


def _draw_mask(picture: np.ndarray, row: MaskRow, unit: float, labels: Labels) -> None:
    if row.mask.shape != picture.shape[:2]:
        raise ValueError(f"object {row.object_id} has a mask of {row.mask.shape}, the picture is {picture.shape[:2]}")
    if not row.mask.any():
        return
    rgb = OBJECT_RGB[row.object_id % len(OBJECT_RGB)]
    outlines, _ = cv2.findContours(row.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    left, top, _, _ = cv2.boundingRect(np.concatenate(outlines))
    name = f"#{row.object_id} {row.label}"  # the colours repeat, the number does not
    text = f"{name} {row.score:.2f}"
    if row.age_s <= 0:
        tinted = picture[row.mask] * (1 - FILL) + np.array(rgb) * FILL
        picture[row.mask] = tinted.astype(np.uint8)
        cv2.drawContours(picture, outlines, -1, rgb, _thickness(2 * unit), cv2.LINE_AA)
        labels.add(text, (left, top), rgb)
        return
    strength = max(1 - (1 - FAINTEST) * row.age_s / FADE_S, FAINTEST)
    thin = picture.copy()
    cv2.drawContours(thin, outlines, -1, rgb, _thickness(unit), cv2.LINE_AA)
    cv2.addWeighted(thin, strength, picture, 1 - strength, 0, dst=picture)
    labels.add(f"{name} {row.age_s:.1f} s ago", (left, top), rgb, faint=True)


def _draw_hand(picture: np.ndarray, hand: HandRow, unit: float, labels: Labels) -> None:
    points = [(round(float(x)), round(float(y))) for x, y in hand.landmarks_px]
    side_rgb, bone, halo = SIDE_RGB[hand.side], _thickness(2.2 * unit), _thickness(4.5 * unit)
    chains = [(PALM, side_rgb), *zip(FINGER_BONES, FINGER_RGB, strict=True)]
    lines = [(np.array([points[joint] for joint in chain], np.int32), rgb) for chain, rgb in chains]
    for line, _ in lines:  # a dark edge first: the skeleton stays visible on skin and steel
        cv2.polylines(picture, [line], False, EDGE_RGB, halo, cv2.LINE_AA)
    for line, rgb in lines:
        cv2.polylines(picture, [line], False, rgb, bone, cv2.LINE_AA)
    for joint, point in enumerate(points):
        finger_rgb = FINGER_RGB[(joint - 1) // 4] if joint else side_rgb
        _draw_joint(picture, point, hand.side, finger_rgb, unit)
    lowest = max(points, key=lambda point: point[1])
    labels.add(f"{hand.side} {hand.score:.2f}", (points[0][0], lowest[1]), side_rgb, below=True)


def _draw_joint(picture: np.ndarray, point: tuple[int, int], side: str, rgb: tuple[int, ...], unit: float) -> None:
    radius = _thickness(2.6 * unit)
    if side == "left":
        cv2.circle(picture, point, radius, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
        cv2.circle(picture, point, radius, rgb, _thickness(unit), cv2.LINE_AA)
        return
    corner, opposite = (point[0] - radius, point[1] - radius), (point[0] + radius, point[1] + radius)
    cv2.rectangle(picture, corner, opposite, (255, 255, 255), cv2.FILLED)
    cv2.rectangle(picture, corner, opposite, rgb, _thickness(unit))


def _thickness(wanted_px: float) -> int:
    return max(1, round(wanted_px))


def write_overlay_video(clip: Clip, tables: ClipTables, path: Path, comment: str = "") -> None:
    """Draw every frame of the clip into an MP4 at `path`, which appears only when it is whole.

    Times are those of the clip, counted from its first frame in the clip's own time base, so a variable frame rate
    stays variable. An odd width or height gains one repeated row or column; a picture longer than 1280 px is scaled
    down. `comment` is kept in the file. Raises InputError or TransientError when the clip cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with av.open(str(unfinished), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            container.metadata["comment"] = comment
            _encode(container, clip, tables)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _encode(container: av.container.OutputContainer, clip: Clip, tables: ClipTables) -> None:
    stream = container.add_stream("libx264", options=ENCODER_OPTIONS)
    context = stream.codec_context
    context.time_base = clip.time_base
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.pix_fmt = "yuv420p"
    for image, pts, duration in _drawn(clip, tables):
        if not context.is_open:
            context.height, context.width = image.shape[:2]
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        frame.pts, frame.time_base, frame.duration = pts, clip.time_base, duration
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _drawn(clip: Clip, tables: ClipTables) -> Iterator[tuple[np.ndarray, int, int]]:
    """Drawn picture, pts from the clip's start, and duration in pts; a last frame lasts as long as the one before."""
    waiting: tuple[np.ndarray, int] | None = None
    duration = 0
    for window in ClipReader(clip, WINDOW_FRAMES).windows():
        for image, pts in _window_drawn(window, clip, tables):
            if waiting is not None:
                duration = pts - waiting[1]
                yield *waiting, duration
            waiting = image, pts
    if waiting is not None:
        yield *waiting, duration


def _window_drawn(window: Window, clip: Clip, tables: ClipTables) -> Iterator[tuple[np.ndarray, int]]:
    for image, at in zip(window.images, window.pts.tolist(), strict=True):
        picture = draw(image, tables.hands_at(at), tables.masks_at(at, clip.time_base))
        yield even_sized(shrunk(picture, LONGEST_SIDE_PX)), at - clip.start_pts


def shrunk(image: np.ndarray, longest_side_px: int) -> np.ndarray:
    """The image, scaled down if its longer side exceeds `longest_side_px`."""
    scale = longest_side_px / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def even_sized(image: np.ndarray) -> np.ndarray:
    """The image with its last row or column repeated where a side is odd, as 4:2:0 chroma needs."""
    height, width = image.shape[:2]
    return cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
