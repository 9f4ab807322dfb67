"""Kills of drivers, workers, sandboxes, ledgers, raylets and the ledger's file, over poisoned clips: the short soak."""

import pytest

from tests.faults.soak import ONLY_AT_WORK, ROLES, soak_once


@pytest.mark.timeout(900)
def test_a_killed_sandbox_and_a_driver_killed_with_its_ledger_leave_no_trace(tmp_path):
    # Every victim more costs a start of Ray, a minute on two slow cores; the slow test has them all.
    tally = soak_once(tmp_path, kills=2, clips=100, seed=1, among=("sandbox", "ledger_file"))
    assert tally.kills["ledger_file"] == 1 and sum(tally.kills.values()) == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_at_any_time_leave_no_trace_in_the_result(tmp_path):
    tally = soak_once(tmp_path, kills=9, clips=200, seed=1)
    assert sum(tally.kills.values()) == 9
    # A kill that came when nothing was left to work on struck the driver instead.
    assert set(tally.kills) >= set(ROLES) - set(ONLY_AT_WORK)
