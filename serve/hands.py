"""WS /v1/hands: pictures of a person's hand in, joint angles of an Allegro (and of an arm) out, frame by frame.

In: a peer, and the actor `hands` (actors/hand_follower.py; configs/serve_hands.yaml starts one). Out: one answer per
picture, in order. The session's state stays here and travels with every call. Called by gateway.py. Messages:

    client  hello    {type, protocol, side: left | right, arm?, intrinsics?: [fx, fy, cx, cy], base_from_camera?: 16}
    server  welcome  {type, protocol, joints: [hand's names …]}
    client  frame    {type, id, captured_ns, seen, jpeg: bytes | image: (H, W, 3) uint8 RGB}
    server  joints   {type, id, captured_ns, hand_rad: (16,), arm_rad: (6,) | nil, flags, seen, ms}
    server  error    {type, id?, reason}                  with an id: of one frame; without: the socket closes

`flags` are those of docs/retargeting.md. A picture without the hand is answered too: with the angles to hold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from actors.hand_records import HandRig, HandState
from serve.errors import BadMessage, NotReady
from serve.schemas import PROTOCOL, Bye, checked, frame_of
from serve.settings import Limits
from serve.sockets import Peer

FOLLOW_TIMEOUT_S = 10.0

Ask = Callable[..., Awaitable[Any]]


class HandsHello(BaseModel):
    """How a session begins."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: Literal["hello"]
    protocol: int
    side: str
    arm: str | None = None
    intrinsics: list[float] | None = Field(default=None, min_length=4, max_length=4)
    base_from_camera: list[float] | None = Field(default=None, min_length=16, max_length=16)


class HandsSession:
    """One websocket of one robot. `ask` calls a method of the hands actor."""

    def __init__(self, peer: Peer, ask: Ask, limits: Limits) -> None:
        self._peer, self._ask, self._limits = peer, ask, limits

    async def run(self) -> None:
        """Until a bye."""
        rig = _rig(await self._peer.read(self._limits.hello_timeout_s))
        joints = await self._joints(rig)
        await self._peer.write({"type": "welcome", "protocol": PROTOCOL, "joints": list(joints)})
        state: HandState | None = None
        while True:
            message = await self._peer.read(self._limits.idle_timeout_s)
            if message["type"] == "bye":
                checked(Bye, message)
                return
            state = await self._frame(message, rig, state)

    async def _joints(self, rig: HandRig) -> tuple[str, ...]:
        try:
            return await self._ask("joints", rig)
        except ValueError as error:
            raise BadMessage(str(getattr(error, "cause", error))) from error

    async def _frame(self, message: dict[str, Any], rig: HandRig, state: HandState | None) -> HandState | None:
        arrived_s = time.monotonic()
        frame = frame_of(message, self._limits)
        picture = frame.jpeg if frame.jpeg is not None else frame.image
        try:
            call = self._ask("follow", picture, frame.captured_ns, rig, state)
            command, state = await asyncio.wait_for(call, FOLLOW_TIMEOUT_S)
        except (ValueError, NotReady, TimeoutError) as error:
            reason = str(getattr(error, "cause", error)) or f"no answer within {FOLLOW_TIMEOUT_S:g} s"
            await self._peer.write({"type": "error", "id": frame.id, "reason": reason})
            return state
        total_ms = round((time.monotonic() - arrived_s) * 1e3, 3)
        await self._peer.write(
            {
                "type": "joints",
                "id": frame.id,
                "captured_ns": frame.captured_ns,
                "hand_rad": command.hand_rad,
                "arm_rad": command.arm_rad,
                "flags": command.flags,
                "seen": command.seen,
                "ms": {**command.ms, "total": total_ms},
            }
        )
        return state


def _rig(message: dict[str, Any]) -> HandRig:
    hello = checked(HandsHello, message)
    if hello.protocol != PROTOCOL:
        raise BadMessage(f"this service speaks protocol {PROTOCOL}, the hello is of protocol {hello.protocol}")
    numbers = [None if given is None else tuple(given) for given in (hello.intrinsics, hello.base_from_camera)]
    try:
        return HandRig(hello.side, hello.arm, *numbers)
    except ValueError as error:
        raise BadMessage(str(error)) from error
