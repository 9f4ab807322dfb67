"""Files that appear whole or not at all on a POSIX file system: the Committer made of hard links and renames.

In: bytes and names. Out: files under one output folder. Called by task code inside workers and by the command line.
Every write goes to a private staging place, is fsynced, and is then published by one atomic operation that never
replaces what is there: the second writer of the same thing loses harmlessly, so zombies and retries can do no damage.
Only POSIX calls; knows nothing of clips, operators or Ray.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from data_jobs.runs.lock import RunLock
from data_jobs.runs.place_errors import place_errors

# Everything private to the machinery starts with a dot and is never part of the published tree.
ARTIFACTS = ".artifacts"
STAGING = ".staging"


class Store:
    """One output folder on a POSIX file system (committer.Committer says what each method promises)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Create the private folders; RunError if the place cannot be written."""
        with place_errors(self.root):
            for name in (ARTIFACTS, STAGING):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe = self.root / STAGING / f"probe-{uuid.uuid4().hex}"
            probe.write_bytes(b"writable")
            probe.unlink()

    def sweep(self) -> int:
        """Remove what dead writers left in staging; returns how many entries. Only while holding the run lock."""
        entries = list((self.root / STAGING).iterdir())
        for entry in entries:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
        return len(entries)

    def lock(self) -> RunLock:
        """A lock that the kernel drops when its holder dies."""
        return RunLock(self.root)

    def ledger_path(self, run: str) -> Path:
        """Beside the run's results."""
        return self.root / run / "ledger.sqlite"

    # --- artifacts: one file per content key --------------------------------------------------------------------

    def artifact(self, key: str) -> Path:
        """Where the artifact of this key lies, whether or not it exists yet."""
        return self.root / ARTIFACTS / key[:2] / f"{key}.parquet"

    def has_artifact(self, key: str) -> bool:
        """Whether the artifact is there."""
        return self.artifact(key).exists()

    def publish_artifact(self, key: str, data: bytes) -> bool:
        """Publish `data` under `key`; False if another writer was first (its bytes stay)."""
        return self._publish(self.artifact(key), data)

    # --- the published tree --------------------------------------------------------------------------------------

    def publish_file(self, name: str, data: bytes) -> bool:
        """Write, fsync, then link into place without replacing."""
        return self._publish(self.root / name, data)

    def publish_folder(self, name: str, files: Mapping[str, bytes], links: Mapping[str, str]) -> bool:
        """Publish a folder by one rename: `files` are written, `links` become hard links to artifacts.

        Returns False if the folder is already there (folders are never empty, so the rename cannot replace one).
        """
        final = self.root / name
        with place_errors(self.root):
            final.parent.mkdir(parents=True, exist_ok=True)
            staged = self._staged()
            staged.mkdir()
            for link, key in links.items():
                link_or_copy(self.artifact(key), staged / link)
            for file, data in files.items():
                write_durably(staged / file, data)
            try:
                staged.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(staged, ignore_errors=True)
                return False
        return True

    def exists(self, name: str) -> bool:
        """Whether the file or folder is there."""
        return (self.root / name).exists()

    def read(self, name: str) -> bytes:
        """The file's bytes; FileNotFoundError if there is none."""
        return (self.root / name).read_bytes()

    def files(self, name: str) -> list[str]:
        """File names in a folder, sorted."""
        folder = self.root / name
        return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []

    def folders(self, run: str) -> list[str]:
        """Published folders, by listing two levels of names only."""
        found = []
        for parent in _subfolders(self.root / run):
            found += [f"{run}/{parent.name}/{unit.name}" for unit in os.scandir(parent.path) if "=" in unit.name]
        return sorted(found, key=lambda name: name.split("/"))

    def published(self, run: str) -> Iterator[tuple[str, str]]:
        """Names and hashes of the published tree, from the bytes on the disk."""
        for path in published_files(self.root / run):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            yield path.relative_to(self.root / run).as_posix(), content

    def orphans(self) -> list[str]:
        """None: unpublished files lie in staging, which `sweep` empties."""
        return []

    # --- records of the run itself, which may be replaced ----------------------------------------------------------

    def replace_file(self, name: str, data: bytes) -> None:
        """Write beside, then rename over."""
        replace_file(self.root / name, data)

    def replace_folder(self, name: str, source: Path) -> None:
        """Copy whole, then rename; an older folder makes room. A kill in between leaves none, never a half one."""
        final, fresh, old = self.root / name, self._staged(), self._staged()
        with place_errors(self.root):
            shutil.copytree(source, fresh, copy_function=copy_durably)
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():
                final.rename(old)
            fresh.rename(final)

    @contextmanager
    def local_folder(self, name: str) -> Iterator[Path]:
        """The folder itself, or an empty one in its stead."""
        if (self.root / name).is_dir():
            yield self.root / name
            return
        with tempfile.TemporaryDirectory() as empty:
            yield Path(empty)

    def remove(self, name: str) -> None:
        """Delete one file."""
        (self.root / name).unlink(missing_ok=True)

    def _publish(self, final: Path, data: bytes) -> bool:
        with place_errors(self.root):
            final.parent.mkdir(parents=True, exist_ok=True)
            staged = self._staged()
            write_durably(staged, data)
            try:
                os.link(staged, final)
            except FileExistsError:
                return False
            finally:
                staged.unlink(missing_ok=True)
        return True

    def _staged(self) -> Path:
        return self.root / STAGING / f"{os.getpid()}-{uuid.uuid4().hex}"


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and force it to disk before anything can point at it."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def link_or_copy(source: Path, target: Path) -> None:
    """Hard link where the file system can, else a durable copy."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        copy_durably(source, target)


def copy_durably(source: str | Path, target: str | Path) -> None:
    """A copy that is on the disk before anything can point at it."""
    write_durably(Path(target), Path(source).read_bytes())


def published_files(run_folder: Path) -> Iterator[Path]:
    """Every file of the published tree of one run, sorted: clip folders and dead letters, nothing else."""
    for pattern in ("dead_letter/*.json", "*=*/*=*/*"):
        yield from sorted(path for path in run_folder.glob(pattern) if path.is_file())


def _subfolders(run_folder: Path) -> list[os.DirEntry[str]]:
    if not run_folder.is_dir():
        return []
    return [entry for entry in os.scandir(run_folder) if "=" in entry.name and entry.is_dir()]


def replace_file(path: Path, data: bytes) -> None:
    """Write a file that may be there already, whole or not at all. For records of the run itself, not for results."""
    with place_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        write_durably(staged, data)
        staged.replace(path)
