"""A client of WS /v1/track and /v1/targets: pictures in, the targets' states out, on time or not at all.

In: RGB pictures or JPEGs. Out: TrackAnswer, or TrackingError within the deadline. `TrackClient` blocks,
`AsyncTrackClient` awaits; both are shells around `Conversation`, which knows the messages and no sockets. After a lost
connection the next frame connects again (with growing pauses) and the session goes on. An answer to an earlier frame
is thrown away: it is never taken for the answer to this one. Messages: serve/schemas.py; wire format: wire.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from websockets.asyncio.client import ClientConnection as AsyncConnection
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from robot import wire
from robot.client import CONNECT_TIMEOUT_S, TOKEN_VARIABLE
from robot.errors import PolicyError, TrackingError

PROTOCOL = 1
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
UPLOAD_TIMEOUT_S = 60.0
GONE = (OSError, WebSocketException, TimeoutError)


@dataclass(frozen=True, slots=True)
class TrackAnswer:
    """What the service says to one frame."""

    id: int
    captured_ns: int
    objects: list[dict[str, Any]]  # per target: id, name, phase, reason, box_px, score, rle or contours …
    ms: dict[str, float]  # by stage, on the server
    dropped: int  # frames of this connection that a newer one replaced
    missed: int  # frames of this connection whose deadline passed
    resumed: bool  # the session was carried over since the last answer: to another replica, or another connection


@dataclass(slots=True)
class Conversation:
    """The messages of one session, across connections."""

    targets: Sequence[str]
    deadline_s: float
    masks: Literal["rle", "contours", "none"]
    session: str | None = None
    replica_pid: int = 0  # the process that holds the session, as its logs name it
    resumptions: int = 0
    _next_id: int = 0
    _seen: int = -1
    _resumed: bool = False

    def hello(self) -> bytes:
        """The first message of a connection."""
        self._next_id, self._seen = 0, -1
        hello = {"type": "hello", "protocol": PROTOCOL, "targets": list(self.targets), "masks": self.masks}
        hello["deadline_ms"] = self.deadline_s * 1e3
        if self.session:
            hello["session"] = self.session
        return wire.pack(hello)

    def welcomed(self, message: dict[str, Any]) -> None:
        """Take in the answer to the hello. Raises TrackingError."""
        if message["type"] != "welcome":
            raise TrackingError(f"the tracking service refused: {message.get('reason', message['type'])}")
        self.session, self.replica_pid = message["session"], message["replica_pid"]

    def frame(self, picture: np.ndarray | bytes, captured_ns: int | None) -> bytes:
        """The next frame; taken for one of now without an instant."""
        number, self._next_id = self._next_id, self._next_id + 1
        captured_ns = time.time_ns() if captured_ns is None else captured_ns
        sent = {"type": "frame", "id": number, "captured_ns": captured_ns, "seen": self._seen}
        sent["jpeg" if isinstance(picture, bytes) else "image"] = picture
        return wire.pack(sent)

    def answer(self, message: dict[str, Any]) -> TrackAnswer | None:
        """The newest frame's answer; None for a message that is not it. Raises TrackingError for a refusal."""
        kind = message["type"]
        if kind == "resumed":
            self._resumed = True
            self.resumptions += 1
            self.replica_pid = message["replica_pid"]
            return None
        if kind in ("error", "closing") and "id" not in message:
            raise TrackingError(f"the tracking service ended the connection: {message.get('reason')}")
        if kind not in ("state", "late", "error"):
            return None
        self._seen = max(self._seen, message["id"])
        if message["id"] != self._next_id - 1:
            return None  # of an earlier frame: nobody waits for it any more
        if kind != "state":
            raise TrackingError("the deadline passed" if kind == "late" else f"refused: {message.get('reason')}")
        resumed, self._resumed = self._resumed, False
        names = ("id", "captured_ns", "objects", "ms", "dropped", "missed")
        return TrackAnswer(**{name: message[name] for name in names}, resumed=resumed)


