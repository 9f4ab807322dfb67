"""WS /v1/policy: a robot's observations in, actions out, by the protocol of robot/wire.py.

In: a peer, and the actor `policy` (served_policy.py). Out: an offer when the contract's hash is the same, then one
answer per observation: a chunk of one or more actions. Called by gateway.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from robot import wire
from serve.errors import BadMessage, Conflict, NotReady
from serve.settings import Limits
from serve.sockets import Peer

# A decision that takes longer than this helps no robot; the client's own deadline is far shorter.
DECIDE_TIMEOUT_S = 10.0

Ask = Callable[..., Awaitable[Any]]


class PolicySession:
    """One websocket of one robot. `ask` calls a method of the policy actor."""

    def __init__(self, peer: Peer, ask: Ask, limits: Limits) -> None:
        self._peer, self._ask, self._limits = peer, ask, limits

    async def run(self) -> None:
        """Until the robot leaves."""
        await self._greet(await self._peer.read(self._limits.hello_timeout_s))
        while True:
            message = await self._peer.read(self._limits.idle_timeout_s)
            if message["type"] == "decide":
                await self._decide(message)
            elif message["type"] != "reset":  # served policies keep nothing between decisions
                raise BadMessage(f"a {message['type'][:40]!r} arrived; decide and reset are understood here")

    async def _greet(self, hello: dict[str, Any]) -> None:
        if hello["type"] != "hello" or hello.get("protocol") != wire.PROTOCOL:
            raise BadMessage(f"the first message is a hello of protocol {wire.PROTOCOL}")
        offer = await self._ask("describe")
        if hello.get("contract_sha256") != offer["contract_sha256"]:
            raise Conflict(f"contract_hash: this service was started with contract {offer['contract_sha256'][:12]}…")
        await self._peer.write({"type": "offer", "offer": offer})

    async def _decide(self, message: dict[str, Any]) -> None:
        begun_s = time.monotonic()
        number = message.get("id")
        if not isinstance(number, int) or set(message) - {"type", "id", "image", "low_dim"}:
            raise BadMessage("a decide has id, image and low_dim")
        try:
            call = self._ask("decide", message.get("image"), message.get("low_dim"))
            actions = await asyncio.wait_for(call, DECIDE_TIMEOUT_S)
        except (BadMessage, NotReady) as error:
            reason = str(getattr(error, "cause", error))
            await self._peer.write({"type": "error", "id": number, "reason": reason})
            return
        server_ms = round((time.monotonic() - begun_s) * 1e3, 3)
        await self._peer.write({"type": "actions", "id": number, "actions": actions, "server_ms": server_ms})
