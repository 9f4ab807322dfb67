"""Files that appear whole or not at all: staging, artifacts, published folders, dead letters, the tree hash.

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
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_jobs.runs.errors import RunError

# Conditions of the place, not of the clip: they end the run instead of filling the dead letter with innocents.
PLACE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}

# Everything private to the machinery starts with a dot and is never part of the published tree.
ARTIFACTS = ".artifacts"
STAGING = ".staging"


class Store:
    """One output folder on a POSIX file system: `artifacts by key` + `published folders` + `published files`."""

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

    # --- artifacts: one file per content key --------------------------------------------------------------------

    def artifact_path(self, key: str) -> Path:
        """Where the artifact of this key lies, whether or not it exists yet."""
        return self.root / ARTIFACTS / key[:2] / f"{key}.parquet"

    def publish_artifact(self, key: str, data: bytes) -> bool:
        """Publish `data` under `key`; False if another writer was first (its bytes stay)."""
        return self.publish_file(self.artifact_path(key).relative_to(self.root), data)

    # --- the published tree --------------------------------------------------------------------------------------

    def publish_file(self, target: Path, data: bytes) -> bool:
        """Write, fsync, then link into place without replacing. `target` is relative to the root."""
        final = self.root / target
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

    def publish_folder(self, target: Path, files: Mapping[str, bytes], links: Mapping[str, Path]) -> bool:
        """Publish a folder by one rename: `files` are written, `links` are hard links to existing files.

        Returns False if the folder is already there (folders are never empty, so the rename cannot replace one).
        """
        final = self.root / target
        with place_errors(self.root):
            final.parent.mkdir(parents=True, exist_ok=True)
            staged = self._staged()
            staged.mkdir()
            for name, source in links.items():
                link_or_copy(source, staged / name)
            for name, data in files.items():
                write_durably(staged / name, data)
            try:
                staged.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(staged, ignore_errors=True)
                return False
        return True

    def _staged(self) -> Path:
        return self.root / STAGING / f"{os.getpid()}-{uuid.uuid4().hex}"


class place_errors:
    """Turn 'the place is full, read-only or forbidden' into one RunError sentence; other errors pass."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Translate the errnos of PLACE_ERRNOS and of a file standing where a folder is needed."""
        if isinstance(error, OSError) and error.errno in PLACE_ERRNOS:
            raise RunError(f"cannot write to {self.place}: {os.strerror(error.errno or 0).lower()}") from error
        if isinstance(error, NotADirectoryError | FileExistsError):
            raise RunError(f"cannot write to {self.place}: a file stands where a folder is needed") from error


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
        write_durably(target, source.read_bytes())


def published_files(run_folder: Path) -> Iterator[Path]:
    """Every file of the published tree of one run, sorted: clip folders and dead letters, nothing else."""
    for pattern in ("dead_letter/*.json", "video_id=*/clip_id=*/*"):
        yield from sorted(path for path in run_folder.glob(pattern) if path.is_file())


def tree_sha256(run_folder: Path) -> str:
    """Hash of names and bytes of the published tree: equal for equal input, config and weights."""
    tree = hashlib.sha256()
    for path in published_files(run_folder):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        tree.update(f"{path.relative_to(run_folder).as_posix()}\0{content}\n".encode())
    return tree.hexdigest()


def replace_file(path: Path, data: bytes) -> None:
    """Write a file that may be there already, whole or not at all. For records of the run itself, not for results."""
    with place_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        write_durably(staged, data)
        staged.replace(path)
