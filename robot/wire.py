"""Messages between the loop and a policy server: msgpack maps with numpy arrays inside, never pickle.

In: dicts of plain values and arrays. Out: bytes, and back. Used by client.py and by whoever serves policies.

Protocol 2, over one websocket, one request in flight:
    client  hello   {type, protocol, contract_sha256}
    server  offer   {type, offer: fields of contract.PolicyOffer}         or  error {type, reason}
    client  reset   {type}                                                 no answer; the next observation starts anew
    client  decide  {type, id, image: uint8 or float32 array | nil, low_dim: float32 array | nil}
    server  actions {type, id, actions: (T, A) float32 array, server_ms}   or  error {type, id, reason}
Row k of a chunk is meant for k periods after its observation; T is 1 for policies that decide step by step.
An array is {"nd": [dtype, shape, bytes]}, little-endian, C order.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np

from robot.errors import PolicyError

PROTOCOL = 2
# Plain numbers only; "|O" (pickled objects) and records never travel.
DTYPES = ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<i8", "<f2", "<f4", "<f8")
# The largest message to a policy is a stack of pictures: 3 x 2 x 84 x 84 float32 is 170 kB.
MAX_BYTES = 4 * 1024 * 1024


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        return {"nd": [array.dtype.newbyteorder("<").str, list(array.shape), array.tobytes()]}
    raise TypeError(f"{type(value).__name__} does not travel; send plain values and numpy arrays")


def _decode(value: dict[Any, Any]) -> Any:
    if set(value) != {"nd"}:
        return value
    try:
        dtype, shape, data = value["nd"]
        if dtype not in DTYPES or math.prod(shape) * np.dtype(dtype).itemsize != len(data):
            raise ValueError(f"{dtype} array of shape {shape} in {len(data)} bytes")
        return np.frombuffer(data, dtype).reshape(shape)
    except (ValueError, TypeError) as error:
        raise PolicyError(f"a malformed array arrived: {error}") from error


def pack(message: dict[str, Any]) -> bytes:
    """One message to bytes."""
    return msgpack.packb(message, default=_encode)


def unpack(data: bytes | str, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Bytes to one message; arrays are read-only. Raises PolicyError for anything that is not one."""
    if not isinstance(data, bytes) or len(data) > max_bytes:
        raise PolicyError(f"expected a binary message of at most {max_bytes} bytes")
    try:
        message = msgpack.unpackb(data, object_hook=_decode)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise PolicyError(f"a message that is not msgpack arrived: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise PolicyError("a message without a type arrived")
    return message
