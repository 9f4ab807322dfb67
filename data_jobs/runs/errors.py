"""What can go wrong in a run, by class of cause. Raised by operators and readers, judged by guard.py.

Exceptions take one string only, so that they survive pickling on their way through Ray (ray-project/ray#31806).
"""

from __future__ import annotations


class RunError(Exception):
    """A run cannot start or go on; the message is one sentence for a person. The command line exits non-zero."""


class InputError(Exception):
    """The input itself is bad (unreadable, damaged, wrong kind): straight to the dead letter, never retried."""


class TransientError(Exception):
    """May go away by itself (network, busy file): retried with back-off."""


class OverdueError(Exception):
    """A command of the user's did not end within its own time: cause `timeout`, tried again."""


class CommandDied(Exception):
    """A command of the user's was ended by a signal: cause `worker_crash`, tried again."""


class ResourceError(Exception):
    """Too little memory for this window: retried with half the window, then a dead letter."""
