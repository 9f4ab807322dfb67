"""At most one run at a time on an object store, which has no locks that die with their holder.

A lease is a chain of objects `.lease/NNNNNNNN.json`, made by conditional put: only one process can make the next
number, and the holder of the highest one has the place. The holder rewrites its own object as a heartbeat. Another may
make the next number once the holder has said "released", is known to be dead (same machine), or has not moved its
heartbeat for LEASE_S by the *other* process's clock, so clocks need not agree.

What this guarantees: two runs never start side by side while both reach the store. What it cannot: stop a holder that
was frozen for longer than LEASE_S from finishing a request when it wakes up. That one does no harm to results, because
publishing never replaces; it notices at its next heartbeat, and its run ends with RunError instead of a proof.
Called by object_store.py.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from data_jobs.runs.errors import RunError
from data_jobs.runs.objects import Objects

LEASES = ".lease"

# Long enough for a busy driver to miss several heartbeats, short enough to wait for when a machine was lost.
HEARTBEAT_S = 4.0
LEASE_S = 20.0
LOOK_S = 0.5


class Lease:
    """The right to write below a URL, held as a context manager; RunError if somebody else has it."""

    def __init__(self, objects: Objects, url: str) -> None:
        self._objects = objects
        self._url = url
        self._token = uuid.uuid4().hex
        self._number = 0
        self._beats = 0
        self._ended = threading.Event()
        self._lost = False
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        """Take the lease, waiting up to LEASE_S to see whether its last holder is alive."""
        latest = self._latest()
        if latest:
            self._await_end(latest)
        self._number = latest + 1
        made = self._objects.create(_name(self._number), self._record("held"))
        # A request repeated by the client may meet its own first one: what counts is whose token is there.
        if not made and json.loads(self._objects.read(_name(self._number)))["token"] != self._token:
            raise RunError(
                f"another run has just begun to write to {self._url}; wait for it or choose another --output"
            )
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lease back; RunError if it was lost on the way and nothing else has gone wrong."""
        self._ended.set()
        self._heart.join()
        self._lost = self._lost or self._latest() != self._number
        if not self._lost:
            self._objects.put(_name(self._number), self._record("released"))
        elif error is None:
            raise RunError(f"another run has taken {self._url} over while this one stood still; run the command again")

    def _await_end(self, number: int) -> None:
        """Return once the holder of `number` is gone; RunError as soon as it shows life."""
        first = self._objects.read(_name(number))
        holder = json.loads(first)
        if holder["state"] == "released" or _is_dead_here(holder):
            return
        deadline = time.monotonic() + LEASE_S
        while time.monotonic() < deadline:
            time.sleep(LOOK_S)
            now = self._objects.read(_name(number))
            if json.loads(now)["state"] == "released":
                return
            if now != first:
                who = f"process {holder['pid']} on {holder['host']}"
                raise RunError(f"another run is writing to {self._url} ({who}); wait for it or choose another --output")

    def _beat(self) -> None:
        """Rewrite our object until the end; stop for good when somebody holds a higher number."""
        while not self._ended.wait(HEARTBEAT_S):
            try:
                if self._latest() != self._number:
                    self._lost = True
                    return
                self._beats += 1
                self._objects.put(_name(self._number), self._record("held"))
            except Exception:  # noqa: BLE001 - a heartbeat that fails is a heartbeat missed: others see just that
                continue

    def _latest(self) -> int:
        return max((int(name.rpartition("/")[2][:8]) for name in self._objects.names(LEASES)), default=0)

    def _record(self, state: str) -> bytes:
        record: dict[str, Any] = {
            "state": state,
            "token": self._token,
            "beat": self._beats,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "space": _pid_space(),
        }
        return json.dumps(record).encode()


def _name(number: int) -> str:
    return f"{LEASES}/{number:08d}.json"


def _pid_space() -> str:
    """Where a process id means the same process: this boot of this machine, and this container (proc(5))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + str(Path("/proc/self/ns/pid").readlink())


def _is_dead_here(holder: dict[str, Any]) -> bool:
    """Whether the holder ran on this machine and its process is gone."""
    return holder["space"] == _pid_space() and not Path(f"/proc/{holder['pid']}").exists()
