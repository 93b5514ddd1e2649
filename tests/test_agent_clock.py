"""A clock that was ahead and is put right: deciding goes on with the next sample, and no limit is loosened by it."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent_rig import SECOND, wanting
from hypothesis import given
from hypothesis import strategies as st
from test_agent import Rig
from test_safety import LIMITS, scene

from edge.safety import Past, judge

DAY = 86_400 * SECOND


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    found = Rig(tmp_path)
    found.release(1, wanting("reroute"), counter=1)
    return found


def test_after_a_clock_that_was_ahead_deciding_goes_on_with_the_next_sample(rig: Rig) -> None:
    assert rig.told(3) == ["reroute"] * 3
    right = rig.at
    rig.at += 7 * DAY  # of the host: node and cell share it
    assert rig.told(3) == ["reroute"] * 3
    ahead, rig.at = rig.at, right
    answer = rig.agent.on_burst(rig.cell.burst(rig.at + 900 * SECOND), rig.at + 900 * SECOND)
    assert answer.action is not None and answer.action.kind == "reroute"
    assert answer.action.valid_until == rig.at + 2 * 900 * SECOND
    assert answer.back_us == ahead - (rig.at + 900 * SECOND), "said once,"
    rig.at += 900 * SECOND
    assert rig.told(10) == ["reroute"] * 10
    assert rig.agent.counts.set_back == 1, "and counted once"


def test_what_was_said_of_a_time_that_is_not_yet_is_forgotten_with_it(rig: Rig) -> None:
    rig.told(2)
    right = rig.at
    rig.at += DAY
    rig.told(2)
    rig.at, learned = right, len(rig.learned)
    rig.told(1)
    assert len(rig.learned) == learned, "no transition leads back in time"
    assert {at for at, _ in rig.agent.newest.values.values()} == {rig.at}


def test_an_old_sample_that_comes_again_is_no_clock_put_back(rig: Rig) -> None:
    rig.told(3)
    old = rig.cell.burst(rig.at - 2 * 900 * SECOND)
    assert rig.hear(old) is None
    assert (rig.agent.counts.again, rig.agent.counts.set_back) == (1, 0)
    assert rig.told(1) == ["reroute"]


def test_a_step_back_that_is_no_more_than_a_step_is_waited_for(rig: Rig) -> None:
    rig.told(2)
    rig.at -= 600 * SECOND
    assert rig.hear(rig.cell.burst(rig.at)) is None
    assert rig.agent.counts.set_back == 0
    assert rig.told(1) == ["reroute"]


def test_an_action_of_a_time_that_is_not_yet_stays_for_its_dwell_and_no_longer() -> None:
    past = Past("disassemble_a", 90_000 * SECOND, (90_000 * SECOND,))
    first = judge(LIMITS, past, "disassemble_b", scene(1_000))
    assert first.action == "disassemble_a", "how long it was in force nobody knows: the dwell begins now"
    again = judge(LIMITS, first.past, "disassemble_b", scene(1_019))
    assert again.action == "disassemble_a"
    assert judge(LIMITS, again.past, "disassemble_b", scene(1_020)).action == "disassemble_b"


def test_changes_of_a_time_that_is_not_yet_are_used_up_for_their_time_and_no_longer() -> None:
    past = Past("disassemble_a", 90_000 * SECOND, (90_000 * SECOND,) * LIMITS.changes)
    first = judge(LIMITS, past, "disassemble_b", scene(1_030))
    assert first.action == "disassemble_a"
    later = judge(LIMITS, first.past, "disassemble_b", scene(1_030 + LIMITS.per_s - 1))
    assert (later.action, later.why) == ("disassemble_a", f"{LIMITS.changes} changes within {LIMITS.per_s:g} s")
    assert judge(LIMITS, later.past, "disassemble_b", scene(1_030 + LIMITS.per_s)).action == "disassemble_b"


@given(st.lists(st.tuples(st.floats(-1e5, 300), st.integers(0, 1)), min_size=1, max_size=60))
def test_wherever_the_clock_goes_no_more_changes_go_out_than_its_forward_steps_allow(
    steps: list[tuple[float, int]],
) -> None:
    """Counted on the time that really passed: what the clock says, without its steps back."""
    past, now_s, passed, changes = Past(), 200_000.0, 0.0, list[float]()
    for took_s, which in steps:
        now_s += took_s
        passed += max(0.0, took_s)
        verdict = judge(LIMITS, past, ("disassemble_a", "disassemble_b")[which], scene(now_s))
        if verdict.action != past.action and verdict.action != LIMITS.safe:
            changes.append(passed)
        past = verdict.past
    for at in changes:
        assert sum(at <= other < at + LIMITS.per_s for other in changes) <= LIMITS.changes
