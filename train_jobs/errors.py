"""What can go wrong in any training, by name. Shown to a person as one sentence by the command lines."""

from __future__ import annotations

from models.errors import ModelError


class CannotStart(ModelError):
    """Training or judging cannot begin or go on: files of other settings, no data, nothing to start from."""
