"""WS /v1/track: one session from hello to goodbye, newest frame first, each with a deadline.

In: a peer and the tracker deployment's handle. Out: the messages of schemas.py. One task reads, one works; between them
is a mailbox with room for one frame. Called by gateway.py. Nothing here knows Ray: the handle is a protocol.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import WebSocketDisconnect

from serve.errors import BadMessage, NotReady, ServiceError, TooSlow
from serve.metrics import Metrics
from serve.schemas import PROTOCOL, Bye, Frame, frame_of, hello_of
from serve.sessions import SESSION_ID, new_session_id
from serve.settings import Limits, TrackingSettings
from serve.sockets import Peer

log = logging.getLogger("ray.serve")

# A frame on its way is waited for this long after its deadline before the session is given up.
STUCK_S = 120.0


class Tracking(Protocol):
    """The tracker, wherever it runs. A call goes to the session's replica."""

    async def open(self, session: str, targets: Sequence[str]) -> dict[str, Any]:
        """See TrackingHost.open."""

    async def step(self, session: str, frame: Frame, masks: str) -> dict[str, Any] | None:
        """See TrackingHost.step. Raises ReplicaLost when the replica died over it."""

    async def leave(self, session: str, *, forget: bool) -> None:
        """See TrackingHost.leave."""


class ReplicaLost(Exception):
    """The replica that held the session is gone; the session is restored elsewhere by `open`."""


@dataclass(slots=True)
class _Waiting:
    frame: Frame
    arrived_s: float


