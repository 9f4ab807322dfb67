"""From what the user named to the list of files that will be probed, in one fixed order.

In: folders and files. Out: `Found` rows, readable or not; nothing that looks like a video is left out in
silence. Called by manifest.py. Opens no file: whether a found entry really is a video is probe.py's
judgement.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_jobs.runs.errors import RunError

# Containers that carry head-mounted, phone and robot footage; a file named by hand may have any extension.
VIDEO_EXTENSIONS = frozenset(
    {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".3gp", ".wmv"}
)
# What our own runs write: a run started inside its input folder must not eat its output.
OWN_OUTPUT_PREFIX = "run_id="


@dataclass(frozen=True, slots=True)
class Found:
    """One directory entry that is, or is named like, a video."""

    path: Path  # absolute, links not resolved
    name: str  # relative to the input it was found under, POSIX style; a file named by hand keeps its file name
    size_bytes: int  # -1 where the entry cannot be inspected (dangling or looping link)
    mtime_ns: int  # -1 likewise


def discover(inputs: Sequence[Path]) -> list[Found]:
    """Every candidate video under `inputs`, in the order given and sorted within a folder; a path is listed
    once.

    Folders are walked to the bottom through links, each real folder once. Hidden entries and our own output
    are passed over. An entry that is named like a video is listed even when it is a folder, a pipe or a
    broken link. Raises RunError when an input does not exist, cannot be listed, or when no candidate is found
    at all.
    """
    found: dict[Path, Found] = {}
    for given in inputs:
        root = Path(os.path.abspath(given))  # noqa: PTH100 - resolve() would follow the link that names the file
        if not os.path.lexists(root):
            raise RunError(f"input {given} does not exist; give a folder of videos or a video file")
        entries = _walk(root, root, set()) if root.is_dir() else iter([_found(root, root.name)])
        for entry in entries:
            found.setdefault(entry.path, entry)
    if not found:
        named = ", ".join(str(path) for path in inputs) or "the empty list of inputs"
        raise RunError(f"no video found in {named}; looked for {' '.join(sorted(VIDEO_EXTENSIONS))}")
    return list(found.values())


def _walk(folder: Path, root: Path, seen: set[tuple[int, int]]) -> Iterator[Found]:
    """Candidates under one folder, depth first in name order; `seen` holds the real folders already
    entered."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names only: iterdir() would order by whole paths
    except OSError as error:
        if folder == root:
            raise RunError(f"input folder {root} cannot be listed: {error.strerror}") from error
        yield _found(folder, folder.relative_to(root).as_posix())
        return
    for name in names:
        if name.startswith((".", OWN_OUTPUT_PREFIX)):
            continue
        path = folder / name
        if path.suffix.lower() in VIDEO_EXTENSIONS:
            yield _found(path, path.relative_to(root).as_posix())
        elif path.is_dir():
            yield from _walk(path, root, seen)


def _found(path: Path, name: str) -> Found:
    try:
        status = path.stat()
    except OSError:
        return Found(path, name, -1, -1)
    return Found(path, name, status.st_size, status.st_mtime_ns)
