"""`<any key>:external`: a program of the user's, in its own environment, on one clip at a time. Writes the key's table.

This is how HaMeR, FoundationPose or Fast3R plug in, whose licences and environments are not ours. The program gets a
folder (clip_folder.py) and must write one Parquet file (returned.py). Run by task.py. Whatever it does ends as a
table or as a dead letter: its exit code, a signal, time, no output, output in the wrong place or of the wrong form.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BaseModel, Field, model_validator

from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.operators.clip_folder import Pictures, write_clip_folder
from data_jobs.egoworld.operators.returned import Malformed, read_returned
from data_jobs.egoworld.records import Clip
from data_jobs.runs.errors import CommandDied, InputError, OverdueError, ResourceError, RunError, TransientError
from data_jobs.runs.leash import KILLED, last_line, run_leashed
from data_jobs.runs.strict import Strict

# sysexits.h: the words in which a program can say whose fault it was.
EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE, EX_TEMPFAIL = 65, 66, 69, 75
SIGKILL_CODE = KILLED + 9  # what the kernel does when memory runs out

PREFIX = "reafference-clip-"
OUTPUT = "output.parquet"
Key = Literal["sam2", "hamer", "foundationpose", "dex_retarget"]


class ExternalParams(Strict):
    """Parameters of every `external` backend."""

    command: tuple[str, ...] = Field(min_length=1, description="words, no shell; {clip} and {output} are filled in")
    licence: str = Field(min_length=1, description="of the program and its weights, as an SPDX expression")
    version: str = Field("1", description="raise it when the program changes what it writes")
    upstream: tuple[Key, ...] = Field((), description="operators whose tables it reads")
    pictures: Pictures = Field("png", description="how frames are handed over; none: it reads tables only")
    picture_interval_s: float = Field(0.0, ge=0, description="seconds between pictures; 0: every frame")
    weights: dict[str, str] = Field(default_factory=dict, description="file → sha256, checked before the first clip")
    env: dict[str, str] = Field(default_factory=dict, description="added to the environment")
    runtime_env: dict[str, Any] | None = Field(
        None, description="a Ray runtime_env (pip, uv, conda, image_uri, …) to run the command in; engine ray only"
    )
    timeout_s: float = Field(240.0, gt=0, description="for one clip; guard.timeout_s must be longer")

    @model_validator(mode="after")
    def _has_a_place_for_the_output(self) -> ExternalParams:
        if not any("{clip}" in word or "{output}" in word for word in self.command):
            raise ValueError("command must hold {clip} or {output}, or it cannot know what to work on")
        return self


class External:
    """Owns nothing but a temporary folder per clip."""

    Params: ClassVar[type[BaseModel]] = ExternalParams
    FOREIGN: ClassVar[tuple[str, ...]] = ()
    spec: ClassVar[OperatorSpec]

    def __init__(self, params: ExternalParams) -> None:
        self._params = params

    @classmethod
    def specified(cls, params: ExternalParams) -> OperatorSpec:
        """Licence and upstream are the user's to say."""
        return replace(cls.spec, licence=params.licence, upstream=tuple(params.upstream))

    @staticmethod
    def weights(params: ExternalParams) -> tuple[str, ...]:
        """None of the catalogue: the program's own files are checked in `load`."""
        return ()

    def load(self) -> None:
        """Check that the program and its weights are there; RunError says what is not."""
        program = self._params.command[0]
        # In a runtime_env the program may be one that only that environment has.
        if self._params.runtime_env is None and shutil.which(program) is None:
            raise RunError(f"{self.spec.name}: there is no program {program!r}; give its path, or install it")
        for name, sha256 in self._params.weights.items():
            _check_weight(self.spec.name, Path(name), sha256)
        _sweep()

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """The program's table. Raises by what the program did; see the module's head."""
        with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as name:
            folder = Path(name)
            tables = {TABLE_OF[key]: rows for key, rows in upstream.items()}
            frames = write_clip_folder(
                folder,
                clip,
                window_frames,
                self.spec.table,
                tables,
                self._params.pictures,
                self._params.picture_interval_s,
            )
            before = {path for path in folder.rglob("*") if path.is_file()}
            (folder / "work").mkdir()
            self._execute(folder)
            output = folder / OUTPUT
            if not output.is_file() or output.is_symlink():
                raise Malformed(self._wrong_place(folder, before, output))
            try:
                return read_returned(output, self.spec.table, clip, frames)
            except Malformed as error:
                raise Malformed(f"{self.spec.name}: {error}") from error

    def _execute(self, folder: Path) -> None:
        places = {"{clip}": str(folder), "{output}": str(folder / OUTPUT)}
        words = [_filled(word, places) for word in self._params.command]
        log = folder / "log.txt"
        leash = (words, folder / "work", self._params.env, log, self._params.timeout_s)
        code = self._in_environment(*leash) if self._params.runtime_env else run_leashed(*leash)
        if code is None:
            raise OverdueError(f"{self.spec.name}: no end within {self._params.timeout_s:g} s{_said(log, folder)}")
        if code:
            raise _judged(code, f"{self.spec.name}: {_how(code)}{_said(log, folder)}")

    def _in_environment(self, *leash: Any) -> int | None:
        from data_jobs.runs.cluster import call_in_environment  # here: nobody else below a guard needs Ray

        code: int | None = call_in_environment(self._params.runtime_env or {}, run_leashed, *leash)
        return code

    def _wrong_place(self, folder: Path, before: set[Path], output: Path) -> str:
        said = _said(folder / "log.txt", folder)
        if output.exists() or output.is_symlink():
            kind = "a link" if output.is_symlink() else "a folder"
            return f"{self.spec.name}: {{output}} must be a file, the program made {kind} there{said}"
        new = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and path not in before and path.name != "log.txt"
        )
        wrote = f"; it wrote {', '.join(new[:5])} instead" if new else ""
        return f"{self.spec.name}: the program ended well but did not write {{output}} (CLIP/{OUTPUT}){wrote}{said}"

    def close(self) -> None:
        """Nothing is held between clips."""


