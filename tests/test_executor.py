"""The executor: what each machine of a node does next, decided without a bus, a disk or a clock."""

from __future__ import annotations

import pytest

from edge.executor import ACTION_LIFE_S, REPEAT_S, Executor, InForce, Out
from messages.clock import SECOND
from messages.contracts import Action, Finished, Hold, Interrupted, MachineEvent, PlanInForce, Refused, Started
from messages.plan import Assignment, MachineState, Plan
from messages.plant import Plant

T0 = 1_000_000_000 * SECOND
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


@pytest.fixture
def plant() -> Plant:
    kiln = {"work_kw": 100, "idle_kw": 20, "preheat_kw": 50, "preheat_h": 0.5}
    press = {"work_kw": 10, "idle_kw": 1, "preheat_kw": 0, "preheat_h": 0}
    return Plant.model_validate(
        {
            "site": "s1",
            "products": ["a", "b"],
            "workshops": [
                {"name": "press", "node": "press", "machines": [{"id": "press-1", **press, "time_h": [1, 1]}]},
                {
                    "name": "kiln",
                    "node": "kiln",
                    "machines": [{"id": f"kiln-{i}", **kiln, "time_h": [2, 2]} for i in (1, 2)],
                },
            ],
        }
    )


def in_force(
    *assignments: tuple[str, int, str, float, float],
    states: tuple[tuple[str, str, float, float], ...] = (),
    counter: int = 1,
    started: tuple[tuple[str, int], ...] = (),
    holds: tuple[Hold, ...] = (),
    lease_h: float = 48,
    target: str = "s1/all",
) -> InForce:
    """A plan in minutes; `assignments` and `states` give hours."""
    plan = Plan(
        t0=T0,
        revision=counter,
        assignments=tuple(
            Assignment(job=job, op=op, machine=machine, start=round(start * 60), end=round(end * 60))
            for job, op, machine, start, end in assignments
        ),
        machine_states=tuple(
            MachineState.model_validate(
                {"machine": machine, "state": state, "start": round(start * 60), "end": round(end * 60)}
            )
            for machine, state, start, end in states
        ),
    )
    body = PlanInForce(plan=plan, tick_s=60, frozen_until=T0, started=list(started), holds=list(holds))
    return InForce(key="plan", target=target, counter=counter, valid_until=T0 + round(lease_h * HOUR), body=body)


def asked(out: Out) -> list[tuple[str, str, str | None]]:
    return [(machine, action.kind, action.job) for machine, action in out.actions]


def only(out: Out) -> Action:
    assert len(out.actions) == 1, asked(out)
    return out.actions[0][1]


def event(kind: str, at: int, **more: object) -> list[MachineEvent]:
    return [MachineEvent.model_validate({"kind": kind, "at": at, **more})]


def test_an_operation_is_called_then_started_when_its_part_is_read_and_its_hour_has_come(plant: Plant) -> None:
    press = Executor(plant, "press")
    assert asked(press.on_plan(in_force(("b01", 0, "press-1", 1, 2)), T0)) == []
    assert asked(press.on_time(T0 + HOUR - 5 * MINUTE)) == []
    call = only(press.on_time(T0 + HOUR - 4 * MINUTE))
    assert (call.kind, call.job) == ("call", "b01")
    early = press.on_events("press-1", event("part_identified", T0, job="b01", action=call.id), T0 + HOUR - MINUTE)
    assert asked(early) == [], "the plan's hour has not come"
    start = only(press.on_time(T0 + HOUR))
    assert (start.kind, start.job, start.op, start.duration_s) == ("start", "b01", 0, 3600)


def test_an_operation_waits_for_its_part_however_late(plant: Plant) -> None:
    press = Executor(plant, "press")
    press.on_plan(in_force(("b01", 0, "press-1", 0, 1)), T0)
    for minute in range(300):
        kinds = {action.kind for _, action in press.on_time(T0 + minute * MINUTE).actions}
        assert kinds <= {"call"}


def test_the_wrong_part_starts_nothing(plant: Plant) -> None:
    press = Executor(plant, "press")
    press.on_plan(in_force(("b01", 0, "press-1", 0, 1)), T0)
    out = press.on_events("press-1", event("part_identified", T0, job="b02"), T0 + MINUTE)
    assert "start" not in {action.kind for _, action in out.actions}


