"""The ledger: SQLite record of runs, units, attempts and dead letters. A cache of the published tree, never the truth.

One writer: in a Ray run this class lives behind one named actor, in a local run it is called directly. Workers call
`start` before and `finish` after every attempt; the command line reads `counts`. `rebuild` refills it from folders.
States of a unit: Pending → Running → Writing → Done | Failed (will be tried again) | Dead.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from data_jobs.runs.outcome import Cause, Failure

# Milliseconds a writer waits for another process (a person with sqlite-utils, say) before giving up.
BUSY_TIMEOUT_MS = 10_000

UnitState = Literal["Pending", "Running", "Writing", "Done", "Failed", "Dead"]

Finish = tuple[str, str, Failure | None, UnitState]  # the arguments of Ledger.finish

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    epoch INTEGER PRIMARY KEY, -- counts the starts of this run, the first is 1
    run_id TEXT NOT NULL, engine TEXT NOT NULL, config TEXT NOT NULL,
    started_ns INTEGER NOT NULL, ended_ns INTEGER, result TEXT);
CREATE TABLE IF NOT EXISTS units (
    unit_id TEXT PRIMARY KEY, parent_id TEXT NOT NULL, frames INTEGER NOT NULL,
    state TEXT NOT NULL, updated_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS units_by_state ON units(state, frames);
CREATE TABLE IF NOT EXISTS attempts (
    attempt_id TEXT PRIMARY KEY, -- made by the worker, so that a repeated call records nothing twice
    unit_id TEXT NOT NULL, stage TEXT NOT NULL, epoch INTEGER NOT NULL,
    worker TEXT NOT NULL,
    state TEXT NOT NULL, -- running | done | failed | interrupted (its host died; nobody is charged)
    cause TEXT, error_type TEXT, message TEXT, traceback_sha256 TEXT,
    started_ns INTEGER NOT NULL, ended_ns INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attempts_by_unit ON attempts(unit_id, stage);
CREATE TABLE IF NOT EXISTS dead_letters (
    unit_id TEXT PRIMARY KEY, stage TEXT NOT NULL, cause TEXT NOT NULL, error_type TEXT NOT NULL,
    message TEXT NOT NULL, attempts INTEGER NOT NULL, updated_ns INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger knows of a unit and stage when an attempt starts."""

    charged: int  # finished attempts that failed through the unit's own doing
    interrupted: int  # attempts cut off by the death of their host within this epoch
    last: Failure | None  # the latest charged failure


