"""The verdict on a run: good only when something was made, by every rule; each planted fault is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.clock import SECOND
from messages.contracts import OrderedJob
from messages.floor import Floor, Segment
from messages.plant import Machine, Plant, Workshop
from shoal.audit import Audit
from shoal.outcome import Outcome, executed_violations
from shoal.processes import ProcessFailed
from shoal.stage import Stage

T0 = 1_700_000_000_000_000
HOUR = 3600 * SECOND
CLEAN = Audit(
    produced=8, stored=8, rejected=0, gaps=0, evicted=0, quarantined=0, duplicated=0, strangers=0, unexplained=0
)


def plant(on_breakdown: str = "restart") -> Plant:
    def machine(name: str, preheat_h: float) -> Machine:
        return Machine(id=name, work_kw=9, idle_kw=1, preheat_kw=5, preheat_h=preheat_h, time_h=(4.0,))

    return Plant(
        site="s1",
        products=("b01",),
        workshops=(
            Workshop(name="press", node="press", machines=(machine("press-1", 0),)),
            Workshop.model_validate(
                {
                    "name": "kiln",
                    "node": "kiln",
                    "machines": [machine("kiln-1", 1.0), machine("kiln-2", 1.0)],
                    "on_breakdown": on_breakdown,
                }
            ),
        ),
    )


JOBS = {"b01": OrderedJob(job="b01", product="b01")}
PRESS = Segment("b01", 0, "press-1", T0, T0 + 4 * HOUR)
FIRE = Segment("b01", 1, "kiln-1", T0 + 5 * HOUR, T0 + 9 * HOUR)
WARM = [
    (T0 + 3 * HOUR + 7, "preheat"),
    (T0 + 4 * HOUR + 7, "idle"),
    (T0 + 5 * HOUR, "work"),
    (T0 + 9 * HOUR, "idle"),
    (T0 + 10 * HOUR, "off"),
]


def floor(*segments: Segment, states: list[tuple[int, str]] = WARM) -> Floor:
    return Floor(segments=list(segments), states={"kiln-1": states})


def test_a_run_by_the_rules_breaks_none() -> None:
    assert executed_violations(plant(), JOBS, floor(PRESS, FIRE)) == []


@settings(derandomize=True, deadline=None)
@given(share=st.floats(-0.1, 0.1), second=st.integers(-1, 1))
def test_durations_may_stray_as_far_as_the_simulator_lets_them(share: float, second: int) -> None:
    end = FIRE.start + round(4 * HOUR * (1 + share)) + second * SECOND
    assert executed_violations(plant(), JOBS, floor(PRESS, replace(FIRE, end=end))) == []


def test_a_breakdown_of_no_length_is_none_and_one_said_again_goes_on() -> None:
    short = [*WARM[:4], (T0 + 9 * HOUR + 7, "down"), (T0 + 9 * HOUR + 7, "idle"), WARM[4]]
    assert executed_violations(plant(), JOBS, floor(PRESS, FIRE, states=short)) == []
    again = [*WARM[:2], *((T0 + round(at * HOUR), state) for at, state in ((4.2, "down"), (9.2, "down"), (9.5, "off")))]
    assert any("breakdown" in fault for fault in executed_violations(plant(), JOBS, floor(PRESS, FIRE, states=again)))


@settings(derandomize=True, deadline=None)
@given(share=st.floats(0.101, 0.9), sign=st.sampled_from([-1, 1]))
def test_a_duration_beyond_that_is_seen(share: float, sign: int) -> None:
    end = FIRE.start + round(4 * HOUR * (1 + sign * share))
    (fault,) = executed_violations(plant(), JOBS, floor(PRESS, replace(FIRE, end=end)))
    assert "nominal are 4 h" in fault


@pytest.mark.parametrize(
    ("states", "why"),
    [
        ([], "never switched on"),
        (WARM[1:], "idle without preheating"),
        ([(T0 + 3 * HOUR + 2 * SECOND, "preheat"), (T0 + 4 * HOUR, "idle"), *WARM[2:]], "preheated two seconds less"),
        ([WARM[0], WARM[1], (T0 + 5 * HOUR - 60 * SECOND, "off"), *WARM[2:]], "switched off again"),
        ([WARM[0], WARM[1], (T0 + 5 * HOUR - 60 * SECOND, "down"), *WARM[2:]], "broken down since"),
        ([WARM[0], *WARM[3:]], "still being preheated when it began"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_work_in_a_cold_machine_is_seen(states: list[tuple[int, str]], why: str) -> None:
    faults = executed_violations(plant(), JOBS, floor(PRESS, FIRE, states=states))
    assert any("cold machine" in fault for fault in faults), why


@pytest.mark.parametrize(
    ("jobs", "segments", "words"),
    [
        ({"b01": JOBS["b01"].model_copy(update={"release_at": T0 + HOUR})}, (PRESS, FIRE), "starts before"),
        (JOBS, (replace(PRESS, end=FIRE.start - 100 * SECOND, start=T0 + HOUR), FIRE), "transport takes 120 s"),
        (JOBS, (PRESS,), "not planned"),
        (JOBS, (PRESS, FIRE, FIRE), "planned 2 times"),
        (JOBS, (replace(PRESS, machine="kiln-1"), FIRE), "cannot do it"),
        ({}, (PRESS, FIRE), "not in the problem"),
        (JOBS, (PRESS, FIRE, replace(FIRE, job="b02", interrupted=True)), "interrupted job b02 overlaps"),
    ],
)
def test_every_other_rule_that_is_broken_is_seen(
    jobs: dict[str, OrderedJob], segments: tuple[Segment, ...], words: str
) -> None:
    assert any(words in fault for fault in executed_violations(plant(), jobs, floor(*segments)))


def test_a_firing_done_in_a_second_in_a_cold_kiln_right_after_the_press_breaks_three_rules() -> None:
    start = PRESS.end or 0
    hasty = replace(FIRE, start=start, end=start + SECOND)
    faults = executed_violations(plant(), JOBS, floor(PRESS, hasty, states=[]))
    assert [words for words in ("nominal", "cold", "transport") if any(words in fault for fault in faults)] == [
        "nominal",
        "cold",
        "transport",
    ]


def test_a_resumed_operation_counts_as_a_whole_and_a_restarted_one_anew() -> None:
    first = replace(FIRE, end=FIRE.start + HOUR, interrupted=True)
    rest = replace(FIRE, start=T0 + 12 * HOUR, end=T0 + 15 * HOUR)
    states = [
        *WARM[:3], (T0 + 6 * HOUR, "down"), (T0 + 8 * HOUR, "off"),
        (T0 + 11 * HOUR, "preheat"), (T0 + 12 * HOUR, "idle"), (T0 + 12 * HOUR, "work"),
    ]  # fmt: skip
    history = floor(PRESS, first, rest, states=states)
    assert executed_violations(plant("resume"), JOBS, history) == []
    assert any("nominal" in fault for fault in executed_violations(plant("restart"), JOBS, history))


GOOD = Outcome(
    audit=CLEAN,
    jobs=1,
    jobs_done=1,
    makespan_planned_h=9.0,
    makespan_actual_h=9.0,
    energy_planned_kwh=1.0,
    energy_kwh=1.0,
    carbon_kg=1.0,
    replans=0,
    faults=(),
    seconds=1.0,
)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda one: replace(one, jobs=0, jobs_done=0), "nothing was ordered"),
        (lambda one: replace(one, jobs_done=0), "0 of 1 batches made"),
        (lambda one: replace(one, audit=replace(CLEAN, produced=0, stored=0)), "no reading was produced"),
        (lambda one: replace(one, audit=replace(CLEAN, stored=7)), "1 readings lost"),
        (lambda one: replace(one, faults=("kiln-1: cold",)), "kiln-1: cold"),
        (lambda one: replace(one, given_up="not done after 72 plant hours: given up"), "given up"),
    ],
)
def test_a_run_is_good_only_if_something_was_done_and_nothing_is_against_it(
    spoil: Callable[[Outcome], Outcome], why: str
) -> None:
    assert GOOD.good and GOOD.failures == ()
    spoilt = spoil(GOOD)
    assert not spoilt.good
    assert any(why in text for text in spoilt.failures)


async def test_whoever_gives_the_clock_no_answer_is_named(tmp_path: Path) -> None:
    stage = Stage(tmp_path, plant(), T0, lambda port, clock: {})
    stage.clock.patience_s = 0.05
    async with stage:
        await stage.step()
        _, writer = await asyncio.open_connection(stage.clock.host, stage.clock.port)
        writer.write(b'{"name": "kiln", "phase": "node"}\n')
        await stage.clock.gather({"kiln"}, timeout_s=60)
        with pytest.raises(ProcessFailed, match="kiln gave the clock no answer"):
            await stage.step()
        writer.close()


async def test_a_stage_cancelled_while_it_opens_leaves_no_broker(tmp_path: Path) -> None:
    stage = Stage(tmp_path, plant(), T0, lambda port, clock: {})
    opening = asyncio.create_task(stage.__aenter__())
    await asyncio.sleep(0)  # its thread has begun
    opening.cancel()
    await asyncio.wait({opening})
    assert opening.cancelled() and not stage.broker.running
