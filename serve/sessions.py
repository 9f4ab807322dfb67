"""Which replica a session is served by: Ray's session routing, made sticky.

In: the session id that a call carries. Out: a replica. Used by the gateway's handle to the Tracker deployment (app.py).
The router base is experimental in Ray 2.60: this is the one file that knows it.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{22}")
MAX_PINNED = 10_000


def new_session_id() -> str:
    """128 random bits: knowing one's own session tells nothing of another's."""
    return secrets.token_urlsafe(16)


class SessionRouter(ConsistentHashRouter):
    """Sticky: hashing alone moves sessions whenever a replica is added, and a move costs frames."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pinned: OrderedDict[str, Any] = OrderedDict()

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        """The session's replica first, then the others; for a new session the one with the fewest first."""
        ranks = await super().choose_replicas(candidate_replicas, pending_request)
        session = pending_request.metadata.session_id if pending_request is not None else ""
        if not session or not self._replicas:
            return ranks
        pinned = self._pinned.get(session)
        if pinned not in self._replicas:
            held = list(self._pinned.values())
            pinned = min(self._replicas, key=lambda replica: (held.count(replica), replica.unique_id))
        self._pinned[session] = pinned
        self._pinned.move_to_end(session)
        if len(self._pinned) > MAX_PINNED:
            self._pinned.popitem(last=False)
        mine = self._replicas[pinned]
        return [[mine], *[rank for rank in ranks if rank != [mine]]]

    def on_replica_actor_died(self, replica_id: Any) -> None:
        """Its sessions are free to go elsewhere."""
        super().on_replica_actor_died(replica_id)
        self._pinned = OrderedDict((s, r) for s, r in self._pinned.items() if r != replica_id)
