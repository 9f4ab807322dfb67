"""Messages of WS /v1/track, checked field by field, and what the HTTP routes answer.

In: maps from robot.wire. Out: frozen models, or BadMessage that names the field. Protocol 1, one websocket per session:

    client  hello    {type, protocol, targets: [id…], session?, deadline_ms?, masks?: rle | contours | none}
    server  welcome  {type, protocol, session, targets, deadline_ms, replica_pid, limits}
    server  resumed  {type, session, frames, targets, replica_pid}    once: the state was carried over to here
    client  frame    {type, id, captured_ns, seen, jpeg: bytes | image: (H, W, 3) uint8 RGB}
    server  state    {type, id, captured_ns, frames, objects, ms, dropped, missed}
    server  late     {type, id, deadline_ms}              the deadline passed; this frame gets no answer any more
    server  error    {type, id?, reason}                  with an id: of one frame; without: the socket closes
    server  closing  {type, reason}                       the service ends; the state is saved, come back with `session`
    client  bye      {type}                               the session ends and is forgotten

`seen` is the id of the last answer that the client has read (-1: none yet): who sends without reading is cut off.
Newest frame wins: a frame that waits when another arrives is dropped and counted in `dropped`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robot import wire
from robot.errors import PolicyError
from serve.errors import BadMessage
from serve.settings import Limits

PROTOCOL = 1
Masks = Literal["rle", "contours", "none"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


class Hello(_Message):
    """How a session begins."""

    type: Literal["hello"]
    protocol: int
    targets: list[str] = Field(min_length=1, max_length=64)
    session: str | None = Field(default=None, max_length=64)
    deadline_ms: float | None = Field(default=None, gt=0, le=60_000)
    masks: Masks = "rle"


class Frame(_Message):
    """One picture."""

    type: Literal["frame"]
    id: int = Field(ge=0, lt=2**53)
    captured_ns: int = Field(ge=0, lt=2**63)
    seen: int = Field(ge=-1, lt=2**53)
    jpeg: bytes | None = None
    image: np.ndarray | None = None


class Bye(_Message):
    """The session is over."""

    type: Literal["bye"]


def parse(data: bytes | str, limits: Limits) -> dict[str, Any]:
    """One message off the wire. Raises BadMessage."""
    try:
        return wire.unpack(data, limits.max_message_bytes)
    except PolicyError as error:
        raise BadMessage(str(error)) from error


def hello_of(message: dict[str, Any], limits: Limits) -> Hello:
    """The first message. Raises BadMessage."""
    hello = checked(Hello, message)
    if hello.protocol != PROTOCOL:
        raise BadMessage(f"this service speaks protocol {PROTOCOL}, the hello is of protocol {hello.protocol}")
    if len(set(hello.targets)) != len(hello.targets) or len(hello.targets) > limits.max_targets_per_session:
        raise BadMessage(f"a session has 1 to {limits.max_targets_per_session} different targets")
    return hello


def frame_of(message: dict[str, Any], limits: Limits) -> Frame:
    """A frame whose picture is the right kind of thing. Raises BadMessage."""
    frame = checked(Frame, message)
    if (frame.jpeg is None) == (frame.image is None):
        raise BadMessage("a frame has either jpeg or image")
    image = frame.image
    if image is not None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise BadMessage(f"image is {image.dtype} {image.shape}; expected uint8 (H, W, 3) RGB")
        if image.shape[0] * image.shape[1] > limits.max_frame_pixels:
            raise BadMessage(f"image is {image.shape[1]}x{image.shape[0]}; {limits.max_frame_pixels} pixels at most")
    return frame


def checked[M: BaseModel](model: type[M], message: dict[str, Any]) -> M:
    """`message` as `model`. Raises BadMessage, which names the field."""
    try:
        return model.model_validate(message)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "message"
        raise BadMessage(f"{model.__name__.lower()}: {place}: {first['msg']}") from error


class Target(BaseModel):
    """One target, as GET /v1/targets tells it."""

    id: str
    name: str
    kind: str
    state: Literal["waiting", "building", "ready", "failed"]
    why: str
    progress: float
    views: int
    upload_bytes: int
    bank_bytes: int
    build_s: float | None
    created_s: float


class StartRequest(BaseModel):
    """POST /v1/control/start."""

    model_config = ConfigDict(extra="forbid")

    policy: Literal["pretrained", "scripted", "stand_still"] = Field(
        default="pretrained", description="pretrained: the networks that ship, trained in simulation and only run there"
    )
    seconds: float | None = Field(default=None, gt=0, le=3600)
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="sim: where the cube lies")
    release_estop: bool = Field(default=False, description="a person looked: let go of a latched emergency stop")


class Problem(BaseModel):
    """What every 4xx and 5xx answer looks like."""

    reason: str
