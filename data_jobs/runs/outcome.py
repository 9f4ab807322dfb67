"""How a unit of work ends: done, or a dead letter with its cause. Nothing disappears with a warning.

Made by guard.py and at manifest time, written by the job, read by status, report and retry.
"""

from __future__ import annotations

import errno
import hashlib
import re
import traceback
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from data_jobs.runs.errors import CommandDied, InputError, OverdueError, ResourceError, RunError, TransientError
from data_jobs.runs.keys import pretty_json

Cause = Literal["input", "transient", "resource", "bug", "worker_crash", "timeout"]

# What a retry cannot change goes to the dead letter at once.
FINAL_CAUSES: frozenset[Cause] = frozenset({"input", "bug"})

# Errors of the operating system that are known to pass.
TRANSIENT_ERRNOS = {errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE, errno.ECONNRESET}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one attempt failed. Holds nothing that varies between equal runs (no pids, addresses or times)."""

    cause: Cause
    error_type: str
    message: str
    traceback_sha256: str  # over file names, functions and lines of our own frames; "" when there is no traceback

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Judge an exception. RunError is not a failure of the unit: it is re-raised."""
        if isinstance(error, RunError):
            raise error
        return cls(cause_of(error), type(error).__name__, plain_message(error), traceback_sha256(error))


def cause_of(error: BaseException) -> Cause:
    """Class of cause of an exception: whose fault it is, and so whether trying again can help."""
    if isinstance(error, InputError):
        return "input"
    if isinstance(error, OverdueError):
        return "timeout"
    if isinstance(error, CommandDied):
        return "worker_crash"
    # torch.OutOfMemoryError by name: this module must not import torch.
    if isinstance(error, ResourceError | MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "resource"
    if isinstance(error, TransientError | ConnectionError | TimeoutError):
        return "transient"
    if isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS:
        return "transient"
    return "bug"


def plain_message(error: BaseException) -> str:
    """The exception's text on one line, without the addresses that differ from process to process."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"0x[0-9a-f]{6,}", "0x…", text)[:2000]


def traceback_sha256(error: BaseException) -> str:
    """Hash of the call path (file name, function, line), so that equal failures group together."""
    frames = traceback.extract_tb(error.__traceback__)
    path = "\n".join(f"{frame.filename.rsplit('/', 2)[-1]}:{frame.name}:{frame.lineno}" for frame in frames)
    return hashlib.sha256(path.encode()).hexdigest() if frames else ""


class DeadLetter(BaseModel):
    """One thing that could not be done, as it lies in `dead_letter/*.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    video_path: str
    video_id: str | None
    clip_id: str | None  # None: the whole file was refused before it became clips
    stage: str
    cause: Cause
    error_type: str
    message: str
    attempts: int
    traceback_sha256: str
    repro: str

    def to_bytes(self) -> bytes:
        """Deterministic JSON for human readers."""
        return pretty_json(self.model_dump())
