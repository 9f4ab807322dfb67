"""The processes of one driver, found by descent: what a kill may aim at, and what must be gone afterwards.

In: a driver's process id. Out: living members by role. Used by soak.py. A process is told from a later one with the
same id by its start time, so nobody else's process is ever hit.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

# Role → words in the process's title. Ray sets the titles of its workers.
TITLES = {"worker": "UnitWorker", "ledger": "ray::MeteredLedger", "raylet": "/raylet/raylet"}
FORKSERVER = "multiprocessing.forkserver"


@dataclass(frozen=True, slots=True)
class Member:
    """One process: its id and when it started (clock ticks since boot)."""

    pid: int
    born: int

    def lives(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return read_stat(self.pid)[1:] == (self.born, True)

    def title(self) -> str:
        """Its command line as shown by ps."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""

    def kill(self) -> bool:
        """SIGKILL, if it is still the same process."""
        if not self.lives():
            return False
        os.kill(self.pid, signal.SIGKILL)
        return True


class Family:
    """A driver and everything that descends from it; remembers members whose parents have died."""

    def __init__(self, driver: int) -> None:
        self.driver = Member(driver, read_stat(driver)[1])
        self.seen: set[Member] = {self.driver}

    def look(self) -> None:
        """Add descendants born since the last look."""
        known = {member.pid for member in self.seen if member.lives()}
        stats = {int(path.name): read_stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
        grown = True
        while grown:
            young = {pid for pid, (parent, _, lives) in stats.items() if lives and parent in known} - known
            known |= young
            self.seen |= {Member(pid, stats[pid][1]) for pid in young}
            grown = bool(young)

    def of_role(self, role: str) -> list[Member]:
        """Living members that play this role."""
        self.look()
        if role == "driver":
            return [self.driver] if self.driver.lives() else []
        living = sorted((member for member in self.seen if member.lives()), key=lambda member: member.pid)
        if role != "sandbox":
            return [member for member in living if TITLES[role] in member.title()]
        workers = {member.pid for member in living if TITLES["worker"] in member.title()}
        servers = {member.pid for member in living if read_stat(member.pid)[0] in workers}
        # A forked child keeps the title of its server, and is its child; so is no resource tracker.
        return [m for m in living if FORKSERVER in m.title() and read_stat(m.pid)[0] in servers]

    def survivors(self, patience_s: float) -> list[Member]:
        """Members that live on after this long; waits only as long as any does."""
        deadline = time.monotonic() + patience_s
        while left := [member for member in self.seen if member.lives()]:
            if time.monotonic() > deadline:
                return left
            time.sleep(0.1)
        return []


def read_stat(pid: int) -> tuple[int, int, bool]:
    """Parent id, start time and whether it runs (proc_pid_stat(5), fields 4, 22 and 3)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0, False
    return int(fields[1]), int(fields[19]), fields[0] not in "ZX"
