"""The guard's decisions: what is retried, what is buried, who is charged."""

import pytest

from data_jobs.runs.errors import RunError
from data_jobs.runs.guard import MAX_INTERRUPTIONS, PUBLISH, Guard, RetryPolicy
from data_jobs.runs.ledger import Ledger
from data_jobs.runs.outcome import Failure
from data_jobs.runs.sandbox import InProcess, Sandbox
from tests.data_jobs.runs.tasks import Obedient


class FakeJob:
    """Units are dicts {id, order}; remembers what was buried."""

    def __init__(self):
        self.buried = {}

    def unit_id(self, row):
        return row["id"]

    def frames(self, row):
        return 10

    def timeout_s(self, row):
        return 0.5 if row["order"] == "hang" else 30.0  # a busy machine must not make a healthy unit late

    def is_settled(self, row):
        return row["id"] in self.buried or row.get("published", False)

    def has_stage(self, row, stage):
        return stage in row.get("made", ())

    def bury(self, row, stage, failure, attempts):
        self.buried[row["id"]] = (stage, failure.cause, attempts)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(str(tmp_path / "ledger.sqlite"))
    ledger.begin("run", "local", "{}")
    yield ledger
    ledger.close()


def guard_of(ledger, job, executor=None, stages=("work", PUBLISH), epoch=1):
    return Guard(job, stages, executor or InProcess(Obedient), ledger, RetryPolicy(3, 0.0, 1.0), epoch, "test")


def test_a_healthy_unit_is_done(ledger):
    ledger.register([("u", "v", 10)])
    outcome = guard_of(ledger, FakeJob()).process({"id": "u", "order": "echo:fine"})
    assert (outcome.result, outcome.frames) == ("done", 10)
    assert ledger.counts() == {"Done": (1, 10)}
    assert {stage: n for stage, (n, _, _) in ledger.stage_seconds().items()} == {"work": 1, PUBLISH: 1}


@pytest.mark.parametrize(
    ("order", "cause", "attempts"),
    [
        ("input", "input", 1),
        ("bug", "bug", 1),
        ("transient", "transient", 3),
        ("starve:9", "resource", 3),
        ("segfault", "worker_crash", 3),
        ("hang", "timeout", 3),
    ],
)
def test_a_bad_unit_is_buried_with_its_cause_and_attempts(ledger, order, cause, attempts):
    job = FakeJob()
    ledger.register([("bad", "v", 10), ("good", "v", 10)])
    sandbox = Sandbox(Obedient, ["data_jobs.runs.guard", "tests.data_jobs.runs.tasks"], 2**30)
    guard = guard_of(ledger, job, sandbox)
    assert guard.process({"id": "bad", "order": order}).result == "dead"
    assert guard.process({"id": "good", "order": "echo:x"}).result == "done"
    sandbox.close()
    assert job.buried == {"bad": ("work", cause, attempts)}
    assert ledger.counts() == {"Dead": (1, 10), "Done": (1, 10)}


def test_lack_of_memory_halves_the_window_until_it_fits(ledger):
    assert guard_of(ledger, FakeJob()).process({"id": "u", "order": "starve:2"}).result == "done"


def test_a_transient_failure_passes(ledger, tmp_path):
    row = {"id": "u", "order": f"flaky:{tmp_path / 'marks'}*2"}
    assert guard_of(ledger, FakeJob()).process(row).result == "done"
    assert (tmp_path / "marks").read_text() == "xxxx"  # two failures, the work, and its publication


def test_settled_units_and_finished_stages_are_not_run_again(ledger):
    guard = guard_of(ledger, FakeJob())
    assert guard.process({"id": "u", "order": "bug", "published": True}).result == "already"
    outcome = guard_of(ledger, FakeJob(), stages=("work",)).process({"id": "v", "order": "bug", "made": ("work",)})
    assert outcome.result == "done"


def test_attempts_of_a_host_that_died_are_not_charged(ledger):
    """Twice the host dies while the unit runs; the unit itself then fails twice and still has a third try."""
    ledger.start("a1", "u", "work", 1, "host one")
    ledger.start("a2", "u", "work", 1, "host two")
    failure = Failure("worker_crash", "WorkerCrash", "the process died (SIGSEGV)", "")
    for attempt in ("a3", "a4"):
        standing = ledger.start(attempt, "u", "work", 1, "host three")
        assert standing.interrupted == 2
        ledger.finish(attempt, "u", failure, "Failed")
    standing = ledger.start("a5", "u", "work", 1, "host three")
    assert (standing.charged, standing.last) == (2, failure)


def test_a_unit_that_takes_its_hosts_along_ends_too(ledger):
    job = FakeJob()
    for i in range(MAX_INTERRUPTIONS):
        ledger.start(f"a{i}", "u", "work", 1, f"host {i}")
    assert guard_of(ledger, job).process({"id": "u", "order": "echo:x"}).result == "dead"
    assert job.buried == {"u": ("work", "worker_crash", 1)}


def test_a_host_that_died_between_verdict_and_burial_is_made_good(ledger):
    job = FakeJob()
    ledger.start("a", "u", "work", 1, "host")
    ledger.finish("a", "u", Failure("input", "InputError", "broken picture", ""), "Failed")
    assert guard_of(ledger, job).process({"id": "u", "order": "echo:x"}).result == "dead"
    assert job.buried == {"u": ("work", "input", 1)}


def test_a_new_epoch_charges_nobody_for_the_old_ones_open_attempts(ledger):
    ledger.start("a", "u", "work", 1, "host")
    epoch = ledger.begin("run", "local", "{}")
    standing = ledger.start("b", "u", "work", epoch, "host")
    assert (standing.charged, standing.interrupted) == (0, 0)


def test_a_full_disk_ends_the_run_and_buries_nobody(ledger):
    job = FakeJob()
    with pytest.raises(RunError, match="disk is full"):
        guard_of(ledger, job).process({"id": "u", "order": "place"})
    assert job.buried == {}
