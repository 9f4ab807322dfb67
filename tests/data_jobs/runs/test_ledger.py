"""The ledger against a model in plain Python: any order of calls, repeated calls, and a file that is opened again."""

import tempfile
from pathlib import Path
from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from data_jobs.runs.ledger import Ledger, Standing
from data_jobs.runs.outcome import Cause, Failure

UNITS = [f"u{i}" for i in range(4)]
STAGES = ["hands", "publish"]
FRAMES = {unit: 10 * (i + 1) for i, unit in enumerate(UNITS)}
units, stages, causes = st.sampled_from(UNITS), st.sampled_from(STAGES), st.sampled_from(get_args(Cause))


class Machine(RuleBasedStateMachine):
    """What the ledger should know, kept beside it."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = str(Path(self.folder.name) / "ledger.sqlite")
        self.ledger = Ledger(self.path)
        self.epoch, self.made = 0, 0
        self.states, self.letters = {}, {}
        self.attempts = {}  # id → [unit, stage, epoch, state, failure, when it ended]

    def teardown(self):
        self.ledger.close()
        self.folder.cleanup()

    @initialize()
    def first_start(self):
        self.begin()
        self.register(UNITS)

    def _interrupt(self, chosen):
        for attempt in self.attempts.values():
            if attempt[3] == "running" and chosen(attempt):
                attempt[3] = "interrupted"

    @rule()
    def begin(self):
        self.epoch += 1
        assert self.ledger.begin("run", "local", "{}") == self.epoch
        self._interrupt(lambda attempt: True)

    @rule()
    def killed_and_opened_again(self):
        self.ledger.close()
        self.ledger = Ledger(self.path)

    @rule(chosen=st.lists(units, max_size=4), state=st.sampled_from(["Pending", "Done"]))
    def register(self, chosen, state="Pending"):
        self.ledger.register([(unit, "video", FRAMES[unit]) for unit in chosen], state)
        self.states |= dict.fromkeys(chosen, state)

    @rule(unit=units, stage=stages)
    def start(self, unit, stage):
        self.made += 1
        name = f"a{self.made}"
        standing = self.ledger.start(name, unit, stage, self.epoch, "worker")
        self._interrupt(lambda attempt: attempt[:2] == [unit, stage])
        assert standing == self._standing(unit, stage)
        self.attempts[name] = [unit, stage, self.epoch, "running", None]
        self._move(unit, "Running")

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def start_repeated(self, data):
        """A call whose answer was lost comes again: nothing is recorded twice."""
        name = data.draw(st.sampled_from(self._running()))
        unit, stage, epoch, _, _ = self.attempts[name]
        assert self.ledger.start(name, unit, stage, epoch, "worker") == self._standing(unit, stage, epoch)
        self._move(unit, "Running")

    @precondition(lambda self: self._running())
    @rule(data=st.data(), cause=st.none() | causes)
    def finish(self, data, cause):
        name = data.draw(st.sampled_from(self._running()))
        failure = cause and Failure(cause, "Error", f"{name} failed", "")
        after = "Failed" if failure else "Writing"
        self.ledger.finish(name, self.attempts[name][0], failure, after)
        self._end(name, failure, after)

    @precondition(lambda self: self._running())
    @rule(data=st.data(), unit=units, stage=stages)
    def finish_and_start_in_one(self, data, unit, stage):
        done = data.draw(st.sampled_from(self._running()))
        self.made += 1
        name = f"a{self.made}"
        finish = (done, self.attempts[done][0], None, "Writing")
        standing = self.ledger.start_after([finish], name, unit, stage, self.epoch, "worker")
        self._end(done, None, "Writing")
        self._interrupt(lambda attempt: attempt[:2] == [unit, stage])
        assert standing == self._standing(unit, stage)
        self.attempts[name] = [unit, stage, self.epoch, "running", None]
        self._move(unit, "Running")

    @rule(unit=units, stage=stages, cause=causes)
    def bury(self, unit, stage, cause):
        self.ledger.bury(unit, stage, Failure(cause, "Error", "no", ""), 3)
        self.attempts = {n: a for n, a in self.attempts.items() if a[0] != unit or a[3] != "running"}
        self.letters[unit] = cause
        self._move(unit, "Dead")

    @rule(chosen=st.lists(units, max_size=3))
    def pardon(self, chosen):
        self.ledger.pardon(chosen)
        self.attempts = {n: a for n, a in self.attempts.items() if a[0] not in chosen}
        for unit in chosen:
            self.letters.pop(unit, None)
            self._move(unit, "Pending")

    @rule()
    def forget_and_register(self):
        self.ledger.forget()
        self.states, self.letters = {}, {}
        self.register(UNITS)

    @invariant()
    def counts_and_letters_agree(self):
        found = {state: number for state, (number, _) in self.ledger.counts().items()}
        frames = {state: number for state, (_, number) in self.ledger.counts().items()}
        states = set(self.states.values())
        assert found == {state: sum(s == state for s in self.states.values()) for state in states}
        assert frames == {state: sum(FRAMES[u] for u, s in self.states.items() if s == state) for state in states}
        causes_ = list(self.letters.values())
        assert self.ledger.dead_by_cause() == {cause: causes_.count(cause) for cause in set(causes_)}

    @invariant()
    def attempts_agree(self):
        told = self.ledger.stage_seconds()
        for stage in STAGES:
            of_stage = [attempt for attempt in self.attempts.values() if attempt[1] == stage]
            number, failed, seconds = told.get(stage, (0, 0, 0.0))
            assert (number, failed) == (len(of_stage), sum(attempt[3] == "failed" for attempt in of_stage))
            assert seconds >= 0

    def _running(self):
        return sorted(name for name, attempt in self.attempts.items() if attempt[3] == "running")

    def _end(self, name, failure, after):
        attempt = self.attempts.pop(name)
        attempt[3:] = ["failed" if failure else "done", failure]
        self.attempts[name] = attempt  # the newest to end stands last
        self._move(attempt[0], after)

    def _move(self, unit, state):
        if unit in self.states:
            self.states[unit] = state

    def _standing(self, unit, stage, epoch=None):
        of_unit = [attempt for attempt in self.attempts.values() if attempt[:2] == [unit, stage]]
        failed = [attempt[4] for attempt in of_unit if attempt[3] == "failed"]
        interrupted = [a for a in of_unit if a[3] == "interrupted" and a[2] == (epoch or self.epoch)]
        return Standing(len(failed), len(interrupted), failed[-1] if failed else None)


TestLedger = Machine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
