"""Where results live, from what a person typed: a folder's path, or the URL of an object store.

In: `--output` or `--run`. Out: the Committer behind it, or a Run within one. Called by jobs and by the command line;
the only file that knows which kinds of places there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_jobs.runs.committer import Committer, tree_hash
from data_jobs.runs.errors import RunError
from data_jobs.runs.object_store import SCHEMES, ObjectStore
from data_jobs.runs.store import Store

Where = Path | str  # a str is always a URL


@dataclass(frozen=True, slots=True)
class Run:
    """One run in a place: its name directly below the root, `run_id=ID`."""

    store: Committer
    name: str

    def at(self, name: str) -> str:
        """The name of something in this run, relative to the place's root."""
        return f"{self.name}/{name}"

    def read(self, name: str) -> bytes:
        """Bytes of a published file of this run; FileNotFoundError if there is none."""
        return self.store.read(self.at(name))

    def letters(self) -> list[str]:
        """File names of the dead letters, sorted."""
        return [name for name in self.store.files(self.at("dead_letter")) if name.endswith(".json")]

    def tree_sha256(self) -> str:
        """Hash of names and bytes of the published tree."""
        return tree_hash(self.store.published(self.name))


def where_of(text: str) -> Where:
    """A path or a URL (`s3://bucket/prefix`); RunError for a kind of URL that is not known."""
    if "://" not in text:
        return Path(text)
    if text.partition("://")[0] not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise RunError(f"cannot keep results at {text}: choose a local folder or one of {known}")
    return text.rstrip("/")


def below(where: Where, name: str) -> Where:
    """The place called `name` inside another."""
    return where / name if isinstance(where, Path) else f"{where}/{name}"


def open_store(output: Where) -> Committer:
    """The place's committer. Opens nothing yet."""
    return Store(output) if isinstance(output, Path) else ObjectStore(output)


def open_run(run: Where) -> Run:
    """A run by its path or URL, whether or not it exists."""
    if isinstance(run, Path):
        return Run(Store(run.absolute().parent), run.absolute().name)
    root, _, name = run.rpartition("/")
    return Run(ObjectStore(root), name)
