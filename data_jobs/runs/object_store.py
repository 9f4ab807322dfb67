"""Results in an object store, where nothing can be renamed: content-addressed data, then one conditional commit.

The Committer for S3 through fsspec. Data goes to `.objects/SHA256` first; then one `PUT … If-None-Match: *` of a small
commit, which names the data by hash, makes an artifact (`.artifacts/KEY.json`) or a folder (`…/clip_id=ID/commit.json`)
exist. A writer that dies before the commit leaves data that nothing names; the store tells the second committer so.
Readers look only at commits. Called by places.py; needs the package s3fs, imported with the first request.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_jobs.runs.committer import tree_order
from data_jobs.runs.errors import RunError
from data_jobs.runs.keys import canonical_json
from data_jobs.runs.lease import Lease
from data_jobs.runs.objects import Objects

SCHEMES = ("s3",)

OBJECTS, ARTIFACTS, COMMIT = ".objects", ".artifacts", "commit.json"


class ObjectStore:
    """One prefix of a bucket, `s3://bucket/prefix` (committer.Committer says what each method promises)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.objects = Objects(url)

    def prepare(self) -> None:
        """Prove by trying that the place can be written and that the store refuses a second conditional put.

        RunError otherwise: a store that ignores the condition would let two writers replace each other.
        """
        probe = f".staging/probe-{uuid.uuid4().hex}"
        if not self.objects.create(probe, b"first") or self.objects.create(probe, b"second"):
            raise RunError(f"{self.url} ignores `If-None-Match: *` on PUT; use an object store that honours it")
        self.objects.remove(probe)
        self._state().mkdir(parents=True, exist_ok=True)

    def sweep(self) -> int:
        """Nothing is removed: a slow writer may still be about to commit the data. `orphans` tells of it."""
        return 0

    def lock(self) -> Lease:
        """A lease that its holder keeps alive and that another process may take over once it stands still."""
        return Lease(self.objects, self.url)

    def ledger_path(self, run: str) -> Path:
        """In this machine's cache: SQLite must not lie on an object store, and the ledger can be rebuilt."""
        return self._state() / f"{run}.sqlite"

    def _state(self) -> Path:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "reafference" / "ledgers" / hashlib.sha256(self.url.encode()).hexdigest()[:16]

    # --- artifacts ------------------------------------------------------------------------------------------------

    def has_artifact(self, key: str) -> bool:
        """Whether the artifact's commit is there."""
        return self.objects.exists(_artifact(key))

    def artifact(self, key: str) -> pa.BufferReader:
        """The artifact's bytes, checked against their hash."""
        return pa.BufferReader(self._data(json.loads(self.objects.read(_artifact(key)))))

    def publish_artifact(self, key: str, data: bytes) -> bool:
        """Put the data, then commit it under the key; False if another writer was first."""
        return self.objects.create(_artifact(key), canonical_json(self._put(data)).encode())

    # --- the published tree -----------------------------------------------------------------------------------------

    def publish_file(self, name: str, data: bytes) -> bool:
        """One conditional put: a single object needs no commit beside it."""
        return self.objects.create(name, data)

    def publish_folder(self, name: str, files: Mapping[str, bytes], links: Mapping[str, str]) -> bool:
        """Put `files`, look up `links`, then commit all of them by one conditional put."""
        return self.objects.create(f"{name}/{COMMIT}", self._commit_of(files, links))

    def _commit_of(self, files: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
        held = {name: json.loads(self.objects.read(_artifact(key))) for name, key in links.items()}
        held |= {name: self._put(data) for name, data in files.items()}
        return canonical_json({"files": held}).encode()

    def exists(self, name: str) -> bool:
        """Whether a file, or a folder's commit, is there."""
        return self.objects.exists(name) or self.objects.exists(f"{name}/{COMMIT}")

    def read(self, name: str) -> bytes:
        """A single object, or a file that its folder's commit names."""
        folder, _, file = name.rpartition("/")
        try:
            held = self._held(folder)
        except FileNotFoundError:
            return self.objects.read(name)
        if file not in held:
            raise FileNotFoundError(f"{name} is not named in {folder}/{COMMIT}")
        return self._data(held[file])

    def files(self, name: str) -> list[str]:
        """File names that the folder's commit names; of a folder without commit, its objects."""
        try:
            return sorted(self._held(name))
        except FileNotFoundError:
            return sorted(
                key.rpartition("/")[2] for key in self.objects.names(name) if key.count("/") == name.count("/") + 1
            )

    def folders(self, run: str) -> list[str]:
        """Committed folders, from one listing."""
        found = [key.removesuffix(f"/{COMMIT}") for key in self.objects.names(run) if _is_commit(key, run)]
        return sorted(found, key=lambda name: name.split("/"))

    def published(self, run: str) -> Iterator[tuple[str, str]]:
        """Names and hashes as committed; the commits are fetched many at a time, the data is not."""
        names = self.objects.names(run)
        letters = [key for key in names if key.startswith(f"{run}/dead_letter/") and key.endswith(".json")]
        pairs = [(key, hashlib.sha256(data).hexdigest()) for key, data in self.objects.read_all(letters).items()]
        for key, data in self.objects.read_all([key for key in names if _is_commit(key, run)]).items():
            folder = key.removesuffix(COMMIT)
            pairs += [(folder + file, held["sha256"]) for file, held in json.loads(data)["files"].items()]
        relative = ((name.removeprefix(f"{run}/"), sha256) for name, sha256 in pairs)
        yield from sorted(relative, key=lambda pair: tree_order(pair[0]))

    def orphans(self) -> list[str]:
        """Data objects that no commit names: left by a writer that died, lost the race, or is still at work."""
        names = self.objects.names("")
        commits = [key for key in names if key.startswith(f"{ARTIFACTS}/") or key.endswith(f"/{COMMIT}")]
        named: set[str] = set()
        for data in self.objects.read_all(commits).values():
            commit = json.loads(data)
            named |= {held["sha256"] for held in commit.get("files", {"": commit}).values()}
        return [key for key in names if key.startswith(f"{OBJECTS}/") and key.rpartition("/")[2] not in named]

    # --- records of the run itself, which may be replaced -------------------------------------------------------------

    def replace_file(self, name: str, data: bytes) -> None:
        """One put."""
        self.objects.put(name, data)

    def replace_folder(self, name: str, source: Path) -> None:
        """Put the files' data, then one commit over the older one."""
        files = {path.name: path.read_bytes() for path in sorted(source.iterdir())}
        self.objects.put(f"{name}/{COMMIT}", self._commit_of(files, {}))

    @contextmanager
    def local_folder(self, name: str) -> Iterator[Path]:
        """A copy in a temporary folder."""
        with tempfile.TemporaryDirectory() as folder:
            for file in self.files(name):
                (Path(folder) / file).write_bytes(self.read(f"{name}/{file}"))
            yield Path(folder)

    def remove(self, name: str) -> None:
        """Delete one object."""
        self.objects.remove(name)

    # --- data by hash ---------------------------------------------------------------------------------------------

    def _put(self, data: bytes) -> dict[str, Any]:
        """Put data under its hash and return what a commit says of it. Putting it twice changes nothing."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.objects.put(_object(sha256), data)
        return {"sha256": sha256, "bytes": len(data)}

    def _held(self, folder: str) -> dict[str, dict[str, Any]]:
        return dict(json.loads(self.objects.read(f"{folder}/{COMMIT}"))["files"])

    def _data(self, held: Mapping[str, Any]) -> bytes:
        data = self.objects.read(_object(held["sha256"]))
        if hashlib.sha256(data).hexdigest() != held["sha256"]:
            raise OSError(f"{self.url}/{_object(held['sha256'])} does not hold the bytes that its name promises")
        return data


def _object(sha256: str) -> str:
    return f"{OBJECTS}/{sha256[:2]}/{sha256}"


def _artifact(key: str) -> str:
    return f"{ARTIFACTS}/{key[:2]}/{key}.json"


def _is_commit(key: str, run: str) -> bool:
    """Whether an object is the commit of a unit: run/…=PARENT/…=UNIT/commit.json."""
    parts = key.removeprefix(f"{run}/").split("/")
    return len(parts) == 3 and parts[2] == COMMIT and all("=" in part for part in parts[:2])
