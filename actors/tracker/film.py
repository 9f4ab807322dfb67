"""What a run leaves behind: a film with the mask over every frame at its real time, and the states as JSON lines.

In: frames and their states. Out: an MP4 and a .jsonl beside it. Called by the command line. No window is opened, so it
works over SSH. Whatever ends the run, `close` leaves files that open.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from actors.tracker.errors import SourceUnusable
from actors.tracker.records import Phase, TrackState

TICKS_PER_S = 90_000  # MPEG's clock
ENCODER_OPTIONS = {"preset": "veryfast", "crf": "23"}
COLOURS = {
    Phase.ACQUIRE: (150, 150, 150),
    Phase.VERIFY: (255, 200, 40),
    Phase.TRACK: (60, 220, 90),
    Phase.SUSPECT: (255, 130, 30),
    Phase.LOST: (230, 50, 50),
}


def overlay(image: np.ndarray, states: Sequence[TrackState]) -> np.ndarray:
    """A new (H, W, 3) uint8 picture: mask, box and one line of text per target, in its phase's colour."""
    picture = image.copy()
    scale = max(0.4, image.shape[0] / 900)
    for line, state in enumerate(states):
        colour = COLOURS[state.phase]
        if state.mask is not None and state.box_px is not None:
            picture[state.mask] = (0.55 * picture[state.mask] + 0.45 * np.array(colour)).astype(np.uint8)
            x0, y0, x1, y1 = (int(edge) for edge in state.box_px)
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), colour, max(1, round(2 * scale)))
        score = "" if state.score is None else f" {state.score:.2f}/{state.threshold:.2f}"
        text = f"{state.target}: {state.phase.value} ({state.reason.value}){score}"
        at = (8, round((line + 1) * 34 * scale))
        for thickness, ink in ((4, (0, 0, 0)), (1, colour)):
            width = max(1, round(thickness * scale * 1.6))
            cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, width, cv2.LINE_AA)
    return picture


class Film:
    """Opened at the first frame, whose size it keeps; later frames of another size are fitted into it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        try:
            self._lines = path.with_suffix(".jsonl").open("w", encoding="utf-8")
        except OSError as error:
            raise SourceUnusable(f"{path} cannot be written: {error.strerror}") from error
        self._container: av.container.OutputContainer | None = None
        self._size, self._last_tick = (0, 0), -1

    def add(self, image: np.ndarray, states: Sequence[TrackState], time_ns: int) -> None:
        """One frame with its states."""
        for state in states:
            self._lines.write(json.dumps(state.as_json()) + "\n")
        self._lines.flush()
        picture = overlay(image, states)
        if self._container is None:
            self._open(picture.shape[1], picture.shape[0])
        assert self._container is not None
        frame = av.VideoFrame.from_ndarray(self._fitted(picture), format="rgb24")
        self._last_tick = max(self._last_tick + 1, round(time_ns * TICKS_PER_S / 1e9))
        frame.pts, frame.time_base = self._last_tick, Fraction(1, TICKS_PER_S)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is in the encoder and the index, without which an MP4 does not open. Safe to call twice."""
        self._lines.close()
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None

    def __enter__(self) -> Film:
        """As a context, `close` is never forgotten."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, whatever happened."""
        self.close()

    def _open(self, width: int, height: int) -> None:
        # Chroma is halved: an odd edge cannot be encoded.
        self._size = (max(2, width - width % 2), max(2, height - height % 2))
        self._container = av.open(str(self._path), "w")
        stream = self._container.add_stream("libx264", rate=30, options=ENCODER_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = *self._size, "yuv420p"
        # The rate above only sizes the encoder; every frame has its own time.
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
        self._stream = stream

    def _fitted(self, picture: np.ndarray) -> np.ndarray:
        width, height = self._size
        if picture.shape[0] in (height, height + 1) and picture.shape[1] in (width, width + 1):
            return np.ascontiguousarray(picture[:height, :width])
        scale = min(width / picture.shape[1], height / picture.shape[0])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:height, :width]
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: small.shape[0], : small.shape[1]] = small
        return canvas
