"""One clip as the report shows it: a few pictures where most was found, and when hands and masks were there.

In: a clip and its tables. Out: ClipCard, plain values for the template. Called by report.py.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.clip_tables import ClipTables, HandRow, MaskRow, read_clip_tables
from data_jobs.egoworld.overlay import draw, shrunk
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.report_data import ClipSummary
from data_jobs.runs.errors import InputError, TransientError

PICTURES_PER_CLIP = 4
PICTURE_SIDE_PX = 560  # sharp on a phone, four of them about 150 KB
PICTURE_BOLDNESS = 1.25  # a desktop shows them at half that size
JPEG_QUALITY = 82
# Drawing units of a timeline's width; heights are the template's.
TIMELINE_WIDTH = 1000.0
# Narrower would not be seen: one prompted frame of a clip of minutes.
NARROWEST_SPAN = 2.0
# A track may miss this many frames without being cut in two: less than a screen pixel.
BRIDGED_FRAMES = 1


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawn frame."""

    data_uri: str
    frame_index: int
    timestamp_s: float
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of a timeline: (x, width) in units of TIMELINE_WIDTH."""

    name: str
    kind: str  # left, right or masks: the template's colour
    spans: tuple[tuple[float, float], ...]
    share: float  # of the frames (hands) or of the prompted frames (masks) that hold something


@dataclass(frozen=True, slots=True)
class ClipCard:
    """Everything the page shows of a clip."""

    clip_id: str
    name: str
    start_s: float
    end_s: float
    frames: int
    hand_rows: int
    mask_rows: int
    pictures: tuple[Picture, ...]
    lanes: tuple[Lane, ...]
    trouble: str  # why there are no pictures; empty when there are
    overlay: str  # link relative to the page; empty when no video was written


def card_of(summary: ClipSummary, overlay: str, trouble: str = "") -> ClipCard:
    """Read, draw and lay out one clip; a video that cannot be read any more leaves a card without pictures."""
    tables = read_clip_tables(summary.folder)
    clip = summary.clip
    pictures: tuple[Picture, ...] = ()
    try:
        pictures = tuple(_pictures(clip, tables))
    except (InputError, TransientError, OSError) as error:
        trouble = trouble or str(error)
    return ClipCard(
        clip_id=clip.clip_id,
        name=clip.name,
        start_s=clip.start_s,
        end_s=clip.end_s,
        frames=clip.frame_count,
        hand_rows=summary.hand_rows,
        mask_rows=summary.mask_rows,
        pictures=pictures,
        lanes=lanes_of(clip, tables),
        trouble=trouble,
        overlay=overlay,
    )


def chosen_frames(clip: Clip, tables: ClipTables) -> list[int]:
    """Frame indices to show, ascending: in each of four equal stretches the frame with most hands and own masks.

    Equals are settled for the one nearest to the middle of its stretch.
    """
    found = np.zeros(clip.frame_count)
    for frame_index, count in tables.found_by_frame().items():
        found[frame_index - clip.frame_start] = count
    edges = np.linspace(0, clip.frame_count, min(PICTURES_PER_CLIP, clip.frame_count) + 1).round().astype(int)
    best = []
    for start, end in itertools.pairwise(edges.tolist()):
        places = np.arange(start, end)
        off_middle = np.abs(places - (start + end - 1) / 2)
        order = np.lexsort((off_middle, -found[start:end]))
        best.append(clip.frame_start + int(places[order[0]]))
    return best


def _pictures(clip: Clip, tables: ClipTables) -> Iterable[Picture]:
    for window in ClipReader(clip, 1).frames_at(chosen_frames(clip, tables)):
        pts = int(window.pts[0])
        image = shrunk(window.images[0], PICTURE_SIDE_PX)
        size = (image.shape[1], image.shape[0])
        hands = [resized_hand(hand, image.shape[1] / clip.width) for hand in tables.hands_at(pts)]
        masks = [resized_mask(mask, size) for mask in tables.masks_at(pts, clip.time_base)]
        image = draw(image, hands, masks, PICTURE_BOLDNESS)
        height, width = image.shape[:2]
        yield Picture(_jpeg_uri(image), int(window.frame_index[0]), float(window.timestamp_s[0]), width, height)


def resized_hand(hand: HandRow, scale: float) -> HandRow:
    """The hand in a picture scaled by `scale`."""
    return replace(hand, landmarks_px=hand.landmarks_px * np.float32(scale))


def resized_mask(row: MaskRow, size: tuple[int, int]) -> MaskRow:
    """The mask in a picture of `size` (width, height)."""
    small = cv2.resize(row.mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    return replace(row, mask=small.astype(bool))


def _jpeg_uri(image: np.ndarray) -> str:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    coded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not coded:
        raise OSError(f"a picture of {image.shape} cannot be coded as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def lanes_of(clip: Clip, tables: ClipTables) -> tuple[Lane, ...]:
    """Left hand, right hand, masks: when each was there, as spans over the clip's own duration."""
    prompted = tables.prompted_frames()
    with_mask = {frame for frame, count in prompted.items() if count}
    lanes = [
        _lane(clip, f"{side} hand", side, tables.frames_with_hand(side), clip.frame_count) for side in ("left", "right")
    ]
    return *lanes, _lane(clip, "masks", "masks", with_mask, len(prompted))


def _lane(clip: Clip, name: str, kind: str, frames: set[int], out_of: int) -> Lane:
    per_frame = TIMELINE_WIDTH / clip.frame_count
    spans = tuple(
        (round((start - clip.frame_start) * per_frame, 2), round(max((end - start) * per_frame, NARROWEST_SPAN), 2))
        for start, end in runs_of(frames)
    )
    return Lane(name, kind, spans, len(frames) / out_of if out_of else 0.0)


def runs_of(frames: set[int]) -> list[tuple[int, int]]:
    """[start, end) of consecutive frame indices, gaps of up to BRIDGED_FRAMES closed."""
    ordered = np.array(sorted(frames), np.int64)
    if not len(ordered):
        return []
    breaks = np.flatnonzero(np.diff(ordered) > 1 + BRIDGED_FRAMES)
    starts, ends = ordered[np.r_[0, breaks + 1]], ordered[np.r_[breaks, len(ordered) - 1]] + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
