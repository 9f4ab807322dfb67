"""Tracking sessions: one tracker per session, kept in a replica, saved away from it every few frames.

In: frames of sessions. Out: states as plain values and small arrays. `TrackingHost` is a plain class; app.py makes it
the `Tracker` deployment. A session that is not here is restored from its newest saved state: that is all there is to
failing over.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np

from actors.tracker.errors import TrackerError
from actors.tracker.records import TrackerLike, TrackState
from robot import wire
from robot.errors import PolicyError
from serve.backend import Backend
from serve.errors import BadMessage, Conflict, ServiceError
from serve.schemas import Masks
from serve.settings import Limits, TrackingSettings
from serve.uploads import checked_size

log = logging.getLogger("ray.serve")

# Contours are for drawing: half a pixel of slack leaves a tenth of the points.
CONTOUR_EPSILON_PX = 0.75


class Saved(Protocol):
    """Where states go; sessions.SessionStore or the actor that holds it."""

    def get(self, session: str) -> bytes | None:
        """The newest state."""

    def tell(self, method: str, *args: Any) -> None:
        """`put` or `drop`, without waiting."""


@dataclass(slots=True)
class _Session:
    tracker: TrackerLike
    names: dict[str, str]  # the tracker's name of a target → its id
    frames: int = 0
    used_s: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


class TrackingHost:
    """Sessions of one replica. Call from any thread; a session's frames are taken one after the other."""

    def __init__(
        self,
        settings: TrackingSettings,
        limits: Limits,
        backend: Callable[[], Backend],
        saved: Saved,
        bank_of: Callable[[str], tuple[str, bytes]],
    ) -> None:
        """`bank_of` gives name and bank of a target id."""
        self._settings, self._limits = settings, limits
        self._make_backend = backend
        self._backend: Backend | None = None
        self._saved, self._bank_of = saved, bank_of
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Make the backend and one tracker, so that the first session does not wait for it."""
        tracker = self._ready().tracker()
        tracker.close()

    def open(self, session: str, targets: Sequence[str]) -> dict[str, Any]:
        """Have the session here: from memory, else from its saved state, else anew.

        `resumed` says whether it goes on; `frames` how many its tracker has seen. Raises UnknownTarget, Conflict.
        """
        with self._lock:
            self._expire()
            held = self._sessions.get(session)
        resumed = True
        if held is None:
            state = self._saved.get(session)
            held = self._restored(state) if state is not None else None
        if held is None or set(held.names.values()) != set(targets):
            held, resumed = self._fresh(targets), False
        with self._lock:
            self._sessions[session] = held
        resumed = resumed and held.frames > 0
        told = {"resumed": resumed, "frames": held.frames, "targets": list(held.names.values())}
        return {**told, "replica_pid": os.getpid()}

    def step(self, session: str, picture: bytes | np.ndarray, captured_ns: int, masks: Masks) -> dict[str, Any] | None:
        """What the session's tracker makes of one frame; None where the session is not here (call `open`)."""
        with self._lock:
            held = self._sessions.get(session)
        if held is None:
            return None
        with held.lock:
            held.used_s = begun_s = time.monotonic()
            image = self._decoded(picture) if isinstance(picture, bytes) else picture
            decoded_s = time.monotonic()
            states = self._step(held, image, captured_ns)
            tracked_s = time.monotonic()
            held.frames += 1
            objects = [_object(state, held.names[state.target], masks) for state in states]
            if held.frames % self._settings.checkpoint_every == 0:
                self._saved.tell("put", session, held.frames, self._packed(held))
            ended_s = time.monotonic()
        spans = {"decode": decoded_s - begun_s, "track": tracked_s - decoded_s, "encode": ended_s - tracked_s}
        return {
            "frames": held.frames,
            "objects": objects,
            "ms": {stage: round(span * 1e3, 3) for stage, span in spans.items()},
        }

    def leave(self, session: str, *, forget: bool) -> None:
        """The client is gone: save the state for its return, or forget all."""
        with self._lock:
            held = self._sessions.pop(session, None) if forget else self._sessions.get(session)
        if forget:
            self._saved.tell("drop", session)
        if held is not None and forget:
            _close_beside(held.tracker)
        elif held is not None and held.frames:
            with held.lock:
                self._saved.tell("put", session, held.frames, self._packed(held))

    def size(self) -> int:
        """Sessions here."""
        return len(self._sessions)

    def close(self) -> None:
        """Save every session and free the trackers."""
        for session in list(self._sessions):
            self.leave(session, forget=False)
        with self._lock:
            sessions, self._sessions = self._sessions, {}
        for held in sessions.values():
            held.tracker.close()

    def _ready(self) -> Backend:
        with self._lock:
            if self._backend is None:
                self._backend = self._make_backend()
            return self._backend

    def _fresh(self, targets: Sequence[str]) -> _Session:
        backend = self._ready()
        banks = {target: self._bank_of(target) for target in targets}  # all are known before a tracker is made
        tracker = backend.tracker()
        names: dict[str, str] = {}
        try:
            for target, (name, bank) in banks.items():
                names[tracker.add_target(backend.bank(bank), _free(name, target, names))] = target
        except TrackerError as error:
            tracker.close()
            raise Conflict(f"target {target} cannot be tracked: {error}") from error
        return _Session(tracker, names)

    def _restored(self, data: bytes) -> _Session | None:
        """The session of a saved state; None, and told of, where it cannot be taken over."""
        backend = self._ready()
        tracker = backend.tracker()
        try:
            state = wire.unpack(data, max_bytes=len(data))
            names = dict(state["names"])
            banks = {name: backend.bank(self._bank_of(target)[1]) for name, target in names.items()}
            tracker.restore(backend.whole(state["tracker"], banks))
            return _Session(tracker, names, int(state["frames"]))
        except (TrackerError, ServiceError, PolicyError, ValueError, KeyError) as error:
            log.error("a saved session could not be restored, it starts anew: %s", error)
            tracker.close()
            return None

    def _packed(self, held: _Session) -> bytes:
        state = self._ready().slim(held.tracker.save())
        return wire.pack({"type": "saved", "frames": held.frames, "names": held.names, "tracker": state})

    def _step(self, held: _Session, image: np.ndarray, captured_ns: int) -> tuple[TrackState, ...]:
        try:
            return held.tracker.step(image, captured_ns)
        except (ValueError, TrackerError) as error:
            raise BadMessage(f"the tracker refused this frame: {error}") from error

    def _decoded(self, data: bytes) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        try:
            checked_size(data, ("JPEG",), self._limits.max_frame_pixels, "frame")
        except ServiceError as error:
            raise BadMessage(str(error)) from error
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise BadMessage("the frame is a damaged JPEG")
        return image

    def _expire(self) -> None:
        oldest_s = time.monotonic() - self._settings.session_ttl_s
        for session, held in list(self._sessions.items()):
            if held.used_s < oldest_s:
                del self._sessions[session]
                _close_beside(held.tracker)


def _close_beside(tracker: TrackerLike) -> None:
    """A search that is under way takes seconds to end; nobody waits for it."""
    threading.Thread(target=tracker.close, name="track-close", daemon=True).start()


def _free(name: str, target: str, taken: dict[str, str]) -> str:
    return name if name not in taken else f"{name} {target[:6]}"


def _object(state: TrackState, target: str, masks: Masks) -> dict[str, Any]:
    """One target's state in plain values and small arrays."""
    told = {**state.as_json(), "id": target, "name": state.target}
    del told["target"], told["time_ns"]
    if state.mask is not None and masks == "rle":
        told["rle"] = run_lengths(state.mask)
    elif state.mask is not None and masks == "contours":
        told["contours"] = contours(state.mask)
    return told


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths: column by column, beginning with the zeros. `counts` is int32."""
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    if mask.size and len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [int(n) for n in mask.shape], "counts": counts.astype(np.int32)}


def contours(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines as (N, 2) int32 x, y in pixels, holes included (draw with the even-odd rule)."""
    found, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thinned = [cv2.approxPolyDP(line, CONTOUR_EPSILON_PX, True).reshape(-1, 2) for line in found]
    return [line.astype(np.int32) for line in thinned if len(line) > 2]
