"""What a place for results must be able to do, whatever it is made of. Implemented by store.py and object_store.py.

In: names relative to the place's root (POSIX style) and bytes. Out: published things that exist whole or not at all.
Publishing never replaces: the second writer of the same name loses harmlessly. Used by task code in workers, by the
driver and by the command line, which get theirs from places.py. Knows nothing of clips, operators or Ray.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol


class Committer(Protocol):
    """One output place. A run is a name directly below its root."""

    def prepare(self) -> None:
        """Make the place ready; RunError if it cannot be written or cannot keep the promise of never replacing."""

    def sweep(self) -> int:
        """Remove what dead writers left unpublished, where that is safe; returns how many. Only under `lock`."""

    def lock(self) -> AbstractContextManager[object]:
        """At most one run at a time; RunError on entry if another one holds the place."""

    def ledger_path(self, run: str) -> Path:
        """Where the run's SQLite ledger lies: always a local file, its folder exists after `prepare`."""

    def has_artifact(self, key: str) -> bool:
        """Whether the artifact of this content key is published."""

    def artifact(self, key: str) -> Any:
        """The published artifact as something pyarrow reads: a path or a buffer."""

    def publish_artifact(self, key: str, data: bytes) -> bool:
        """Publish `data` under `key`; False if another writer was first (its bytes stay)."""

    def publish_file(self, name: str, data: bytes) -> bool:
        """Publish one file; False if it is there already."""

    def publish_folder(self, name: str, files: Mapping[str, bytes], links: Mapping[str, str]) -> bool:
        """Publish a folder of `files` and of artifacts (`links`: file name → content key); False if it is there."""

    def exists(self, name: str) -> bool:
        """Whether a file or folder of this name is published."""

    def read(self, name: str) -> bytes:
        """Bytes of a published file, also of one in a published folder; FileNotFoundError if there is none."""

    def files(self, name: str) -> list[str]:
        """Names of the files right inside a folder, sorted; empty if there is none."""

    def folders(self, run: str) -> list[str]:
        """Published folders of a run (`run/…=PARENT/…=UNIT`), sorted."""

    def published(self, run: str) -> Iterator[tuple[str, str]]:
        """(name relative to the run, sha256) of every file of the published tree: dead letters, then folders."""

    def replace_file(self, name: str, data: bytes) -> None:
        """Write a record of the run itself, whole or not at all; replaces."""

    def replace_folder(self, name: str, source: Path) -> None:
        """Put the files of a local folder under `name`, all of them or none; replaces."""

    def local_folder(self, name: str) -> AbstractContextManager[Path]:
        """A folder put by `replace_folder`, readable as a local one; an empty one if there is none."""

    def remove(self, name: str) -> None:
        """Take back one published file; nothing if it is gone. Only under `lock`."""

    def orphans(self) -> list[str]:
        """Stored data that nothing published names: what writers left that died half-way. Harmless."""


def tree_order(name: str) -> tuple[bool, list[str]]:
    """Sort key of names in a run's tree: dead letters first, then by the parts of the path."""
    return not name.startswith("dead_letter/"), name.split("/")


def tree_hash(files: Iterable[tuple[str, str]]) -> str:
    """Hash of (name, sha256) pairs in `tree_order`: equal for equal input, config and weights, wherever they lie."""
    tree = hashlib.sha256()
    for name, sha256 in files:
        tree.update(f"{name}\0{sha256}\n".encode())
    return tree.hexdigest()
