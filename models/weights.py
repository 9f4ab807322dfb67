"""The catalogue of weights: every file by name, with its sha256, licence and sources, in one cache folder.

In: names. Out: paths of files whose content is proven. Called by whoever loads a network (`path_of`), by
`make weights` and by hand: `python -m models.weights list | fetch [NAME…] | verify [NAME…]`. Knows nothing of
what is in the files.

The cache is `$REAFFERENCE_WEIGHTS`, else `~/.cache/reafference`. What lies there is not asked for again.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from models.errors import (
    CacheUnwritable,
    CatalogueInvalid,
    MissingWeight,
    ModelError,
    SourceFailed,
    UnknownWeight,
    WeightUnavailable,
)
from models.weight_sources import CHUNK_BYTES, Fetcher, Source

CATALOGUE_FILE = Path(__file__).with_name("weights.yaml")
CACHE_VARIABLE = "REAFFERENCE_WEIGHTS"
# What a disk says when it will not take a file: worth its own sentence, and no other source would help.
DISK_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
}

_log = logging.getLogger(__name__)


class Entry(BaseModel):
    """One file of the catalogue."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    file: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="its name in the cache")
    size: int = Field(gt=0, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str = Field(min_length=1, description="SPDX identifier")
    attribution: str = Field(min_length=1, description="whom to name, and any note on the licence")
    what: str = Field(min_length=1, description="one line for a person")
    embedded: bool = Field(description="part of the default set")
    sources: Annotated[list[Source], Field(min_length=1)]


class Catalogue:
    """Entries by name over one cache folder."""

    def __init__(self, entries: dict[str, Entry], cache_dir: Path) -> None:
        self.entries = entries
        self.cache_dir = cache_dir

    def entry(self, name: str) -> Entry:
        """The entry called `name`; UnknownWeight names the nearest one and all choices."""
        if name in self.entries:
            return self.entries[name]
        near = difflib.get_close_matches(name, self.entries, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownWeight(f"no weight is called {name!r}.{hint} There are: {', '.join(sorted(self.entries))}")

    def path_of(self, name: str) -> Path:
        """Where the file lies. MissingWeight, with the command to run, unless it is there in full size."""
        entry, path = self.entry(name), self._path(name)
        command = f"python -m models.weights fetch {name}"
        try:
            size = path.stat().st_size
        except OSError as error:
            raise MissingWeight(f"the weight {name!r} is not in {self.cache_dir}; get it with `{command}`") from error
        if size != entry.size:
            raise MissingWeight(f"{path} has {size:,} bytes, expected {entry.size:,}; mend it with `{command}`")
        return path

    def embedded(self) -> list[str]:
        """Names of the default set."""
        return [name for name, entry in self.entries.items() if entry.embedded]

    def verify(self, names: Sequence[str] = ()) -> dict[str, str | None]:
        """Hash each file (the default set when none is named): its fault, or None when it is whole."""
        return {name: self._fault(name) for name in names or self.embedded()}

    def fetch(self, names: Sequence[str] = (), tell: Callable[[str], None] = _log.info) -> dict[str, Path]:
        """Bring each file (the default set when none is named) into the cache, proven by its sha256.

        What is already whole is not asked for again. `tell` hears one sentence per step. Two processes that
        want the same file wait for each other. Raises UnknownWeight, WeightUnavailable (after trying every
        name) or CacheUnwritable.
        """
        wanted = {name: self.entry(name) for name in names or self.embedded()}
        paths, failed = {}, []
        with Fetcher() as fetcher:
            for name, entry in wanted.items():
                try:
                    paths[name] = self._fetch_locked(name, entry, fetcher, tell)
                except WeightUnavailable as error:
                    failed.append(str(error))
        if failed:
            raise WeightUnavailable("\n".join(failed))
        return paths

    def _fetch_locked(self, name: str, entry: Entry, fetcher: Fetcher, tell: Callable[[str], None]) -> Path:
        try:
            with self._locked(entry):
                return self._fetch_one(name, entry, fetcher, tell)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            raise CacheUnwritable(
                f"{self.cache_dir} cannot take {entry.file}, {entry.size:,} bytes: {error.strerror}; "
                f"make room or set {CACHE_VARIABLE} to a folder that can be written"
            ) from error

    def _path(self, name: str) -> Path:
        return self.cache_dir / self.entry(name).file

    def _fault(self, name: str) -> str | None:
        try:
            path = self.path_of(name)
            found = _sha256(path)
        except MissingWeight as error:
            return str(error)
        except OSError as error:
            return f"{self._path(name)} cannot be read: {error.strerror}"
        return None if found == self.entry(name).sha256 else f"{path} is damaged: its sha256 is {found}"

    @contextlib.contextmanager
    def _locked(self, entry: Entry) -> Iterator[None]:
        """Hold the file's lock. The kernel frees it when the holder dies, so a killed fetch blocks nobody."""
        path = self._path_beside(entry, "lock")
        if not self.cache_dir.is_dir():
            self.cache_dir.mkdir(parents=True, exist_ok=True)
        try:
            lock = path.open("w")
        except OSError:
            # A read-only cache that is already full of proven files needs no lock.
            if self._is_whole(entry):
                yield
                return
            raise
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _is_whole(self, entry: Entry) -> bool:
        path = self.cache_dir / entry.file
        return path.is_file() and path.stat().st_size == entry.size and _sha256(path) == entry.sha256

    def _path_beside(self, entry: Entry, ending: str) -> Path:
        return self.cache_dir / f".{entry.file}.{ending}"

    def _fetch_one(self, name: str, entry: Entry, fetcher: Fetcher, tell: Callable[[str], None]) -> Path:
        target = self.cache_dir / entry.file
        if self._is_whole(entry):
            tell(f"{name}: already here, whole")
            return target
        reasons = []
        for source in entry.sources:
            tell(f"{name}: {entry.size / 1e6:.1f} MB from {source}")
            try:
                self._proven(entry, source, fetcher, tell).replace(target)
            except SourceFailed as error:
                reasons.append(f"{source}: {error}")
                tell(f"{name}: {error}")
                continue
            finally:
                shutil.rmtree(self._path_beside(entry, "work"), ignore_errors=True)
            self._path_beside(entry, "part").unlink(missing_ok=True)
            tell(f"{name}: done, sha256 as catalogued. Licence {entry.licence}: {entry.attribution}")
            return target
        raise WeightUnavailable(f"no source gave {name} ({entry.file}): " + "; ".join(reasons))

    def _proven(self, entry: Entry, source: Source, fetcher: Fetcher, tell: Callable[[str], None]) -> Path:
        """The file from `source`, on the cache's own disk, with the right sha256; or SourceFailed."""
        partial, work = self._path_beside(entry, "part"), self._path_beside(entry, "work")
        resumed = source.kind == "url" and partial.exists()
        shutil.rmtree(work, ignore_errors=True)  # what a killed fetch left
        work.mkdir()
        path = fetcher.get(source, entry.size, partial, work)
        found = _sha256(path)
        if found == entry.sha256:
            return path
        path.unlink()
        if not resumed:
            raise SourceFailed(f"wrong sha256 {found}, expected {entry.sha256}; the file was deleted")
        tell(f"{entry.file}: the part that an earlier fetch left was wrong and is deleted; once more")
        return self._proven(entry, source, fetcher, tell)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_catalogue(path: Path) -> dict[str, Entry]:
    """Entries of a catalogue file; CatalogueInvalid says where it is wrong."""
    try:
        entries = TypeAdapter(dict[str, Entry]).validate_python(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise CatalogueInvalid(f"{path} is no valid catalogue: {error}") from error
    files = [entry.file for entry in entries.values()]
    twice = sorted({file for file in files if files.count(file) > 1})
    if twice:
        raise CatalogueInvalid(f"{path} gives {', '.join(twice)} to more than one name")
    return entries


def cache_dir() -> Path:
    """`$REAFFERENCE_WEIGHTS`, else `~/.cache/reafference`."""
    set_by_user = os.environ.get(CACHE_VARIABLE)
    return Path(set_by_user).expanduser() if set_by_user else Path.home() / ".cache" / "reafference"


@cache
def _entries() -> dict[str, Entry]:
    return read_catalogue(CATALOGUE_FILE)


def catalogue() -> Catalogue:
    """The shipped catalogue over the user's cache folder."""
    return Catalogue(_entries(), cache_dir())


def entry(name: str) -> Entry:
    """The catalogue's entry; raises UnknownWeight."""
    return catalogue().entry(name)


def path_of(name: str) -> Path:
    """Path of a fetched file; raises UnknownWeight, or MissingWeight with the command that gets it."""
    return catalogue().path_of(name)


def sha256_of(name: str) -> str:
    """The sha256 that the catalogue promises, 64 hex digits; raises UnknownWeight."""
    return entry(name).sha256


def fetch(names: Sequence[str] = (), tell: Callable[[str], None] = _log.info) -> dict[str, Path]:
    """Bring files into the cache: see `Catalogue.fetch`."""
    return catalogue().fetch(names, tell)


def verify(names: Sequence[str] = ()) -> dict[str, str | None]:
    """Hash files in the cache: see `Catalogue.verify`."""
    return catalogue().verify(names)


def _main() -> None:
    import typer
    from rich.console import Console
    from rich.table import Table

    app = typer.Typer(add_completion=False, help="Weights: what there is, fetch it, check it.")
    console = Console()
    names_argument = typer.Argument(default=None, help="names from `list`; none = the default set")

    @app.command("list")
    def list_() -> None:
        """Show every file with its size, licence and whether it is in the cache."""
        table = Table(title=f"cache: {cache_dir()}")
        for heading in ("name", "MB", "licence", "default", "here"):
            table.add_column(heading, no_wrap=True, justify="right" if heading == "MB" else "left")
        table.add_column("what, by whom")
        for name, listed in _entries().items():
            here = (cache_dir() / listed.file).exists()
            yes_no = ["yes" if flag else "no" for flag in (listed.embedded, here)]
            megabytes, what = f"{listed.size / 1e6:.1f}", f"{listed.what} ({listed.attribution})"
            table.add_row(name, megabytes, listed.licence, *yes_no, what)
        console.print(table)

    @app.command("fetch")
    def fetch_(names: list[str] | None = names_argument) -> None:
        """Bring files into the cache, each checked against its sha256."""
        fetch(names or (), tell=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))

    @app.command("verify")
    def verify_(names: list[str] | None = names_argument) -> None:
        """Read and hash files in the cache; exit code 1 when one is missing or damaged."""
        faults = verify(names or ())
        for name, fault in faults.items():
            console.print(f"{name}: {fault or 'whole'}", markup=False, highlight=False, soft_wrap=True)
        if any(faults.values()):
            raise typer.Exit(1)

    try:
        app()
    except ModelError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    _main()
