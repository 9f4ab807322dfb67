"""What can go wrong with a tracker, by name; shown to a person as one sentence. Each survives pickling."""

from __future__ import annotations


class TrackerError(Exception):
    """Root of what the tracker raises on purpose; the message says what, where and what would be right."""


class UnknownTarget(TrackerError):
    """A name that no target has; the message lists the names there are."""


class BankMismatch(TrackerError):
    """A template bank made with another embedder, weights or preprocessing than the one in use."""


class BankUnusable(TrackerError):
    """A bank, template folder or mesh that cannot be read or holds nothing to compare with."""


class SourceUnusable(TrackerError):
    """A video, folder or camera that cannot be opened."""
