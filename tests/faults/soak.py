"""Kill anything at any time, resume, and compare with a run that nobody disturbed: `python -m tests.faults.soak`.

In: how many kills, how many clips, a seed. Out: a Tally; AssertionError names the first difference. Used by `make soak`
(long) and tests/e2e/test_egoworld_soak.py (short). The reference runs in a loop without Ray, its sandbox apart.
"""

import argparse
import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
from rich.console import Console

from data_jobs.runs.engine import Host
from data_jobs.runs.guard import Guard
from data_jobs.runs.store import STAGING, published_files
from tests.e2e.egoworld import call, command, letters, published, start, stub_config, tree_hash
from tests.faults.operator import CAUSE_OF, FAULTS, Params, fault_of, rows
from tests.faults.processes import Family
from tests.faults.videos import write_video

LOG = logging.getLogger("soak")
ROLES = ("driver", "worker", "sandbox", "ledger", "raylet", "ledger_file")
ONLY_AT_WORK = ("worker", "sandbox")  # exist only while clips are left
HEALTHY_MS = 40.0  # slow enough that a run lasts longer than it takes to strike
FRAMES_PER_CLIP = 10
# Without a new clip, letter or end of the driver for this long, a run counts as hung; Ray may take minutes to start.
STALL_S = 600.0
LINGER_S = 60.0  # what killed drivers left behind must be gone by itself this long after the last one


@dataclass
class Tally:
    """What was done and seen."""

    kills: Counter = field(default_factory=Counter)
    starts: int = 0
    mid_publication: int = 0  # kills that left something in staging
    letters_touched: int = (
        0  # dead letters of poisoned clips that tell of a killed sandbox: the tree then differs there
    )
    lingered_s: float = 0.0  # after the end of the last driver, until the processes of all were gone


