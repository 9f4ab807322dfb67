"""What can go wrong before or during training, by name. Shown to a person as one sentence by __main__.py."""

from __future__ import annotations

from models.errors import ModelError


class BadTracks(ModelError):
    """A folder of tracks cannot be trained on; the message names the file and what would be right."""
