"""What the service refuses, by name: each error knows its HTTP status and its websocket close code.

Raised everywhere in serve/, turned into answers by gateway.py and sockets.py. Each takes one sentence and survives
pickling. Close codes 4000..4999 are the application's own (RFC 6455, 7.4.2); ours are 4000 + the HTTP status.
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that Ray appends; its name where it says nothing, as time-outs do."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class ServiceError(Exception):
    """Base: the service's own fault, or not yet ready."""

    status = 500

    @property
    def close_code(self) -> int:
        """What a websocket is closed with."""
        return 4000 + self.status


class BadMessage(ServiceError):
    """Not msgpack, a missing field, a wrong dtype or shape, a value out of range."""

    status = 400


class UnknownTarget(ServiceError):
    """A target that is not stored; the sentence lists those that are."""

    status = 404


class TooSlow(ServiceError):
    """A peer that says nothing, or reads nothing, for too long."""

    status = 408


class Conflict(ServiceError):
    """Not possible in the present state: already running, e-stop latched, target not ready, other contract."""

    status = 409


class TooLarge(ServiceError):
    """More bytes, pixels, files or triangles than the limits allow."""

    status = 413


class BadUpload(ServiceError):
    """An archive or mesh that is not one, or holds something it must not."""

    status = 422


class TooMany(ServiceError):
    """More connections or sessions at once than the limits allow."""

    status = 429


class NotReady(ServiceError):
    """A model is loading, or was lost and comes back."""

    status = 503
