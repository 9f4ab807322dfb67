"""The state chart and the judgement behind it: every phase, every reason, no dead end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.tracker.backend import Followed
from actors.tracker.banks import Bank
from actors.tracker.machine import TRANSITIONS, Machine, mermaid
from actors.tracker.records import Phase, Reason
from actors.tracker.target import Patience, Target
from models.embedding.colours import COLOURS

BANK = Bank(
    name="thing",
    embedder="none",
    fingerprint="0" * 16,
    vectors=np.eye(1, 4, dtype=np.float32),
    patches=np.zeros((1, 1, 4), np.float16),
    on_object=np.ones((1, 1), bool),
    colours=np.full((1, COLOURS), 1 / COLOURS, np.float32),
    camera_from_object=np.full((1, 4, 4), np.nan),
    threshold=0.7,
)
PLACE = np.zeros((40, 50), bool)
PLACE[10:20, 10:20] = True
GOOD, BAD = 0.8, 0.3


def seen(mask=PLACE, presence=1.0):
    return Followed(mask, presence)


def run(target, frames, now=None, score=GOOD, dark=False):
    for _ in range(frames):
        target.machine.tick()
        if target.followed:
            target.judge(now or seen(), dark, lambda mask: score)
    return target.machine.phase, target.machine.reason


def locked() -> Target:
    target = Target(BANK, Patience())
    target.machine.tick()
    target.searched(Reason.CANDIDATE, 0.8)
    assert run(target, 4) == (Phase.TRACK, Reason.CONFIRMED)
    return target


def test_a_candidate_is_confirmed_by_more_than_one_comparison():
    target = Target(BANK, Patience())
    target.machine.tick()
    target.searched(Reason.CANDIDATE, 0.8)
    assert run(target, 1) == (Phase.VERIFY, Reason.CANDIDATE)
    assert run(target, 2) == (Phase.TRACK, Reason.CONFIRMED)


def test_a_wrong_candidate_is_refuted():
    target = Target(BANK, Patience())
    target.searched(Reason.CANDIDATE, 0.8)
    assert run(target, 4, score=BAD) == (Phase.ACQUIRE, Reason.REFUTED)


def test_a_candidate_must_hold_what_a_search_demands():
    target = Target(BANK, Patience())
    target.searched(Reason.CANDIDATE, 0.8)
    assert run(target, 4, score=0.66) == (Phase.ACQUIRE, Reason.REFUTED)


def test_a_score_a_little_below_the_threshold_keeps_but_does_not_find():
    assert run(locked(), 40, score=0.66) == (Phase.TRACK, Reason.CONFIRMED)


def test_one_doubtful_frame_is_forgiven():
    target = locked()
    assert run(target, 1, now=seen(presence=0.0)) == (Phase.TRACK, Reason.CONFIRMED)
    assert run(target, 1, now=seen(presence=0.0)) == (Phase.SUSPECT, Reason.PRESENCE_LOW)


@pytest.mark.parametrize(
    "now, score, dark, reason",
    [
        (seen(np.ones((40, 50), bool)), GOOD, False, Reason.AREA_JUMP),
        (seen(np.zeros((40, 50), bool)), GOOD, False, Reason.MASK_EMPTY),
        (seen(), GOOD, True, Reason.DARK_FRAME),
        (seen(), BAD, False, Reason.APPEARANCE),
        (seen(), None, False, Reason.APPEARANCE),
    ],
)
def test_what_makes_a_track_suspect(now, score, dark, reason):
    target = locked()
    frames = Patience().track_every if reason is Reason.APPEARANCE else 1
    assert run(target, frames, now, score, dark) == (Phase.SUSPECT, reason)
    assert not target.learns


def test_a_suspect_recovers_only_after_a_comparison():
    target = locked()
    run(target, 1, dark=True)
    assert run(target, 2) == (Phase.SUSPECT, Reason.DARK_FRAME)
    assert run(target, 3) == (Phase.TRACK, Reason.RECOVERED)


def test_a_suspect_that_is_something_else_is_lost():
    target = locked()
    assert run(target, 40, score=BAD) == (Phase.LOST, Reason.REFUTED)


def test_darkness_is_waited_out_and_then_lost():
    target = locked()
    assert run(target, Patience().suspect_budget, dark=True)[0] is Phase.SUSPECT
    assert run(target, 2, dark=True) == (Phase.LOST, Reason.BUDGET_SPENT)


def test_the_lost_are_looked_for_nearby_and_then_everywhere():
    target = locked()
    run(target, 40, score=BAD)
    region = target.region_01(40, 50)
    np.testing.assert_allclose(region, [0, 0, 35 / 50, 35 / 40], atol=1e-6)
    target.searched(Reason.ALL_REJECTED, 0.5)
    assert target.machine.phase is Phase.LOST
    target.searched(Reason.NOTHING_PROPOSED, None)
    assert (target.machine.phase, target.machine.reason) == (Phase.ACQUIRE, Reason.BUDGET_SPENT)
    assert target.region_01(40, 50) is None


def test_a_saved_target_goes_on_where_it_was():
    first = locked()
    run(first, 1, dark=True)
    second = Target.restored(first.save(), Patience())
    for _ in range(20):
        assert run(first, 1, score=BAD) == run(second, 1, score=BAD)


def test_every_phase_can_be_left_and_reached():
    assert {before for before, _ in TRANSITIONS} == set(Phase)
    assert {after for (before, _), after in TRANSITIONS.items() if before is not after} == set(Phase)


def test_the_chart_shows_every_transition():
    chart = mermaid()
    for (before, reason), after in TRANSITIONS.items():
        if reason is not Reason.FRAME_SIZE_CHANGED:
            (line,) = [each for each in chart.splitlines() if each.strip().startswith(f"{before} --> {after}:")]
            assert reason.value in line


def test_the_machine_refuses_what_the_table_does_not_know():
    with pytest.raises(KeyError):
        Machine().fire(Reason.RECOVERED)


FRAME = st.tuples(
    st.sampled_from([PLACE, np.zeros((40, 50), bool), np.ones((40, 50), bool)]),
    st.floats(0, 1),
    st.sampled_from([GOOD, BAD, None]),
    st.booleans(),
    st.sampled_from([Reason.CANDIDATE, Reason.ALL_REJECTED, Reason.NOTHING_PROPOSED, None]),
)


@settings(max_examples=60)
@given(st.lists(FRAME, max_size=80))
def test_no_sequence_of_frames_breaks_it(frames):
    target = Target(BANK, Patience())
    for index, (mask, presence, score, dark, answer) in enumerate(frames):
        target.machine.tick()
        if target.followed:
            target.judge(Followed(mask, presence), dark, lambda _, score=score: score)
        elif answer is not None:
            target.searched(answer, score)
        state = target.state("thing", index, index, Followed(mask, presence))
        assert (state.mask is not None) <= (state.phase in (Phase.VERIFY, Phase.TRACK, Phase.SUSPECT))
        assert state.frames_in_phase <= max(Patience().suspect_budget, Patience().verify_budget) + 2 or state.phase in (
            Phase.TRACK,
            Phase.ACQUIRE,
            Phase.LOST,
        )