@dataclass
class Soak:
    """One disturbed run."""

    folder: Path
    config: Path
    videos: Path
    clips: int
    dice: random.Random
    tally: Tally = field(default_factory=Tally)
    families: list[Family] = field(default_factory=list)

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def run(self) -> Path:
        return self.output / "run_id=r"

    def settled(self) -> int:
        return published(self.run) + sum(1 for _ in self.run.glob("dead_letter/*.json"))

    def disturb(self, kills: int, among: Sequence[str]) -> str:
        """Run until it ends by itself, with `kills` kills spread over the clips; what the last driver printed."""
        roles = [among[i % len(among)] for i in range(kills)]
        self.dice.shuffle(roles)
        moments = sorted(self.dice.randrange(self.clips * 3 // 4) for _ in range(kills))
        plan = list(zip(moments, roles, strict=True))
        while True:
            code, text = self.drive(plan)
            if code == 0 and not plan:
                self.await_the_dead()
                return text

    def await_the_dead(self) -> None:
        """Whatever was killed, its descendants must end by themselves. The next driver does not wait for them."""
        ended = time.monotonic()
        left = [member for family in self.families for member in family.survivors(LINGER_S + ended - time.monotonic())]
        self.tally.lingered_s = time.monotonic() - ended
        for member in left:
            member.kill()
        assert not left, f"outlived their driver by {LINGER_S} s: {[member.title().strip() for member in left]}"

    def drive(self, plan: list[tuple[int, str]]) -> tuple[int, str]:
        """Start a driver and carry out kills until it ends."""
        process = start(*command(self.videos, self.config, self.output, "ray"))
        self.tally.starts += 1
        LOG.info("start %d", self.tally.starts)
        family, last = Family(process.pid), (self.settled(), time.monotonic())
        self.families.append(family)
        while process.poll() is None:
            family.look()
            if (now := self.settled()) != last[0]:
                last = (now, time.monotonic())
            assert time.monotonic() - last[1] < STALL_S, f"nothing happens any more at {now} of {self.clips} clips"
            # A kill whose moment has passed strikes as soon as its victim exists: also early in a start.
            if plan and now >= self.clips and plan[0][1] in ONLY_AT_WORK:
                plan[0] = (plan[0][0], "driver")  # too late for a worker; the proof at the end can still be cut off
            if plan and now >= plan[0][0]:
                time.sleep(self.dice.uniform(0, 0.3))
                if self.kill(family, plan[0][1]):
                    plan.pop(0)
            time.sleep(0.05)
        LOG.info("ended with code %d", process.returncode)
        return process.returncode, process.communicate()[0]

    def kill(self, family: Family, role: str) -> bool:
        """SIGKILL one of this role; the ledger's file is deleted with its driver dead."""
        victims = family.of_role("driver" if role == "ledger_file" else role)
        if not victims or not self.dice.choice(victims).kill():
            return False
        if role == "ledger_file":
            for path in self.run.glob("ledger.sqlite*"):
                path.unlink()
        with suppress(FileNotFoundError):
            self.tally.mid_publication += any((self.output / STAGING).iterdir())
        self.tally.kills[role] += 1
        LOG.info("kill %d: %s, with %d of %d clips settled", self.tally.kills.total(), role, self.settled(), self.clips)
        return True


def make_config(folder: Path, share: float) -> tuple[Path, Params]:
    params = {"share_of": dict.fromkeys(FAULTS, share), "seed": 7, "healthy_ms": HEALTHY_MS}
    return stub_config(folder, memory_gib=0.5, timeout_s=3.0, **params), Params(**params)


def reference(folder: Path, videos: Path, config: Path) -> tuple[str, Path]:
    """Tree hash and run folder of an undisturbed run by the local engine, its operators in a sandbox as poison asks."""

    guard = Host.guard

    def isolated_guard(host: Host, *arguments: Any, isolated: bool) -> Guard:
        return guard(host, *arguments, isolated=True)

    apart = patch.object(Host, "guard", isolated_guard)
    with apart:
        code, text = call(*command(videos, config, folder / "reference"))
    assert code == 0, text
    return tree_hash(text), folder / "reference" / "run_id=r"


def check(soak: Soak, params: Params, undisturbed: tuple[str, Path], text: str) -> None:
    """0 lost, 0 duplicated, 0 truncated, true causes, nothing left over, the same tree."""
    code, verified = call("verify", "--run", soak.run)
    assert code == 0, verified
    check_contents(soak, params)
    check_letters(soak, params)
    assert not list((soak.output / STAGING).iterdir())
    assert tree_hash(text) == tree_hash(verified)
    if tree_hash(text) != undisturbed[0]:
        # A child killed from outside looks like one that crashed; on a poisoned clip that is one attempt of its three.
        difference = differing(soak.run, undisturbed[1])
        excused = {f"dead_letter/{letter['clip_id']}.json" for letter in letters(soak.run)}
        assert set(difference) <= excused, f"the trees differ in {difference}"
        assert len(difference) <= soak.tally.kills["sandbox"], f"the trees differ in {difference}"
        soak.tally.letters_touched = len(difference)


def check_contents(soak: Soak, params: Params) -> None:
    for path in soak.run.glob("video_id=*/clip_id=*/hand_pose.parquet"):
        table = pq.ParquetFile(path).read()
        frames = table["frame_index"].to_pylist()
        clip_id = path.parent.name.partition("=")[2]
        clip = SimpleNamespace(clip_id=clip_id, frame_start=frames[0], frame_end=frames[0] + FRAMES_PER_CLIP)
        wanted = table.from_pylist(list(rows(clip, params.label)), schema=table.schema)
        assert table.equals(wanted), f"{path} is not what its clip gives"


def check_letters(soak: Soak, params: Params) -> None:
    found = letters(soak.run)
    assert published(soak.run) + len(found) == soak.clips
    for letter in found:
        fault = fault_of(letter["clip_id"], params)
        assert fault is not None, f"an innocent clip was buried: {letter}"
        assert letter["attempts"] <= 3
        struck = soak.tally.kills["sandbox"] and letter["cause"] == "worker_crash"
        assert letter["cause"] == CAUSE_OF[fault] or struck, letter


def differing(one: Path, other: Path) -> list[str]:
    """Names of files that only one tree has, or that differ."""
    trees = [
        {path.relative_to(run).as_posix(): path.read_bytes() for path in published_files(run)} for run in (one, other)
    ]
    return sorted(name for name in trees[0].keys() | trees[1].keys() if trees[0].get(name) != trees[1].get(name))


def soak_once(
    folder: Path, kills: int, clips: int, seed: int, share: float = 0.01, among: Sequence[str] = ROLES
) -> Tally:
    """Disturb a run of `clips` clips with `kills` kills; AssertionError unless it ends as if nothing had happened."""
    for number in range(4):
        write_video(folder / "videos" / f"{number}.mp4", clips // 4 * FRAMES_PER_CLIP, seed=number)
    config, params = make_config(folder, share)
    undisturbed = reference(folder, folder / "videos", config)
    soak = Soak(folder, config, folder / "videos", clips // 4 * 4, random.Random(seed))
    text = soak.disturb(kills, among)
    check(soak, params, undisturbed, text)
    return soak.tally


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = soak_once(Path(folder), arguments.kills, arguments.clips, arguments.seed)
    console = Console()
    console.print(f"{sum(tally.kills.values())} kills over {arguments.clips} clips, {tally.starts} starts: 0 lost, ")
    console.print("0 duplicated, 0 truncated; the tree is that of an undisturbed run", end="")
    console.print(
        f", but for {tally.letters_touched} letters that tell of a killed child" if tally.letters_touched else ""
    )
    console.print(f"kills: {dict(tally.kills)}; while something was being published: {tally.mid_publication}")
    console.print(f"processes of dead drivers were gone {tally.lingered_s:.1f} s after the last end")
    console.print(f"{time.monotonic() - started:.0f} s, seed {arguments.seed}")


if __name__ == "__main__":
    main()
