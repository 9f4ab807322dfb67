"""The ledger as a file that others look into: whole transactions, readers beside the writer, every start kept."""

import sqlite3

import pytest

from data_jobs.runs.ledger import Ledger, Standing
from data_jobs.runs.outcome import Failure


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "ledger.sqlite")


@pytest.fixture
def ledger(path):
    ledger = Ledger(path)
    ledger.begin("run", "local", "{}")
    ledger.register([("u", "video", 10), ("v", "video", 10)])
    yield ledger
    ledger.close()


def test_of_a_message_that_fails_half_way_nothing_is_recorded(ledger):
    ledger.start("a1", "u", "hands", 1, "worker")
    finished = ("a1", "u", Failure("bug", "Error", "no", ""), "Failed")
    with pytest.raises(sqlite3.Error):
        ledger.start_after([finished, ("a1", "u", None, {"no": "state"})], "a2", "v", "hands", 1, "worker")
    assert ledger.counts() == {"Running": (1, 10), "Pending": (1, 10)}
    assert ledger.start_after([finished], "a2", "v", "hands", 1, "worker") == Standing(0, 0, None)
    assert ledger.counts() == {"Failed": (1, 10), "Running": (1, 10)}


def test_a_person_who_reads_the_file_holds_nobody_up(ledger, path):
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    count = "SELECT COUNT(*) FROM attempts"
    assert reader.execute(count).fetchone() == (0,)
    ledger.start("a1", "u", "hands", 1, "worker")
    assert reader.execute(count).fetchone() == (0,), "one reading is of one moment"
    reader.execute("COMMIT")
    assert reader.execute(count).fetchone() == (1,)
    reader.close()


def test_every_start_of_the_run_keeps_how_it_ended(ledger, path):
    ledger.end(1, "killed")
    assert ledger.begin("run", "ray", "{}") == 2
    ledger.end(2, "complete")
    reader = sqlite3.connect(path)
    found = reader.execute("SELECT epoch, engine, result, ended_ns >= started_ns FROM runs ORDER BY epoch").fetchall()
    reader.close()
    assert found == [(1, "local", "killed", 1), (2, "ray", "complete", 1)]


def test_the_last_failure_is_told_as_it_was_reported(ledger):
    first, last = Failure("transient", "A", "first", "aa"), Failure("resource", "B", "last", "bb")
    for name, failure in (("a1", first), ("a2", last)):
        ledger.start(name, "u", "hands", 1, "worker")
        ledger.finish(name, "u", failure, "Failed")
    assert ledger.start("a3", "u", "hands", 1, "worker") == Standing(2, 0, last)


def test_a_closed_ledger_takes_nothing_more(path):
    ledger = Ledger(path)
    ledger.close()
    ledger.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        ledger.counts()