@dataclass(slots=True)
class _Pauses:
    """When the next connection may be tried: soon after the first failure, later after each that follows."""

    pause_s: float = FIRST_PAUSE_S
    not_before_s: float = 0.0

    def failed(self) -> None:
        self.not_before_s = time.monotonic() + self.pause_s
        self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)

    def worked(self) -> None:
        self.pause_s, self.not_before_s = FIRST_PAUSE_S, 0.0

    def left_s(self) -> float:
        return max(0.0, self.not_before_s - time.monotonic())


def _options(token: str | None) -> dict[str, Any]:
    token = token or os.environ.get(TOKEN_VARIABLE)
    return {
        "open_timeout": CONNECT_TIMEOUT_S,
        "close_timeout": 0.2,
        "compression": None,
        "max_size": MAX_ANSWER_BYTES,
        "additional_headers": {"Authorization": f"Bearer {token}"} if token else {},
    }


@dataclass(slots=True)
class TrackClient:
    """Blocking. One thread; use as a context or call `close`."""

    url: str  # ws://HOST:PORT/v1/track
    targets: Sequence[str]
    deadline_s: float = 1.0
    masks: Literal["rle", "contours", "none"] = "rle"
    token: str | None = None
    conversation: Conversation = field(init=False)
    _socket: ClientConnection | None = field(init=False, default=None)
    _pauses: _Pauses = field(init=False, default_factory=_Pauses)

    def __post_init__(self) -> None:
        """Connect with the first frame."""
        self.conversation = Conversation(self.targets, self.deadline_s, self.masks)

    def track(self, picture: np.ndarray | bytes, captured_ns: int | None = None) -> TrackAnswer:
        """The answer to this frame ((H, W, 3) uint8 RGB, or a JPEG). Raises TrackingError, at the latest at the
        deadline; then the next frame may be tried at once."""
        due_s = time.monotonic() + self.deadline_s
        try:
            socket = self._connected(due_s)
            socket.send(self.conversation.frame(picture, captured_ns))
            while True:
                left_s = due_s - time.monotonic()
                message = wire.unpack(socket.recv(timeout=max(0.0, left_s)), MAX_ANSWER_BYTES)
                answer = self.conversation.answer(message)
                if answer is not None:
                    return answer
        except TimeoutError as error:
            raise TrackingError(f"no answer within {self.deadline_s:g} s") from error
        except (*GONE, PolicyError) as error:
            self._drop()
            raise TrackingError(f"the tracking service {self.url} is away: {error}") from error
        except TrackingError:
            if self._socket is not None and self._socket.close_code is not None:
                self._drop()
            raise

    def close(self) -> None:
        """End the session; the service forgets it."""
        if self._socket is not None:
            try:
                self._socket.send(wire.pack({"type": "bye"}))
                self._socket.close()
            except GONE:
                pass
            self._socket = None

    def __enter__(self) -> TrackClient:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _connected(self, due_s: float) -> ClientConnection:
        while self._socket is None:
            if self._pauses.left_s() > due_s - time.monotonic():
                raise TrackingError(f"the tracking service {self.url} is away; the next try comes soon")
            time.sleep(self._pauses.left_s())
            try:
                # Entered, not only made: the library wants every connection used as a context. close() ends it.
                socket = connect(self.url, **_options(self.token)).__enter__()
                socket.send(self.conversation.hello())
                self.conversation.welcomed(wire.unpack(socket.recv(timeout=CONNECT_TIMEOUT_S)))
            except GONE as error:
                self._pauses.failed()
                if time.monotonic() > due_s:
                    raise TrackingError(f"the tracking service {self.url} cannot be reached: {error}") from error
                continue
            self._socket = socket
            self._pauses.worked()
        return self._socket

    def _drop(self) -> None:
        socket, self._socket = self._socket, None
        self._pauses.failed()
        if socket is not None:
            socket.socket.close()  # not close(): a half-open peer would make a closing handshake wait


