"""A policy behind a server, as if it were here.

In: PolicyInput. Out: the server's action, or PolicyError within the deadline. Runs in the worker's thread, so a dead
server never delays a tick. An answer that comes late is thrown away with its connection: it cannot be taken for the
answer to a later question. Wire format: wire.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from robot import wire
from robot.contract import PolicyContract, PolicyOffer
from robot.errors import ConnectionFailed, PolicyError
from robot.records import PolicyInput

CONNECT_TIMEOUT_S = 2.0
# After a failed connection the next try waits this long; the arm holds meanwhile.
RETRY_AFTER_S = 0.5
TOKEN_VARIABLE = "REAFFERENCE_TOKEN"


class RemotePolicy:
    """Policy protocol over one websocket."""

    def __init__(
        self, url: str, contract: PolicyContract, deadline_s: float, heard: Callable[[], None] = lambda: None
    ) -> None:
        """`heard` is called whenever the server answered; it feeds the loop's dead-man."""
        self._url, self._contract = url, contract
        self._deadline_s = deadline_s
        self._heard = heard
        self._socket: ClientConnection | None = None
        self._next_id = 0
        self._retry_at_s = 0.0
        self._offer: PolicyOffer | None = None

    def offer(self) -> PolicyOffer:
        """Connect and ask. Raises ConnectionFailed."""
        try:
            self._connected()
        except PolicyError as error:
            raise ConnectionFailed(str(error)) from error
        assert self._offer is not None, "_connected() stores it"
        return self._offer

    def warm_up(self) -> None:
        """The server warms its own policy before it offers it."""

    def reset(self) -> None:
        """Tell the server, if it is there; a server that is not starts anew anyway."""
        if self._socket is not None:
            self._send(self._socket, {"type": "reset"})

    def decide(self, given: PolicyInput) -> np.ndarray:
        """The server's action for now. Raises PolicyError after the deadline, or when the server is gone or says no."""
        # The loop asks again with every observation: later rows of the chunk would act on what was seen before.
        return self.decide_chunk(given)[0]

    def decide_chunk(self, given: PolicyInput) -> np.ndarray:
        """(T, A) float32: the actions of this and the next T - 1 periods. Raises as `decide` does."""
        socket = self._connected()
        self._next_id += 1
        image = given.image
        if image is not None and self._contract.image.normalised_by == "policy":
            image = image.astype(np.uint8)  # exact: the planes are whole numbers 0..255
        self._send(socket, {"type": "decide", "id": self._next_id, "image": image, "low_dim": given.low_dim})
        answer = self._receive(socket)
        if answer.get("id") != self._next_id or answer["type"] != "actions":
            self._drop()
            raise PolicyError(f"the policy server answered {answer.get('reason') or answer['type']}")
        return self._chunk(answer.get("actions"))

    def _chunk(self, actions: object) -> np.ndarray:
        size = self._contract.action.size
        if not isinstance(actions, np.ndarray) or actions.ndim != 2 or actions.shape[1] != size or not len(actions):
            self._drop()
            found = getattr(actions, "shape", actions)
            raise PolicyError(f"the policy server answered {found!r}, expected (T, {size})")
        return actions.astype(np.float32)

    def close(self) -> None:
        """Close the socket."""
        self._drop()

    def _connected(self) -> ClientConnection:
        if self._socket is not None:
            return self._socket
        if time.monotonic() < self._retry_at_s:
            raise PolicyError(f"the policy server {self._url} is away; the next try comes soon")
        self._retry_at_s = time.monotonic() + RETRY_AFTER_S
        token = os.environ.get(TOKEN_VARIABLE)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            # Entered, not only made: the library wants every connection used as a context. _drop() ends it.
            socket = connect(
                self._url,
                open_timeout=CONNECT_TIMEOUT_S,
                close_timeout=0.1,
                ping_interval=None,
                compression=None,
                max_size=wire.MAX_BYTES,
                additional_headers=headers,
            ).__enter__()
        except (OSError, TimeoutError, WebSocketException, ValueError) as error:
            raise PolicyError(f"the policy server {self._url} cannot be reached: {error}") from error
        self._socket = socket
        self._greet(socket)
        return socket

    def _greet(self, socket: ClientConnection) -> None:
        hello = {"type": "hello", "protocol": wire.PROTOCOL, "contract_sha256": self._contract.sha256}
        self._send(socket, hello)
        answer = self._receive(socket, CONNECT_TIMEOUT_S)
        try:
            if answer["type"] != "offer":
                raise TypeError(answer.get("reason", answer["type"]))
            self._offer = PolicyOffer(**answer["offer"])
        except (TypeError, KeyError) as error:
            self._drop()
            raise PolicyError(f"the policy server {self._url} refused: {error}") from error

    def _send(self, socket: ClientConnection, message: dict[str, Any]) -> None:
        try:
            socket.send(wire.pack(message))
        except (OSError, WebSocketException) as error:
            self._drop()
            raise PolicyError(f"the policy server went away: {error}") from error

    def _receive(self, socket: ClientConnection, timeout_s: float | None = None) -> dict[str, Any]:
        timeout_s = timeout_s or self._deadline_s
        try:
            answer = wire.unpack(socket.recv(timeout=timeout_s))
        except TimeoutError as error:
            self._drop()
            raise PolicyError(f"the policy server gave no answer within {timeout_s * 1e3:.0f} ms") from error
        except (OSError, WebSocketException) as error:
            self._drop()
            raise PolicyError(f"the policy server went away: {error}") from error
        except PolicyError:
            self._drop()
            raise
        self._heard()
        return answer

    def _drop(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            # Not close(): a closing handshake with a half-open peer would wait.
            socket.socket.close()