class TrackSession:
    """One websocket of one session."""

    def __init__(
        self, peer: Peer, tracking: Tracking, settings: TrackingSettings, limits: Limits, metrics: Metrics
    ) -> None:
        self._peer, self._tracking = peer, tracking
        self._settings, self._limits, self._metrics = settings, limits, metrics
        self._mailbox: _Waiting | None = None
        self._mail = asyncio.Event()
        self._dropped = self._missed = 0
        self._unread: list[int] = []

    async def run(self) -> None:
        """Until somebody leaves."""
        hello = hello_of(await self._peer.read(self._limits.hello_timeout_s), self._limits)
        self._hello = hello
        self._deadline_s = (hello.deadline_ms or self._settings.deadline_ms) / 1e3
        known = hello.session if hello.session and SESSION_ID.fullmatch(hello.session) else None
        self.session = known or new_session_id()
        opened = await self._tracking.open(self.session, hello.targets)
        await self._welcome(opened)
        forget = False
        reader, worker = asyncio.create_task(self._read()), asyncio.create_task(self._work())
        try:
            done, _ = await asyncio.wait({reader, worker}, return_when=asyncio.FIRST_COMPLETED)
            forget = reader in done and reader.exception() is None  # it came back from a bye
            for task in done:
                task.result()
        finally:
            for task in (reader, worker):
                task.cancel()
            await asyncio.gather(reader, worker, return_exceptions=True)
            await self._leave(forget)

    async def _welcome(self, opened: dict[str, Any]) -> None:
        limits = {"max_message_bytes": self._limits.max_message_bytes, "max_pixels": self._limits.max_frame_pixels}
        await self._peer.write(
            {
                "type": "welcome",
                "protocol": PROTOCOL,
                "session": self.session,
                "targets": opened["targets"],
                "deadline_ms": self._deadline_s * 1e3,
                "replica_pid": opened["replica_pid"],
                "limits": limits,
            }
        )
        if opened["resumed"]:
            await self._say_resumed(opened)

    async def _say_resumed(self, opened: dict[str, Any]) -> None:
        self._metrics.resumed()
        log.info("session resumed", extra={"session": self.session[:6], "frames": opened["frames"]})
        told = {name: opened[name] for name in ("frames", "targets", "replica_pid")}
        await self._peer.write({"type": "resumed", "session": self.session, **told})

    async def _read(self) -> None:
        """Frames into the mailbox, until a bye."""
        last = -1
        while True:
            message = await self._peer.read(self._limits.idle_timeout_s)
            if message["type"] == "bye":
                Bye.model_validate(message)
                return
            frame = frame_of(message, self._limits)
            if frame.id <= last:
                raise BadMessage(f"frame ids rise; {frame.id} came after {last}")
            last = frame.id
            self._acknowledge(frame.seen)
            if self._mailbox is not None:
                self._dropped += 1
                self._metrics.dropped()
            self._mailbox = _Waiting(frame, time.monotonic())
            self._mail.set()

    def _acknowledge(self, seen: int) -> None:
        self._unread = [answer for answer in self._unread if answer > seen]
        if len(self._unread) > self._limits.max_unread_answers:
            raise TooSlow(f"{len(self._unread)} answers were sent and not read (see `seen`)")

    async def _work(self) -> None:
        while True:
            await self._mail.wait()
            self._mail.clear()
            waiting, self._mailbox = self._mailbox, None
            if waiting is not None:
                await self._answer(waiting)

    async def _answer(self, waiting: _Waiting) -> None:
        frame, due_s = waiting.frame, waiting.arrived_s + self._deadline_s
        begun_s = time.monotonic()
        call = asyncio.create_task(self._step(frame))
        try:
            done, _ = await asyncio.wait({call}, timeout=max(0.0, due_s - begun_s))
            if not done:
                await self._late(frame)
                await asyncio.wait({call}, timeout=STUCK_S)
                if not call.done():
                    raise NotReady(f"the tracker has been busy with one frame for {STUCK_S:g} s")
                self._swallow(call)
                return
            await self._tell(frame, call.result(), begun_s, waiting.arrived_s)
        except BadMessage as error:
            error = getattr(error, "cause", error)
            await self._send(frame.id, {"type": "error", "id": frame.id, "reason": str(error)})
        finally:
            call.cancel()

    def _swallow(self, call: asyncio.Task[Any]) -> None:
        """The late answer of a frame is thrown away; an error in it is not."""
        error = call.exception()
        if error is not None and not isinstance(error, BadMessage):
            raise error

    async def _late(self, frame: Frame) -> None:
        self._missed += 1
        self._metrics.missed()
        await self._send(frame.id, {"type": "late", "id": frame.id, "deadline_ms": self._deadline_s * 1e3})

    async def _tell(self, frame: Frame, found: dict[str, Any], begun_s: float, arrived_s: float) -> None:
        now_s = time.monotonic()
        ms = {"wait": (begun_s - arrived_s) * 1e3, **found["ms"], "total": (now_s - arrived_s) * 1e3}
        self._metrics.frame(ms)
        await self._send(
            frame.id,
            {
                "type": "state",
                "id": frame.id,
                "captured_ns": frame.captured_ns,
                "frames": found["frames"],
                "objects": found["objects"],
                "ms": {stage: round(value, 3) for stage, value in ms.items()},
                "dropped": self._dropped,
                "missed": self._missed,
            },
        )

    async def _send(self, answer: int, message: dict[str, Any]) -> None:
        self._unread.append(answer)
        await self._peer.write(message)

    async def _step(self, frame: Frame) -> dict[str, Any]:
        """One frame, on whatever replica the session is or comes to."""
        for _ in range(10):
            try:
                found = await self._tracking.step(self.session, frame, self._hello.masks)
            except ReplicaLost as error:
                log.warning("session lost its replica", extra={"session": self.session[:6], "why": str(error)[:200]})
                found = None
            if found is not None:
                return found
            try:
                opened = await self._tracking.open(self.session, self._hello.targets)
            except ReplicaLost:
                await asyncio.sleep(0.05)
                continue
            await self._say_resumed(opened)
        raise NotReady("the tracker's replicas die as fast as they come; see the logs")

    async def _leave(self, forget: bool) -> None:
        try:
            await self._tracking.leave(self.session, forget=forget)
        except (ReplicaLost, ServiceError, WebSocketDisconnect) as error:
            log.warning("session could not be put away", extra={"session": self.session[:6], "why": str(error)[:200]})