@dataclass(slots=True)
class AsyncTrackClient:
    """The same for an event loop. One task at a time; use as a context or call `close`."""

    url: str
    targets: Sequence[str]
    deadline_s: float = 1.0
    masks: Literal["rle", "contours", "none"] = "rle"
    token: str | None = None
    conversation: Conversation = field(init=False)
    _socket: AsyncConnection | None = field(init=False, default=None)
    _pauses: _Pauses = field(init=False, default_factory=_Pauses)

    def __post_init__(self) -> None:
        """Connect with the first frame."""
        self.conversation = Conversation(self.targets, self.deadline_s, self.masks)

    async def track(self, picture: np.ndarray | bytes, captured_ns: int | None = None) -> TrackAnswer:
        """See TrackClient.track."""
        try:
            async with asyncio.timeout(self.deadline_s):
                socket = await self._connected()
                await socket.send(self.conversation.frame(picture, captured_ns))
                while True:
                    message = wire.unpack(await socket.recv(), MAX_ANSWER_BYTES)
                    answer = self.conversation.answer(message)
                    if answer is not None:
                        return answer
        except TimeoutError as error:
            raise TrackingError(f"no answer within {self.deadline_s:g} s") from error
        except (*GONE, PolicyError) as error:
            self._drop()
            raise TrackingError(f"the tracking service {self.url} is away: {error}") from error

    async def close(self) -> None:
        """End the session; the service forgets it."""
        if self._socket is not None:
            try:
                await self._socket.send(wire.pack({"type": "bye"}))
                await self._socket.close()
            except GONE:
                pass
            self._socket = None

    async def __aenter__(self) -> AsyncTrackClient:
        """Itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def _connected(self) -> AsyncConnection:
        while self._socket is None:
            await asyncio.sleep(self._pauses.left_s())
            try:
                socket = await async_connect(self.url, **_options(self.token))
                await socket.send(self.conversation.hello())
                self.conversation.welcomed(wire.unpack(await socket.recv()))
            except GONE:
                self._pauses.failed()
                continue
            self._socket = socket
            self._pauses.worked()
        return self._socket

    def _drop(self) -> None:
        socket, self._socket = self._socket, None
        self._pauses.failed()
        if socket is not None:
            socket.transport.abort()


def add_target(base_url: str, name: str, data: bytes, token: str | None = None, timeout_s: float = 300.0) -> str:
    """Upload a zip of templates or a mesh to http://HOST:PORT; the target's id once its bank is ready.

    Raises TrackingError with the service's own reason.
    """
    record = _asked(f"{base_url}/v1/targets?name={quote(name)}", token, data)
    due_s = time.monotonic() + timeout_s
    while record["state"] in ("waiting", "building"):
        if time.monotonic() > due_s:
            raise TrackingError(f"target {name!r} is still {record['state']} after {timeout_s:g} s")
        time.sleep(0.1)
        record = _asked(f"{base_url}/v1/targets/{record['id']}", token)
    if record["state"] != "ready":
        raise TrackingError(f"target {name!r} could not be built: {record['why']}")
    return record["id"]


def _asked(url: str, token: str | None, data: bytes | None = None) -> dict[str, Any]:
    token = token or os.environ.get(TOKEN_VARIABLE)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if data is not None:
        headers["Content-Type"] = "application/octet-stream"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=UPLOAD_TIMEOUT_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise TrackingError(f"{url}: {_reason(error)}") from error
    except (OSError, ValueError) as error:
        raise TrackingError(f"{url} cannot be reached: {error}") from error


def _reason(error: urllib.error.HTTPError) -> str:
    """The service's own reason; the status where something before it answered, a proxy say, with a page of its own."""
    try:
        return str(json.loads(error.read())["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(error)
