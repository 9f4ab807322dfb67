"""Ticks keep an absolute schedule; lateness and missed slots are counted, a leaping clock is noticed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.rate import BIN_NS, Lateness, Schedule, Tick, VirtualClock

PERIOD = 20_000_000


def test_ticks_come_at_multiples_of_the_period():
    clock = VirtualClock(123)
    schedule = Schedule(50, clock)
    assert [schedule.next().due_ns for _ in range(4)] == [123, 123 + PERIOD, 123 + 2 * PERIOD, 123 + 3 * PERIOD]


def test_a_slow_tick_does_not_push_the_later_ones():
    clock = VirtualClock()
    schedule = Schedule(50, clock)
    schedule.next()
    clock.instant_ns += int(2.5 * PERIOD)  # work that took two and a half periods
    late = schedule.next()
    assert (late.index, late.missed, late.late_ns) == (2, 1, PERIOD // 2)
    assert schedule.next().due_ns == 3 * PERIOD


@given(st.lists(st.integers(0, 5 * PERIOD), min_size=1, max_size=50))
def test_served_and_missed_slots_add_up(works):
    clock, lateness = VirtualClock(), Lateness()
    schedule = Schedule(50, clock)
    for work in works:
        tick = schedule.next()
        lateness.add(tick)
        assert tick.due_ns == tick.index * PERIOD and tick.late_ns < PERIOD
        clock.instant_ns += work
    assert lateness.ticks + lateness.missed == tick.index + 1
    assert 0 < lateness.on_time() <= 1


@pytest.mark.parametrize("leap_ns", [3_600_000_000_000, -3_600_000_000_000])
def test_a_leaping_clock_is_told_and_the_schedule_goes_on_from_there(leap_ns):
    clock = VirtualClock(10**13)
    schedule = Schedule(50, clock)
    schedule.next()
    clock.instant_ns += leap_ns
    leapt = schedule.next()
    assert leapt.clock_jumped and leapt.missed == 0
    following = schedule.next()
    assert not following.clock_jumped and following.due_ns == leapt.due_ns + PERIOD


def test_percentiles_are_those_of_numpy_to_a_bin():
    lateness, rng = Lateness(), np.random.default_rng(0)
    values = rng.exponential(300_000, 5000).astype(int)
    for index, value in enumerate(values):
        lateness.add(Tick(index, 0, int(value), 0))
    for percent in (50, 90, 99):
        assert lateness.percentile_ms(percent) == pytest.approx(
            np.percentile(values, percent) / 1e6, abs=2 * BIN_NS / 1e6
        )
    assert lateness.worst_ns == values.max()
    assert Lateness().percentile_ms(99) == 0.0
