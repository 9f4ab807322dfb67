"""What can go wrong with the manipulation network's training, by name. Shown as one sentence by __main__.py."""

from __future__ import annotations

from models.errors import ModelError


class UnknownLoss(ModelError):
    """A weight or schedule names no loss; the message lists which exist."""


class BadData(ModelError):
    """A data folder or a label cannot be used; the message names the file and what would be right."""


class Collapsed(ModelError):
    """Predictions no longer depend on the picture: the run is worth nothing and stops."""
