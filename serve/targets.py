"""The targets that sessions can ask for: uploads become template banks, kept on disk, built beside everything else.

In: uploads as bytes. Out: records with progress, and banks. A plain class; app.py makes it the actor `targets`.
A target's id is the hash of its content: the same upload is the same target, however often it is sent or repeated.
File names are made from ids alone; what a client calls its target is only ever text inside a JSON file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from typing import Any

from actors.tracker.errors import TrackerError
from serve.backend import Backend
from serve.errors import BadUpload, Conflict, ServiceError, TooLarge, TooMany, UnknownTarget
from serve.models import imported
from serve.settings import Settings
from serve.uploads import checked_mesh, kind_of, views_of

log = logging.getLogger("ray.serve")

ID = re.compile(r"[0-9a-f]{16}")
NAME = re.compile(r"[^\x00-\x1f\x7f]{1,80}")


class TargetStore:
    """Call from any thread. One upload is built at a time; the others wait with `state: waiting`."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.limits
        self._folder = settings.targets_dir.expanduser()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_backend = lambda: imported(settings.tracking.backend)(**settings.tracking.arguments)
        self._backend: Backend | None = None
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._records = self._read()

    def submit(self, name: str, data: bytes) -> dict[str, Any]:
        """Begin to build a target; its record. Raises BadUpload, TooLarge or TooMany."""
        if not NAME.fullmatch(name):
            raise BadUpload("a target's name is 1 to 80 printable characters")
        if len(data) > self._limits.max_upload_bytes:
            raise TooLarge(f"an upload has at most {self._limits.max_upload_bytes} bytes, this has {len(data)}")
        kind = kind_of(data)
        target = hashlib.sha256(data).hexdigest()[:16]
        with self._lock:
            known = self._records.get(target)
            if known is not None and known["state"] != "failed":
                return dict(known)
            if len(self._records) >= self._limits.max_targets:
                raise TooMany(f"{self._limits.max_targets} targets are stored already; delete one first")
            self._records[target] = record = _record(target, name, kind, len(data))
            answer = dict(record)
        threading.Thread(target=self._build, args=(record, data), name=f"build-{target}", daemon=True).start()
        return answer

    def listing(self) -> list[dict[str, Any]]:
        """Every target, oldest first."""
        with self._lock:
            return [dict(record) for record in sorted(self._records.values(), key=lambda record: record["created_s"])]

    def get(self, target: str) -> dict[str, Any]:
        """One target. Raises UnknownTarget."""
        with self._lock:
            return dict(self._known(target))

    def delete(self, target: str) -> None:
        """Forget it. Raises UnknownTarget; Conflict while it is being built."""
        with self._lock:
            if self._known(target)["state"] in ("waiting", "building"):
                raise Conflict("this target is being built; delete it when that is done")
            del self._records[target]
            for suffix in (".json", ".bank"):
                (self._folder / f"{target}{suffix}").unlink(missing_ok=True)

    def bank(self, target: str) -> tuple[str, bytes]:
        """Name and bank of a target that is ready. Raises UnknownTarget or Conflict."""
        with self._lock:
            record = self._known(target)
            if record["state"] != "ready":
                raise Conflict(f"target {record['name']!r} is {record['state']}, not ready: {record['why']}")
            return record["name"], (self._folder / f"{target}.bank").read_bytes()

    def _known(self, target: str) -> dict[str, Any]:
        record = self._records.get(target)
        if record is None:
            names = ", ".join(f"{r['id']} ({r['name']})" for r in self._records.values()) or "none"
            raise UnknownTarget(f"there is no target {target[:40]!r}; stored are: {names}")
        return record

    def _build(self, record: dict[str, Any], data: bytes) -> None:
        with self._building:
            started_s = time.monotonic()
            self._set(record, state="building")
            try:
                bank = self._bank_of(record, data)
                self._store(record, bank, round(time.monotonic() - started_s, 2))
            except (ServiceError, TrackerError) as error:
                self._set(record, state="failed", why=str(error))
            except Exception as error:
                log.exception("target %s could not be built", record["id"])
                self._set(record, state="failed", why=f"it could not be built ({type(error).__name__}); see the logs")

    def _bank_of(self, record: dict[str, Any], data: bytes) -> bytes:
        if self._backend is None:
            self._backend = self._make_backend()

        def progress(done: int, of: int) -> None:
            self._set(record, views=of, progress=round(done / max(1, of), 3))

        if record["kind"] == "archive":
            views = views_of(data, self._limits)
            progress(0, len(views))
            return self._backend.bank_from_views(record["name"], views, progress)
        mesh = checked_mesh(data, record["kind"], self._limits)
        return self._backend.bank_from_mesh(record["name"], mesh, record["kind"], progress)

    def _store(self, record: dict[str, Any], bank: bytes, seconds: float) -> None:
        self._write(f"{record['id']}.bank", bank)
        self._set(record, state="ready", progress=1.0, build_s=seconds, bank_bytes=len(bank))
        self._write(f"{record['id']}.json", json.dumps(record).encode())

    def _set(self, record: dict[str, Any], **changes: Any) -> None:
        with self._lock:
            record.update(changes)

    def _write(self, name: str, data: bytes) -> None:
        """Whole or not at all."""
        partial = self._folder / f"{name}.tmp"
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._folder / name)

    def _read(self) -> dict[str, dict[str, Any]]:
        """What an earlier service left; a file that is not ours is left alone and told of."""
        found = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                if ID.fullmatch(path.stem) and record["id"] == path.stem and path.with_suffix(".bank").is_file():
                    found[path.stem] = record
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("target file %s is not readable: %s", path.name, error)
        return found


def _record(target: str, name: str, kind: str, size: int) -> dict[str, Any]:
    return {
        "id": target,
        "name": name,
        "kind": kind,
        "state": "waiting",
        "why": "",
        "progress": 0.0,
        "views": 0,
        "upload_bytes": size,
        "bank_bytes": 0,
        "build_s": None,
        "created_s": round(time.time(), 3),
    }
