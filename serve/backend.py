"""What the service needs of a tracker's maker: trackers, and banks from uploads. Implemented by zero_shot.py.

The settings name the implementation (`tracking.backend`), so that a test or another tracker can take its place
without a line of the service changing. The tracker itself keeps actors.tracker.records.TrackerLike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from actors.tracker.records import TrackerLike
from serve.uploads import View

Progress = Callable[[int, int], None]  # views done, views in all


class Backend(Protocol):
    """Made once per process. Every method may be called from several threads."""

    def tracker(self) -> TrackerLike:
        """A tracker for one session, warm."""

    def bank_from_views(self, name: str, views: Sequence[View], progress: Progress) -> bytes:
        """A bank of these templates, as bytes that `bank` reads. Raises TrackerError."""

    def bank_from_mesh(self, name: str, mesh: bytes, kind: str, progress: Progress) -> bytes:
        """A bank of rendered views. Raises TrackerError."""

    def bank(self, data: bytes) -> Any:
        """What TrackerLike.add_target takes. Raises TrackerError for a bank of another model."""

    def slim(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A saved state without what never changes: it is sent away every few frames."""

    def whole(self, state: Mapping[str, Any], banks: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse; `banks` by the tracker's names. Raises TrackerError."""
