"""What the ledger tells of time and of whole units, on a clock that the test sets: rates, spans, and who is done."""

from types import SimpleNamespace

import pytest

from data_jobs.runs import ledger as module
from data_jobs.runs.ledger import Ledger
from data_jobs.runs.outcome import Failure

BROKEN = Failure("input", "InputError", "broken picture", "")


class Book:
    """A ledger of two units, on a clock in whole seconds."""

    def __init__(self, path, clock):
        self.ledger, self.clock, self.made = Ledger(str(path)), clock, 0
        self.epoch = self.ledger.begin("run", "local", "{}")
        self.ledger.register([("u", "video", 30), ("v", "video", 10)])

    def at(self, second):
        self.clock.now = second * 1_000_000_000

    def start(self, unit, stage, second):
        self.made += 1
        self.at(second)
        self.ledger.start(f"a{self.made}", unit, stage, self.epoch, "worker")
        return f"a{self.made}"

    def work(self, unit, stage, began, ended, failure=None):
        name = self.start(unit, stage, began)
        self.at(ended)
        self.ledger.finish(name, unit, failure, "Failed" if failure else "Writing")

    def again(self):
        self.epoch = self.ledger.begin("run", "local", "{}")


@pytest.fixture
def book(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0)
    monkeypatch.setattr(module, "time", SimpleNamespace(time_ns=lambda: clock.now))
    book = Book(tmp_path / "ledger.sqlite", clock)
    yield book
    book.ledger.close()


def test_the_seconds_of_a_stage_are_those_of_its_closed_attempts(book):
    book.work("u", "hands", 10, 13)
    book.work("v", "hands", 20, 21, BROKEN)
    book.work("u", "publish", 30, 32)
    book.start("v", "publish", 40)
    assert book.ledger.stage_seconds() == {"hands": (2, 1, 4.0), "publish": (2, 0, 2.0)}


def test_the_seconds_of_one_start_of_the_run_leave_out_the_others(book):
    book.work("u", "hands", 10, 13)
    book.again()
    book.work("v", "hands", 50, 57)
    assert book.ledger.stage_seconds(book.epoch) == {"hands": (1, 0, 7.0)}
    assert book.ledger.stage_seconds() == {"hands": (2, 0, 10.0)}


def test_what_an_interrupted_attempt_took_ends_where_the_interruption_was_noticed(book):
    book.start("u", "hands", 10)
    book.start("u", "hands", 14)
    assert book.ledger.stage_seconds() == {"hands": (2, 0, 4.0)}
    book.at(20)
    book.again()
    assert book.ledger.stage_seconds() == {"hands": (2, 0, 10.0)}


def test_a_start_that_is_told_twice_began_the_first_time(book):
    name = book.start("u", "hands", 10)
    book.at(15)
    book.ledger.start(name, "u", "hands", book.epoch, "worker")
    book.at(16)
    book.ledger.finish(name, "u", None, "Writing")
    book.ledger.start(name, "u", "hands", book.epoch, "worker")
    book.at(20)
    book.again()
    assert book.ledger.stage_seconds() == {"hands": (1, 0, 6.0)}, "nor does it open what is closed"


def test_a_rate_is_frames_per_second_of_successful_work_in_this_start(book):
    book.work("u", "hands", 0, 100)
    book.again()
    book.work("u", "hands", 200, 206)
    book.work("v", "hands", 210, 212)
    book.work("v", "hands", 220, 290, BROKEN)
    book.start("v", "publish", 300)
    assert book.ledger.stage_rates(book.epoch) == {"hands": 5.0}


def test_a_unit_that_is_not_registered_has_no_frames_and_so_no_rate(book):
    book.work("stranger", "hands", 0, 4)
    assert book.ledger.stage_rates(book.epoch) == {}


def test_work_too_short_for_the_clock_still_has_a_rate(book):
    book.work("v", "hands", 5, 5)
    assert book.ledger.stage_rates(book.epoch) == {"hands": 10e9}


def test_the_seconds_of_units_count_their_successful_stages_in_this_start(book):
    book.work("u", "hands", 0, 50)
    book.again()
    book.work("u", "hands", 100, 104, BROKEN)
    book.work("u", "hands", 110, 113)
    book.work("u", "publish", 120, 122)
    book.work("v", "hands", 130, 137)
    assert book.ledger.seconds_of(["u"], book.epoch) == 5.0
    assert book.ledger.seconds_of(["v"], book.epoch) == 7.0, "a question leaves nothing behind for the next"
    assert book.ledger.seconds_of(["u", "v", "u"], book.epoch) == 12.0
    assert book.ledger.seconds_of(["nobody"], book.epoch) == book.ledger.seconds_of([], book.epoch) == 0.0


def test_the_busy_span_runs_from_the_first_start_to_the_last_end(book):
    book.work("u", "hands", 5, 9)
    book.again()
    assert book.ledger.busy_span_s(book.epoch) == 0.0
    book.start("u", "hands", 100)
    assert book.ledger.busy_span_s(book.epoch) == 0.0, "nothing has ended"
    book.work("v", "hands", 107, 109)
    book.work("v", "publish", 110, 112, BROKEN)
    book.start("v", "publish", 130)
    assert book.ledger.busy_span_s(book.epoch) == 12.0


def test_only_units_whose_every_stage_succeeded_in_this_start_were_worked_on(book):
    book.work("before", "hands", 0, 1)
    book.again()
    for unit in ("v", "u", "failed"):
        book.work(unit, "hands", 10, 11)
    for unit in ("v", "u", "before"):
        book.work(unit, "publish", 20, 21)
    book.work("failed", "publish", 30, 31, BROKEN)
    assert book.ledger.worked_on(book.epoch, 2) == ["u", "v"]