def test_a_machine_is_preheated_as_planned_and_switched_off_where_the_plan_says(plant: Plant) -> None:
    kiln = Executor(plant, "kiln")
    plan = in_force(
        ("b01", 1, "kiln-1", 1, 3),
        ("b02", 1, "kiln-1", 8, 10),
        states=(("kiln-1", "preheat", 0.5, 1), ("kiln-1", "work", 1, 3), ("kiln-1", "preheat", 7.5, 8)),
    )
    assert asked(kiln.on_plan(plan, T0)) == []
    assert asked(kiln.on_time(T0 + HOUR // 2)) == [("kiln-1", "preheat", None)]
    kiln.on_events("kiln-1", event("state", T0 + HOUR // 2, state="preheat"), T0 + HOUR // 2)
    out = kiln.on_events("kiln-1", event("state", T0 + HOUR, state="idle"), T0 + HOUR)
    assert asked(out) == [("kiln-1", "call", "b01")]
    out = kiln.on_events("kiln-1", event("part_identified", T0 + HOUR, job="b01"), T0 + HOUR)
    assert asked(out) == [("kiln-1", "start", "b01")]
    kiln.on_events("kiln-1", event("started", T0 + HOUR, job="b01", op=1), T0 + HOUR)
    out = kiln.on_events("kiln-1", event("finished", T0 + 3 * HOUR, job="b01", op=1), T0 + 3 * HOUR)
    assert asked(out) == [("kiln-1", "off", None)], "four hours to the next operation, planned off"


def test_late_work_finds_a_warm_machine(plant: Plant) -> None:
    kiln = Executor(plant, "kiln")
    states = (("kiln-1", "preheat", 0.5, 1), ("kiln-1", "work", 1, 3))
    kiln.on_plan(in_force(("b01", 1, "kiln-1", 1, 3), states=states), T0)
    out = kiln.on_time(T0 + 5 * HOUR)
    assert ("kiln-1", "call", "b01") in asked(out)
    out = kiln.on_time(T0 + 5 * HOUR + MINUTE)
    assert asked(out) == [("kiln-1", "preheat", None)], "though its part is still on its way"


def test_an_unanswered_action_is_repeated_unchanged_and_given_up_in_the_end(plant: Plant) -> None:
    press = Executor(plant, "press")
    press.on_plan(in_force(("b01", 0, "press-1", 0, 1)), T0)
    press.on_events("press-1", event("part_identified", T0, job="b01"), T0)
    assert press.on_connect(T0)
    start = only(press.on_connect(T0))
    assert start.kind == "start"
    assert asked(press.on_time(T0 + (REPEAT_S - 1) * SECOND)) == []
    assert only(press.on_time(T0 + REPEAT_S * SECOND)) == start
    out = press.on_time(T0 + ACTION_LIFE_S * SECOND)
    assert [type(record) for record in out.records] == [Refused]


def test_a_refusal_is_recorded_and_asked_again_after_a_pause_under_a_new_id(plant: Plant) -> None:
    press = Executor(plant, "press")
    press.on_plan(in_force(("b01", 0, "press-1", 0, 1)), T0)
    start = only(press.on_events("press-1", event("part_identified", T0, job="b01"), T0))
    out = press.on_events("press-1", event("refused", T0, action=start.id, detail="door open"), T0)
    assert isinstance(out.records[0], Refused) and out.actions == ()
    call = only(press.on_time(T0 + HOUR))
    assert call.kind == "call", "what was believed of the machine may be wrong: the part is called for again"
    same = event("part_identified", T0, job="b01", action=call.id)
    out = press.on_events("press-1", same, T0 + HOUR)
    assert out.records == (), "it was there already"
    again = only(out)
    assert again.kind == "start" and again.id != start.id


def test_nothing_starts_after_the_lease(plant: Plant) -> None:
    press = Executor(plant, "press")
    press.on_plan(in_force(("b01", 0, "press-1", 2, 3), lease_h=1), T0)
    assert asked(press.on_time(T0 + 3 * HOUR)) == []


def test_a_plan_for_another_or_out_of_date_or_older_is_not_obeyed(plant: Plant) -> None:
    press = Executor(plant, "press")
    for bad in (in_force(target="s1/kiln"), in_force(lease_h=0)):
        out = press.on_plan(bad, T0)
        assert out.ack and not out.ack.accepted and out.ack.reason
    assert press.revision is None
    assert press.on_plan(in_force(counter=5), T0).ack
    assert press.on_plan(in_force(counter=5), T0) == Out(), "the plan in force again is no news"
    old = press.on_plan(in_force(("b01", 0, "press-1", 0, 1), counter=4), T0)
    assert old.ack and not old.ack.accepted and "counter 5 is in force" in (old.ack.reason or "")
    assert press.revision == 5


def test_a_restart_in_the_middle_of_an_operation_goes_on(plant: Plant) -> None:
    press = Executor(plant, "press")
    press.on_plan(in_force(("b01", 0, "press-1", 0, 1), ("b02", 0, "press-1", 1, 2)), T0)
    press.on_events("press-1", event("part_identified", T0, job="b01"), T0)
    press.on_events("press-1", event("started", T0, job="b01", op=0), T0)
    press = Executor(plant, "press", press.snapshot())
    assert "start" not in {action.kind for _, action in press.on_time(T0 + 30 * MINUTE).actions}
    out = press.on_events("press-1", event("finished", T0 + HOUR, job="b01", op=0, energy_kwh=9.5), T0 + HOUR)
    finished = out.records[0]
    assert isinstance(finished, Finished)
    assert (finished.started_at, finished.at, finished.energy_kwh) == (T0, T0 + HOUR, 9.5)
    press = Executor(plant, "press", press.snapshot())
    out = press.on_events("press-1", event("part_identified", T0, job="b02"), T0 + HOUR)
    assert asked(out) == [("press-1", "start", "b02")]


def test_a_started_operation_never_starts_again_whatever_a_plan_says(plant: Plant) -> None:
    kiln = Executor(plant, "kiln")
    kiln.on_plan(in_force(("b01", 1, "kiln-1", 0, 2)), T0)
    started = kiln.on_events("kiln-1", event("started", T0, job="b01", op=1), T0)
    assert isinstance(started.records[0], Started)
    out = kiln.on_plan(in_force(("b01", 1, "kiln-2", 1, 3), counter=2), T0 + MINUTE)
    assert out.ack and out.ack.accepted and out.ack.started == [("b01", 1)]
    assert asked(kiln.on_time(T0 + 2 * HOUR)) == []


def test_an_interrupted_operation_waits_for_the_next_plan(plant: Plant) -> None:
    kiln = Executor(plant, "kiln")
    kiln.on_plan(in_force(("b01", 1, "kiln-1", 0, 2)), T0)
    kiln.on_events("kiln-1", event("started", T0, job="b01", op=1), T0)
    events = [
        MachineEvent(kind="interrupted", at=T0 + HOUR, job="b01", op=1, energy_kwh=100),
        MachineEvent(kind="breakdown", at=T0 + HOUR, repair_at=T0 + 9 * HOUR),
    ]
    out = kiln.on_events("kiln-1", events, T0 + HOUR)
    assert isinstance(out.records[0], Interrupted) and out.records[0].started_at == T0
    assert out.actions == ()
    kiln = Executor(plant, "kiln", kiln.snapshot())
    kiln.on_events("kiln-2", event("started", T0 + HOUR, job="b09", op=1), T0 + HOUR)
    kiln.on_events("kiln-1", event("repaired", T0 + HOUR, state="idle"), T0 + HOUR)
    assert "b01" not in {action.job for _, action in kiln.on_time(T0 + HOUR).actions}, "not by the old plan"
    kiln.on_events("kiln-2", event("finished", T0 + HOUR, job="b09", op=1), T0 + HOUR)
    kiln.on_events("kiln-2", event("state", T0 + HOUR, state="off"), T0 + HOUR)
    out = kiln.on_plan(in_force(("b01", 1, "kiln-2", 1.5, 3.5), counter=2), T0 + HOUR)
    assert out.ack and out.ack.started == []
    assert ("kiln-2", "call", "b01") in asked(kiln.on_time(T0 + 90 * MINUTE))


def test_a_held_operation_waits_for_release_or_for_the_end_of_the_old_lease(plant: Plant) -> None:
    hold = Hold(job="b01", op=1, owner="other", until=T0 + 2 * HOUR)
    held = in_force(("b01", 1, "kiln-1", 0, 2), holds=(hold,))
    kiln = Executor(plant, "kiln")
    kiln.on_plan(held, T0)
    assert asked(kiln.on_time(T0 + HOUR)) == []
    assert asked(kiln.on_time(T0 + 2 * HOUR)) == [("kiln-1", "call", "b01")]
    kiln = Executor(plant, "kiln")
    kiln.on_plan(held, T0)
    released = kiln.on_plan(in_force(("b01", 1, "kiln-1", 0, 2), counter=2), T0 + MINUTE)
    assert asked(released) == [("kiln-1", "call", "b01")]
    mine = Hold(job="b01", op=1, owner="kiln", until=T0 + 2 * HOUR)
    kiln = Executor(plant, "kiln")
    assert asked(kiln.on_plan(in_force(("b01", 1, "kiln-1", 0, 2), holds=(mine,)), T0)) == [("kiln-1", "call", "b01")]


def test_what_a_machine_repeats_is_no_news(plant: Plant) -> None:
    press = Executor(plant, "press")
    press.on_plan(in_force(("b01", 0, "press-1", 0, 1), ("b02", 0, "press-1", 1, 2)), T0)
    press.on_events("press-1", event("part_identified", T0, job="b01"), T0)
    first = press.on_events("press-1", event("started", T0, job="b01", op=0, action="x"), T0)
    press.on_events("press-1", event("finished", T0 + HOUR, job="b01", op=0), T0 + HOUR)
    again = press.on_events("press-1", event("started", T0, job="b01", op=0, action="y"), T0 + HOUR)
    assert len(first.records) == 2 and again.records == ()
    out = press.on_events("press-1", event("part_identified", T0 + HOUR, job="b02"), T0 + HOUR)
    assert asked(out) == [("press-1", "start", "b02")], "the machine is free, whatever it said before"


def test_a_repeated_word_of_preheating_does_not_hide_that_the_machine_is_warm(plant: Plant) -> None:
    kiln = Executor(plant, "kiln")
    states = (("kiln-1", "preheat", 0.5, 1), ("kiln-1", "work", 1, 3))
    kiln.on_plan(in_force(("b01", 1, "kiln-1", 1, 3), states=states), T0)
    preheating = event("state", T0 + HOUR // 2, state="preheat", action="p")
    kiln.on_events("kiln-1", preheating, T0 + HOUR)
    kiln.on_events("kiln-1", event("state", T0 + HOUR, state="idle"), T0 + HOUR)
    kiln.on_events("kiln-1", preheating, T0 + HOUR)
    out = kiln.on_events("kiln-1", event("part_identified", T0 + HOUR, job="b01"), T0 + HOUR)
    assert asked(out) == [("kiln-1", "start", "b01")]


def test_a_start_in_doubt_is_owned_up_to_and_stays_asked_for(plant: Plant) -> None:
    kiln = Executor(plant, "kiln")
    kiln.on_plan(in_force(("b01", 1, "kiln-1", 0, 2)), T0)
    kiln.on_events("kiln-1", event("state", T0, state="idle"), T0)
    start = only(kiln.on_events("kiln-1", event("part_identified", T0, job="b01"), T0))
    out = kiln.on_plan(in_force(("b01", 1, "elsewhere", 1, 3), counter=2), T0 + MINUTE)
    assert out.ack and out.ack.started == [("b01", 1)]
    assert only(kiln.on_connect(T0 + MINUTE)) == start
    late = kiln.on_events("kiln-1", event("started", T0, job="b01", op=1, action=start.id), T0 + 2 * MINUTE)
    assert isinstance(late.records[0], Started)


def test_events_and_states_of_newer_machines_are_left_aside(plant: Plant) -> None:
    press = Executor(plant, "press")
    press.on_plan(in_force(("b01", 0, "press-1", 0, 1)), T0)
    out = press.on_events("press-1", event("tool_changed", T0, detail="x"), T0)
    assert out.records == ()
    out = press.on_events("press-1", event("state", T0, state="self_test"), T0)
    assert [record.kind for record in out.records] == ["state"]


def test_a_machine_that_starts_anew_is_cold_without_part_and_its_work_was_interrupted(plant: Plant) -> None:
    kiln = Executor(plant, "kiln")
    assert kiln.on_boot("kiln-1", "aaaaaaaa", T0) == Out()
    states = (("kiln-1", "preheat", -0.5, 0), ("kiln-1", "work", 0, 2), ("kiln-1", "work", 2, 4))
    kiln.on_plan(in_force(("b01", 1, "kiln-1", 0, 2), ("b02", 1, "kiln-1", 2, 4), states=states), T0)
    kiln.on_events("kiln-1", event("state", T0, state="idle"), T0)
    kiln.on_events("kiln-1", event("part_identified", T0, job="b01"), T0)
    kiln.on_events("kiln-1", event("started", T0, job="b01", op=1), T0)
    kiln = Executor(plant, "kiln", kiln.snapshot())
    assert kiln.on_boot("kiln-1", "aaaaaaaa", T0) == Out(), "the node started anew, not the machine"
    out = kiln.on_boot("kiln-1", "bbbbbbbb", T0 + HOUR)
    assert [record.kind for record in out.records] == ["interrupted", "state"]
    assert kiln.on_boot("kiln-1", "aaaaaaaa", T0 + HOUR) == Out(), "a late burst of the earlier boot"
    kinds = [(kind, job) for _, kind, job in asked(kiln.on_time(T0 + 2 * HOUR))]
    assert kinds == [("call", "b02")]
    assert asked(kiln.on_time(T0 + 2 * HOUR)) == [("kiln-1", "preheat", None)]


def test_a_counter_from_the_far_future_is_refused(plant: Plant) -> None:
    press = Executor(plant, "press")
    out = press.on_plan(in_force(counter=T0 + 11 * 366 * 24 * HOUR), T0)
    assert out.ack and not out.ack.accepted and "years ahead" in (out.ack.reason or "")
    press.on_plan(in_force(counter=7), T0)
    refused = press.on_plan(in_force(counter=6), T0)
    assert refused.ack and refused.ack.held == 7
