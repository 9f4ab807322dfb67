"""Saved states of sessions, kept away from the replicas that made them. A plain class, run as the actor `sessions`.

In: states as bytes. Out: the newest per session, bounded in number, bytes and age. Asked by tracking.py.
"""

from __future__ import annotations

import time
from collections import OrderedDict


class SessionStore:
    """Newest saved state per session."""

    def __init__(self, ttl_s: float, max_bytes: int = 1024 * 1024 * 1024) -> None:
        self._max_bytes, self._ttl_s = max_bytes, ttl_s
        self._states: OrderedDict[str, tuple[int, bytes, float]] = OrderedDict()
        self._bytes = 0

    def put(self, session: str, frames: int, state: bytes) -> None:
        """Keep it, unless a newer one is here. The oldest sessions go when there is no room."""
        held = self._states.get(session)
        if held is not None and held[0] > frames:
            return
        self.drop(session)
        self._states[session] = (frames, state, time.monotonic())
        self._bytes += len(state)
        self._expire()

    def get(self, session: str) -> bytes | None:
        """The newest state, None where there is none."""
        held = self._states.get(session)
        return None if held is None else held[1]

    def drop(self, session: str) -> None:
        """Forget a session that ended."""
        held = self._states.pop(session, None)
        if held is not None:
            self._bytes -= len(held[1])

    def size(self) -> tuple[int, int]:
        """Sessions and bytes."""
        return len(self._states), self._bytes

    def _expire(self) -> None:
        oldest_s = time.monotonic() - self._ttl_s
        while self._states:
            session, (_, _, saved_s) = next(iter(self._states.items()))
            if saved_s >= oldest_s and self._bytes <= self._max_bytes:
                return
            self.drop(session)
