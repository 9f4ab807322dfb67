"""One peer on a websocket: bounded waiting, messages off the wire, and an end that says why.

In: a Starlette websocket. Out: checked messages, or a close code. Used by track_socket.py and policy.py. `Lobby` counts
who is connected and tells everybody when the service ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from robot import wire
from serve.auth import SUBPROTOCOL
from serve.errors import BadMessage, ServiceError, TooMany, TooSlow
from serve.schemas import parse
from serve.settings import Limits

GOING_AWAY = 1012  # service restart (IANA registry of RFC 6455)
REASON_BYTES = 120  # a close frame carries 123


class Peer:
    """Reads and writes messages."""

    def __init__(self, socket: WebSocket, limits: Limits) -> None:
        self._socket, self._limits = socket, limits

    async def read(self, timeout_s: float) -> dict[str, Any]:
        """The next message. Raises TooSlow, BadMessage, WebSocketDisconnect."""
        try:
            event = await asyncio.wait_for(self._socket.receive(), timeout_s)
        except TimeoutError as error:
            raise TooSlow(f"nothing was heard for {timeout_s:g} s") from error
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code") or 1005)
        data = event.get("bytes")
        if data is None:
            raise BadMessage("a text message arrived; messages here are msgpack in binary")
        return parse(data, self._limits)

    async def write(self, message: dict[str, Any]) -> None:
        """Send it. Raises WebSocketDisconnect when nobody is there."""
        try:
            await self._socket.send_bytes(wire.pack(message))
        except RuntimeError as error:  # Starlette's word for a socket that was closed
            raise WebSocketDisconnect(1006) from error

    async def close(self, code: int, reason: str) -> None:
        """End it; whoever is gone already is left in peace."""
        try:
            await self._socket.close(code, _short(reason))
        except RuntimeError:
            return


def _short(reason: str) -> str:
    return reason.encode()[:REASON_BYTES].decode(errors="ignore")


class Lobby:
    """Everybody who is connected to this gateway."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tasks: set[asyncio.Task[Any]] = set()
        self.closing = False

    def __len__(self) -> int:
        return len(self._tasks)

    @asynccontextmanager
    async def peer(self, socket: WebSocket) -> AsyncIterator[Peer]:
        """A connected peer; every error inside becomes a message and a close code, and never reaches another peer."""
        offered = socket.scope.get("subprotocols", ())
        await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        peer = Peer(socket, self._limits)
        task = asyncio.current_task()
        assert task is not None, "a websocket is served by a task"
        try:
            if self.closing or len(self._tasks) >= self._limits.max_connections:
                raise TooMany(f"{self._limits.max_connections} connections are open; try again later")
            self._tasks.add(task)
            yield peer
            await peer.close(1000, "")
        except WebSocketDisconnect:
            return
        except ServiceError as error:
            error = getattr(error, "cause", error)
            await _told(peer, {"type": "error", "reason": str(error)})
            await peer.close(error.close_code, str(error))
        except asyncio.CancelledError:
            if not self.closing:
                raise
            await _told(peer, {"type": "closing", "reason": "the service ends"})
            await peer.close(GOING_AWAY, "the service ends")
        finally:
            self._tasks.discard(task)

    async def send_home(self, patience_s: float) -> None:
        """Tell everybody that the service ends, and wait until they are told."""
        self.closing = True
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)


async def _told(peer: Peer, message: dict[str, Any]) -> None:
    try:
        await peer.write(message)
    except WebSocketDisconnect:
        return