def _judged(code: int, message: str) -> Exception:
    """The class of cause that an exit code stands for."""
    if code in (EX_DATAERR, EX_NOINPUT):
        return InputError(message)
    if code in (EX_UNAVAILABLE, EX_TEMPFAIL):
        return TransientError(message)
    if code == SIGKILL_CODE:
        return ResourceError(message)
    return CommandDied(message) if _is_signal(code) else ProgramFailed(message)


class ProgramFailed(Exception):
    """The program ended with an exit code that says nothing more: counts as a bug."""


def _how(code: int) -> str:
    if code == SIGKILL_CODE:
        return "the program was killed (SIGKILL: out of memory?)"
    if _is_signal(code):
        return f"the program died of {signal.Signals(code - KILLED).name}"
    return f"the program ended with exit code {code}"


def _is_signal(code: int) -> bool:
    return code - KILLED in set(signal.Signals)


def _said(log: Path, folder: Path) -> str:
    line = last_line(log) if log.exists() else ""
    return f"; it said: {line.replace(str(folder), 'CLIP')}" if line else ""


def _filled(word: str, places: Mapping[str, str]) -> str:
    for name, path in places.items():
        word = word.replace(name, path)
    return word


def _check_weight(operator: str, path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(
            f"{operator}: the weight {path} cannot be read ({error.strerror}); see its own documentation"
        ) from error
    if found != sha256.lower():
        raise RunError(f"{operator}: {path} has sha256 {found}, the config says {sha256}; get the right file")


def _sweep() -> None:
    """Remove the folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


TABLE_OF = {
    "hamer": "hand_pose",
    "sam2": "masks",
    "foundationpose": "object_pose",
    "dex_retarget": "mapping",
    "fast3r": "fast3r_pose",
}


def _spec(key: str) -> OperatorSpec:
    preload = ("data_jobs.egoworld.operators.external",)
    return OperatorSpec(key, "external", 1, TABLE_OF[key], "said by its parameters", (), preload)


class ExternalHands(External):
    """`hamer:external`."""

    spec = _spec("hamer")


class ExternalMasks(External):
    """`sam2:external`."""

    spec = _spec("sam2")


class ExternalObjectPose(External):
    """`foundationpose:external`."""

    spec = _spec("foundationpose")


class ExternalMapping(External):
    """`dex_retarget:external`."""

    spec = _spec("dex_retarget")


class ExternalCameraPose(External):
    """`fast3r:external`."""

    spec = _spec("fast3r")


EXTERNALS = (ExternalHands, ExternalMasks, ExternalObjectPose, ExternalMapping, ExternalCameraPose)
