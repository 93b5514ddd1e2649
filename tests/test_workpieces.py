"""Batons: each job has one from its order to its end; its steps are what happened, whoever tells it, however often."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from messages.clock import SECOND
from messages.contracts import Finished, Interrupted, OrderedJob, PartIdentified, Record, Started, StateChanged
from messages.dispatch.monitoring import Monitor
from messages.dispatch.task import Task
from messages.dispatch.tenders import Tenders
from messages.dispatch.workpieces import Workpieces
from messages.negotiation import MAX_STEPS, Agenda, Authority, Held, Step

T0 = 1_750_000_000 * SECOND
MINUTE = 60 * SECOND
JOB = OrderedJob(job="b07", product="vase")
ME = Authority(3, "aaaaaaaa")

STORY: list[Record] = [
    PartIdentified(at=T0, machine="m1", job="b07"),
    Started(at=T0 + MINUTE, machine="m1", job="b07", op=0, plan_revision=0),
    Interrupted(
        at=T0 + 2 * MINUTE, machine="m1", job="b07", op=0, started_at=T0 + MINUTE, energy_kwh=0.5, detail="a breakdown"
    ),
    Started(at=T0 + 4 * MINUTE, machine="m2", job="b07", op=0, plan_revision=0),
    Finished(at=T0 + 9 * MINUTE, machine="m2", job="b07", op=0, started_at=T0 + 4 * MINUTE, energy_kwh=2.5),
    PartIdentified(at=T0 + 10 * MINUTE, machine="m3", job="b07"),
    Started(at=T0 + 11 * MINUTE, machine="m3", job="b07", op=1, plan_revision=0),
    Finished(at=T0 + 20 * MINUTE, machine="m3", job="b07", op=1, started_at=T0 + 11 * MINUTE, energy_kwh=4.0),
]
AGENDAS = [
    Agenda(
        term=1,
        session="aaaaaaaa",
        revision=0,
        at=T0,
        awards=[Held(job="b07", op=0, machine="m2", counter=5, state=state, at=at, valid_until=T0)],
    )
    for state, at in (("started", T0 + 4 * MINUTE), ("finished", T0 + 9 * MINUTE))
]
STEPS = [
    Step(op=0, machine="m1", start_at=T0 + MINUTE, end_at=T0 + 2 * MINUTE, interrupted=True, energy_kwh=0.5),
    Step(op=0, machine="m2", start_at=T0 + 4 * MINUTE, end_at=T0 + 9 * MINUTE, energy_kwh=2.5),
    Step(op=1, machine="m3", start_at=T0 + 11 * MINUTE, end_at=T0 + 20 * MINUTE, energy_kwh=4.0),
]


def pieces_of(heard: list[Record | Agenda]) -> Workpieces:
    pieces = Workpieces()
    pieces.add([JOB])
    for one in heard:
        if isinstance(one, Agenda):
            pieces.on_agenda(one)
        else:
            pieces.on_record(one)
    return pieces


def tasks(*states: str) -> dict[tuple[str, int], Task]:
    made = [Task.model_validate({"job": "b07", "op": op, "seconds": {}, "state": s}) for op, s in enumerate(states)]
    return {task.key: task for task in made}


@given(st.integers(0, 10**6), st.booleans())
def test_in_whatever_order_and_however_often_it_is_told_the_history_is_the_same(seed: int, agendas: bool) -> None:
    rng = random.Random(seed)
    heard: list[Record | Agenda] = [*STORY, *rng.sample(STORY, 3), *(AGENDAS * 2 if agendas else ())]
    rng.shuffle(heard)
    [baton] = pieces_of(heard).news(tasks("done", "done"), (), T0)
    assert (baton.steps, baton.place, baton.state, baton.op) == (STEPS, "m3", "done", None)


@given(st.sets(st.integers(0, len(STORY) - 1)))
def test_what_nobody_told_is_no_step(missing: set[int]) -> None:
    heard: list[Record | Agenda] = [one for n, one in enumerate(STORY) if n not in missing]
    [baton] = pieces_of(heard).news({}, (), T0)
    assert {(one.op, one.machine, one.start_at) for one in baton.steps} <= {
        (one.op, one.machine, one.start_at) for one in STEPS
    }
    assert baton.steps == sorted(baton.steps, key=lambda step: step.start_at)
    for step in baton.steps:
        assert step in STEPS or step.end_at is None


def test_agendas_alone_tell_what_is_begun_and_its_end_once_its_begin_is_known() -> None:
    pieces = pieces_of([AGENDAS[1]])
    assert pieces.news(tasks("done", "waiting"), (), T0)[0].steps == []
    pieces.on_agenda(AGENDAS[0])
    pieces.on_agenda(AGENDAS[1])
    [baton] = pieces.news({}, (), T0)
    assert baton.steps == [STEPS[1].model_copy(update={"energy_kwh": None})]
    pieces.on_record(STORY[4])
    [baton] = pieces.news({}, (), T0)
    assert baton.steps == [STEPS[1]], "the record knows what it took"


def test_the_end_of_a_run_whose_node_forgot_when_it_began_is_no_second_run() -> None:
    forgot = Finished(at=T0 + 9 * MINUTE, machine="m2", job="b07", op=0, started_at=T0 + 9 * MINUTE, energy_kwh=2.5)
    [baton] = pieces_of([STORY[3], forgot]).news({}, (), T0)
    assert baton.steps == [STEPS[1]]


def test_a_baton_is_said_when_it_changed_and_later_is_higher_whoever_says_it() -> None:
    pieces = Workpieces()
    pieces.add([JOB])
    states = [("waiting", "waiting"), ("tendered", "waiting"), ("held", "waiting"), ("working", "waiting")]
    states += [("done", "waiting"), ("done", "unknown"), ("done", "done")]
    said = []
    for n, state in enumerate(states):
        changed = tasks(*state)
        said += pieces.news(changed, [("b07", 0)], T0 + n)
        assert pieces.news(changed, [("b07", 0), ("b07", 1)], T0 + n) == [], "nothing is new"
    found = [(one.state, one.op, one.revision) for one in said]
    assert found == [
        ("waiting", 0, T0),
        ("tendered", 0, T0 + 1),
        ("awarded", 0, T0 + 2),
        ("working", 0, T0 + 3),
        ("waiting", 1, T0 + 4),
        ("unknown", 1, T0 + 5),
        ("done", None, T0 + 6),
    ]
    at_once = pieces.news(tasks("working", "waiting"), [("b07", 0)], T0 + 6)
    assert [one.revision for one in at_once] == [T0 + 7], "also at the same instant"
    other = Workpieces()
    other.add([JOB])
    assert [one.revision for one in other.news({}, (), T0 + 9)] == [T0 + 9], "another judge, later"


def test_a_cancelled_job_is_cancelled_only_when_nobody_can_begin_it_any_more() -> None:
    pieces = pieces_of([])
    pieces.cancel(["b07"])
    found = [
        pieces.news(tasks(*states), [("b07", 0)], T0)[0].state
        for states in (("held", "waiting"), ("cancelled", "cancelled"))
    ]
    assert found == ["awarded", "cancelled"]
    pieces.forget(["b07"])
    assert (pieces.news({}, [("b07", 0)], T0), pieces.states()) == ([], {})


def test_of_a_piece_that_never_gets_done_the_last_runs_stay() -> None:
    runs: list[Record | Agenda] = [
        Interrupted(at=T0 + n + 1, machine="m1", job="b07", op=0, started_at=T0 + n) for n in range(MAX_STEPS + 5)
    ]
    [baton] = pieces_of(runs).news({}, (), T0)
    assert (len(baton.steps), baton.steps[0].start_at) == (MAX_STEPS, T0 + 5)


def test_the_view_of_the_shop_is_what_nodes_and_machines_said_last() -> None:
    book = Tenders(ME, site="s1", judge="cloud", machines={"m1": "n1", "m2": "n1", "m3": "n2"})
    monitor = Monitor(book.nodes.node_of)
    book.on_presence("n1", True)
    book.on_presence("n2", True)
    held = [
        Held(job="b07", op=0, machine="m1", counter=5, state="started", at=T0, valid_until=T0),
        Held(job="b08", op=0, machine="m1", counter=6, state="held", at=T0, valid_until=T0),
    ]
    book.on_agenda(
        "n1",
        Agenda(
            term=ME.term,
            session=ME.session,
            revision=1,
            at=T0 + MINUTE,
            awards=held,
            free_at={"m1": T0 + 9 * MINUTE},
            down={"m2": T0 + 60 * MINUTE},
        ),
    )
    monitor.on_record(StateChanged(at=T0, machine="m3", state="preheat"))
    monitor.on_record(Finished(at=T0 + MINUTE, machine="m3", job="b06", op=0, started_at=T0))
    view = monitor.view(book, batons={"working": 1}, now=T0 + MINUTE)
    assert view is not None
    m1, m2, m3 = (view.machines[name] for name in ("m1", "m2", "m3"))
    assert (m1.state, m1.job, m1.op, m1.waiting, m1.free_at) == ("work", "b07", 0, 1, T0 + 9 * MINUTE)
    assert (m2.state, m2.repair_at) == ("down", T0 + 60 * MINUTE)
    assert (m3.state, m3.worked_s) == ("preheat", 60.0)
    assert monitor.view(book, batons={"working": 1}, now=T0 + 2 * MINUTE) is None, "nothing is new"
    monitor.on_record(StateChanged(at=T0 + 2 * MINUTE, machine="m2", state="idle"))
    book.on_presence("n2", False)
    later = monitor.view(book, batons={"working": 1}, now=T0 + 2 * MINUTE)
    assert later is not None and later.revision > view.revision
    assert (later.machines["m2"].state, later.machines["m3"].state, later.nodes["n2"]) == ("idle", "unknown", False)