class Ledger:
    """Opens or creates the database at `path`. Not thread-safe: one caller at a time (an actor gives that)."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        import sqlite_utils  # here: it brings pandas, and workers know the ledger's records without opening one

        sqlite_utils.Database(self._db).enable_wal()
        # A power cut may lose the last transactions, never corrupt: the folders are the truth anyway.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)

    # --- runs and units -------------------------------------------------------------------------------------------

    def begin(self, run_id: str, engine: str, config: str) -> int:
        """Open a new epoch of the run and return its number; attempts left open by a dead epoch are interrupted."""
        self._db.execute("UPDATE attempts SET state='interrupted', ended_ns=? WHERE state='running'", (time.time_ns(),))
        row = self._db.execute(
            "INSERT INTO runs(run_id, engine, config, started_ns) VALUES (?,?,?,?) RETURNING epoch",
            (run_id, engine, config, time.time_ns()),
        ).fetchone()
        return int(row[0])

    def end(self, epoch: int, result: str) -> None:
        """Close an epoch with its result in words."""
        self._db.execute("UPDATE runs SET ended_ns=?, result=? WHERE epoch=?", (time.time_ns(), result, epoch))

    def register(self, units: Iterable[tuple[str, str, int]], state: UnitState = "Pending") -> None:
        """Record units as (unit_id, parent_id, frames) in `state`, replacing what was known of their state."""
        now = time.time_ns()
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT INTO units VALUES (?,?,?,?,?) ON CONFLICT(unit_id) DO UPDATE SET "
            "state=excluded.state, updated_ns=excluded.updated_ns WHERE state<>excluded.state",
            ((unit, parent, frames, state, now) for unit, parent, frames in units),
        )
        self._db.execute("COMMIT")

    def forget(self) -> None:
        """Empty units and dead letters before they are registered anew from the folders; attempts stay."""
        self._db.executescript("DELETE FROM units; DELETE FROM dead_letters;")

    def pardon(self, unit_ids: Iterable[str]) -> None:
        """Take units out of the dead letters with their attempts wiped, for `retry`."""
        ids = [(unit,) for unit in unit_ids]
        self._db.execute("BEGIN")
        self._db.executemany("DELETE FROM dead_letters WHERE unit_id=?", ids)
        self._db.executemany("DELETE FROM attempts WHERE unit_id=?", ids)
        self._db.executemany("UPDATE units SET state='Pending' WHERE unit_id=?", ids)
        self._db.execute("COMMIT")

    # --- attempts -------------------------------------------------------------------------------------------------

    def start(self, attempt_id: str, unit_id: str, stage: str, epoch: int, worker: str) -> Standing:
        """Record that an attempt begins and return the standing before it.

        An attempt of the same unit and stage that is still open was cut off with its host: interrupted, not charged.
        """
        now = time.time_ns()
        self._db.execute(
            "UPDATE attempts SET state='interrupted', ended_ns=? "
            "WHERE unit_id=? AND stage=? AND state='running' AND attempt_id<>?",
            (now, unit_id, stage, attempt_id),
        )
        self._db.execute(
            "INSERT OR IGNORE INTO attempts(attempt_id, unit_id, stage, epoch, worker, state, started_ns) "
            "VALUES (?,?,?,?,?,'running',?)",
            (attempt_id, unit_id, stage, epoch, worker, now),
        )
        self._set_state(unit_id, "Running")
        return self._standing(unit_id, stage, epoch)

    def finish(self, attempt_id: str, unit_id: str, failure: Failure | None, next_state: UnitState) -> None:
        """Close an attempt as done, or as failed with its cause, and move the unit on."""
        self._db.execute(
            "UPDATE attempts SET state=?, cause=?, error_type=?, message=?, traceback_sha256=?, ended_ns=? "
            "WHERE attempt_id=?",
            (
                "done" if failure is None else "failed",
                failure and failure.cause,
                failure and failure.error_type,
                failure and failure.message,
                failure and failure.traceback_sha256,
                time.time_ns(),
                attempt_id,
            ),
        )
        self._set_state(unit_id, next_state)

    def start_after(self, finished: Sequence[Finish], *start: Any) -> Standing:
        """`finish` for each of `finished`, then `start(*start)`: one message and one transaction for all."""
        self._db.execute("BEGIN")
        try:
            for finish in finished:
                self.finish(*finish)
            standing = self.start(*start)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        return standing

    def bury(self, unit_id: str, stage: str, failure: Failure, attempts: int) -> None:
        """Record a dead letter; an attempt that was opened only to find the unit spent is dropped."""
        self._db.execute("DELETE FROM attempts WHERE unit_id=? AND state='running'", (unit_id,))
        self._db.execute(
            "INSERT OR REPLACE INTO dead_letters VALUES (?,?,?,?,?,?,?)",
            (unit_id, stage, failure.cause, failure.error_type, failure.message, attempts, time.time_ns()),
        )
        self._set_state(unit_id, "Dead")

    def _set_state(self, unit_id: str, state: UnitState) -> None:
        self._db.execute("UPDATE units SET state=?, updated_ns=? WHERE unit_id=?", (state, time.time_ns(), unit_id))

    def _standing(self, unit_id: str, stage: str, epoch: int) -> Standing:
        rows = self._db.execute(
            "SELECT state, cause, error_type, message, traceback_sha256, epoch FROM attempts "
            "WHERE unit_id=? AND stage=? AND state IN ('failed','interrupted') ORDER BY ended_ns",
            (unit_id, stage),
        ).fetchall()
        failed = [row for row in rows if row[0] == "failed"]
        last = Failure(cast(Cause, failed[-1][1]), *failed[-1][2:5]) if failed else None
        return Standing(len(failed), sum(row[0] == "interrupted" and row[5] == epoch for row in rows), last)

    # --- questions ------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, tuple[int, int]]:
        """Per state: (units, frames)."""
        rows = self._db.execute("SELECT state, COUNT(*), SUM(frames) FROM units GROUP BY state")
        return {state: (units, frames) for state, units, frames in rows}

    def dead_by_cause(self) -> dict[str, int]:
        """Dead letters by class of cause."""
        return dict(self._db.execute("SELECT cause, COUNT(*) FROM dead_letters GROUP BY cause").fetchall())

    def stage_seconds(self, epoch: int | None = None) -> dict[str, tuple[int, int, float]]:
        """Per stage: (attempts, failed attempts, seconds spent), of one epoch or of all."""
        rows = self._db.execute(
            "SELECT stage, COUNT(*), SUM(state='failed'), SUM(COALESCE(ended_ns, started_ns) - started_ns) / 1e9 "
            "FROM attempts WHERE ? IS NULL OR epoch=? GROUP BY stage",
            (epoch, epoch),
        )
        return {stage: (n, failed, seconds) for stage, n, failed, seconds in rows}

    def seconds_of(self, unit_ids: Sequence[str], epoch: int) -> float:
        """Seconds that the successful attempts of these units took in this epoch, all stages together."""
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS chosen (unit_id TEXT PRIMARY KEY)")
        self._db.execute("DELETE FROM chosen")
        self._db.executemany("INSERT OR IGNORE INTO chosen VALUES (?)", [(unit,) for unit in unit_ids])
        row = self._db.execute(
            "SELECT SUM(ended_ns - started_ns) / 1e9 FROM attempts JOIN chosen USING(unit_id) "
            "WHERE state='done' AND epoch=?",
            (epoch,),
        ).fetchone()
        return float(row[0] or 0.0)

    def worked_on(self, epoch: int, stages: int) -> list[str]:
        """Units that went through all their stages in this epoch, none taken over from before."""
        rows = self._db.execute(
            "SELECT unit_id FROM attempts WHERE state='done' AND epoch=? GROUP BY unit_id HAVING COUNT(*)=? ORDER BY 1",
            (epoch, stages),
        )
        return [unit for (unit,) in rows]

    def stage_rates(self, epoch: int) -> dict[str, float]:
        """Per stage: frames per second of one worker while it is at it, over this epoch's finished attempts."""
        rows = self._db.execute(
            "SELECT stage, SUM(frames) * 1e9 / MAX(SUM(ended_ns - started_ns), 1) "
            "FROM attempts JOIN units USING(unit_id) WHERE attempts.state='done' AND epoch=? GROUP BY stage",
            (epoch,),
        )
        return dict(rows.fetchall())

    def busy_span_s(self, epoch: int) -> float:
        """Seconds from the first start to the last end of an attempt in this epoch; 0 when there was none."""
        row = self._db.execute("SELECT MIN(started_ns), MAX(ended_ns) FROM attempts WHERE epoch=?", (epoch,)).fetchone()
        return (row[1] - row[0]) / 1e9 if row[0] and row[1] else 0.0

    def close(self) -> None:
        """Close the database; safe when called twice."""
        self._db.close()
