"""The judge's book, message by message: withdrawals, broken machines, cancelled work, agendas alone, what is due."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable

import pytest

from messages.clock import SECOND
from messages.contracts import Finished, Interrupted, OrderedJob, Started
from messages.dispatch.agent import CAME, Dispatcher
from messages.dispatch.calendar import Calendar
from messages.dispatch.judge import ByRule
from messages.dispatch.task import Send, State, Task
from messages.dispatch.tenders import Tenders
from messages.negotiation import (
    Agenda,
    Authority,
    Award,
    AwardAck,
    Bid,
    Held,
    JudgeInForce,
    MachineBid,
    Offer,
    task_of,
)
from messages.pace import PATIENT
from messages.plant import Plant

LEASE_S, OVERDUE_S, REPEAT_S, RETRY_S, SILENT_S, SKEW_S = (
    round(getattr(PATIENT, f"{name}_s")) for name in ("lease", "overdue", "repeat", "retry", "silent", "skew")
)
ME = Authority(3, "0000000a")
NODE_OF = {"a1": "na", "a2": "na", "b1": "nb", "c1": "nc"}
KEY = ("T1", 0)


def agenda(
    revision: int,
    at: int,
    held: Iterable[Held] = (),
    *,
    down: dict[str, int | None] | None = None,
    free_at: dict[str, int] | None = None,
    judge: Authority = ME,
) -> Agenda:
    return Agenda(
        term=judge.term,
        session=judge.session,
        revision=revision,
        at=at * SECOND,
        awards=list(held),
        down=down or {},
        free_at=free_at or {},
    )


def held(job: str, op: int, machine: str, counter: int, state: str, at: int = 0) -> Held:
    return Held.model_validate(
        {
            "job": job,
            "op": op,
            "machine": machine,
            "counter": counter,
            "state": state,
            "at": at * SECOND,
            "valid_until": (at + LEASE_S) * SECOND,
        }
    )


def book_with(*tasks: Task, tags: bool = True, there: Iterable[str] = ("na", "nb", "nc")) -> Tenders:
    book = Tenders(ME, site="s", judge="cloud", machines=NODE_OF, tags=tags)
    for node in there:
        book.on_presence(node, True)
        book.on_agenda(node, agenda(1, 0))
    book.begin(0)
    for task in tasks:
        book.add(task)
    return book


def task(job: str = "T1", op: int = 0, machines: Iterable[str] = ("a1", "b1")) -> Task:
    return Task(job=job, op=op, seconds=dict.fromkeys(machines, 100.0))


def award(book: Tenders, key: tuple[str, int] = KEY, machine: str = "a1", at: int = 0) -> Send:
    """Open, tendered, bid for and awarded."""
    now = at * SECOND
    book.open(key)
    for send in book.offer(key, now):
        offer = send.message
        assert isinstance(offer, Offer)
        bids = [MachineBid(machine=name, start_at=now, end_at=now + SECOND, energy_kwh=0) for name in offer.seconds]
        bid = Bid(term=3, session=ME.session, job=key[0], op=key[1], round=offer.round, at=now,
                  valid_until=now + 600 * SECOND, bids=bids)  # fmt: skip
        book.on_bid(send.node, bid)
    (send,) = book.award(key, machine, now)
    return send


def answer(
    book: Tenders, key: tuple[str, int] = KEY, at: int = 0, *, yes: bool = True, state: str = "held",
    higher: int | None = None,
) -> None:  # fmt: skip
    one = book.tasks[key]
    ack = {"job": key[0], "op": key[1], "counter": one.counter, "accepted": yes, "at": at * SECOND, "state": state}
    if higher is not None:
        ack["held"] = higher
    book.on_ack(NODE_OF[one.machine or ""], AwardAck.model_validate(ack), at * SECOND)


def body(send: Send) -> tuple[int, str | None]:
    """Counter and machine of an award."""
    envelope = send.message
    assert isinstance(getattr(envelope, "body", None), Award)
    return envelope.counter, envelope.body.machine  # type: ignore[attr-defined]


def state(book: Tenders, key: tuple[str, int] = KEY) -> State:
    return book.tasks[key].state


def test_a_withdrawn_award_is_nobodys_only_after_its_node_has_said_so() -> None:
    book = book_with(task())
    first, _ = body(award(book))
    answer(book)
    (send,) = book.withdraw(KEY, 10 * SECOND, "not wanted there")
    assert body(send) == (first + 1, None)
    assert state(book) == "held"
    assert book.withdraw(KEY, 11 * SECOND, "again") == []  # once is enough
    assert book.on_time((10 + REPEAT_S - 1) * SECOND) == []
    (again,) = book.on_time((10 + REPEAT_S) * SECOND)
    assert body(again) == (first + 1, None)
    answer(book, at=80, state="none")
    assert state(book) == "open"
    assert book.tasks[KEY].machine is None


def test_work_that_had_begun_when_its_withdrawal_came_counts() -> None:
    book = book_with(task())
    award(book)
    answer(book)
    book.withdraw(KEY, 10 * SECOND, "not wanted there")
    answer(book, at=11, yes=False, state="started")
    assert (state(book), book.tasks[KEY].withdrawn) == ("working", False)
    assert book.withdraw(KEY, 12 * SECOND, "too late") == []
    book.on_record(Finished(at=111 * SECOND, machine="a1", job="T1", op=0, started_at=9 * SECOND))
    assert (state(book), book.tasks[KEY].began_at) == ("done", 9 * SECOND)


def test_a_node_that_may_begin_any_moment_is_asked_again_with_higher_counters_until_it_knows() -> None:
    book = book_with(task())
    first, _ = body(award(book))
    answer(book)
    book.withdraw(KEY, 10 * SECOND, "not wanted there")
    answer(book, at=11, yes=False, state="held", higher=first + 7)
    assert state(book) == "held"
    (again,) = book.on_time((10 + REPEAT_S) * SECOND)
    assert body(again) == (first + 8, None)


def test_an_award_that_is_refused_because_it_may_have_begun_is_given_to_nobody_else() -> None:
    book = book_with(task())
    award(book)
    answer(book, at=1, yes=False, state="held")
    assert state(book) == "awarded"
    assert book.tasks[KEY].withdrawn


def test_an_answer_to_a_rival_of_the_same_term_is_no_answer_to_this_judge() -> None:
    book = book_with(task())
    counter, _ = body(award(book))
    ack = AwardAck(job="T1", op=0, counter=counter, term=3, session="0000000b", accepted=True, at=SECOND, state="held")
    book.on_ack("na", ack, SECOND)
    assert state(book) == "awarded"


def test_a_node_that_does_not_answer_loses_the_award_but_only_by_its_word_or_at_the_lease_s_end() -> None:
    book = book_with(task())
    first, _ = body(award(book))
    sent = [send for at in range(SILENT_S + 1) for send in book.on_time(at * SECOND)]
    assert [body(send) for send in sent] == [(first, "a1")] * (SILENT_S // REPEAT_S - 1) + [(first + 1, None)]
    book.on_presence("na", False)
    assert book.on_time((LEASE_S - 1) * SECOND) == []
    assert state(book) == "awarded"
    book.on_time((LEASE_S + SKEW_S) * SECOND)
    assert state(book) == "open"  # the part's tag is the last fence


def test_without_tags_what_an_absent_node_may_have_begun_is_unknown_until_it_is_back() -> None:
    book = book_with(task(), tags=False)
    award(book)
    answer(book)
    book.on_presence("na", False)
    book.on_time((LEASE_S + SKEW_S) * SECOND)
    assert state(book) == "unknown"
    book.on_presence("na", True)
    book.on_agenda("na", agenda(2, LEASE_S + 60))
    book.on_time((LEASE_S + 61) * SECOND)
    assert state(book) == "open"


def test_a_lease_that_ended_is_asked_back_from_a_node_that_is_there_and_has_not_spoken_since() -> None:
    book = book_with(task(), tags=False)
    award(book)
    answer(book)
    (send,) = book.on_time((LEASE_S + SKEW_S) * SECOND)
    assert body(send)[1] is None
    answer(book, at=LEASE_S + 6, state="none")
    assert state(book) == "open"


def test_what_a_broken_machine_holds_goes_to_another_if_there_is_one() -> None:
    book = book_with(task(), task("T2", machines=["a1"]), task("T3", machines=["a1", "c1"]))
    for job in ("T1", "T2", "T3"):
        award(book, (job, 0))
        answer(book, (job, 0))
    book.on_presence("nc", False)
    listed = [held(job, 0, "a1", book.tasks[job, 0].counter, "held") for job in ("T1", "T2", "T3")]
    sends = book.on_agenda("na", agenda(2, 10, listed, down={"a1": 500 * SECOND}, free_at={"a2": 0}))
    assert [send.task for send in sends] == [task_of(*KEY)]
    assert [book.tasks[job, 0].withdrawn for job in ("T1", "T2", "T3")] == [True, False, False]
    assert book.on_agenda("na", agenda(2, 11, listed, down={"a1": None}, free_at={"a2": 0})) == []


def ahead() -> Tenders:
    """Operation 0 is held by a1, operation 1 by c1, which has its turn for it."""
    book = book_with(task(), task(op=1, machines=("c1",)), task(op=2, machines=("c1",)))
    assert not book.open_ahead(("T1", 1)), "nobody is at the operation before"
    award(book)
    answer(book)
    assert book.open_ahead(("T1", 1)) and not book.open_ahead(("T1", 2))
    envelope = award(book, ("T1", 1), "c1").message
    assert isinstance(envelope.body, Award) and envelope.body.ahead == 1  # type: ignore[attr-defined]
    answer(book, ("T1", 1))
    return book


@pytest.mark.parametrize("what", ["down", "away", "interrupted", "refused", "fine"])
def test_what_was_awarded_ahead_of_its_part_is_asked_back_when_the_part_does_not_come(what: str) -> None:
    book = ahead()
    if what == "down":
        book.on_agenda("na", agenda(2, 5, [held("T1", 0, "a1", book.tasks[KEY].counter, "held")], down={"a1": None}))
    elif what == "away":
        book.on_presence("na", False)
    elif what == "interrupted":
        book.on_record(Started(at=SECOND, machine="a1", job="T1", op=0, plan_revision=0))
        book.on_record(Interrupted(at=5 * SECOND, machine="a1", job="T1", op=0, started_at=SECOND))
    elif what == "refused":
        book.on_agenda("na", agenda(2, 1, [held("T1", 0, "a1", book.tasks[KEY].counter, "held")]))
        book.on_agenda("na", agenda(3, 5))
    else:
        book.on_record(Started(at=SECOND, machine="a1", job="T1", op=0, plan_revision=0))
    assert (book.next_due() == 0) == (what != "fine")
    back = [body(send) for send in book.on_time(5 * SECOND) if send.task == task_of("T1", 1)]
    assert [machine for _, machine in back] == ([] if what == "fine" else [None])
    assert book.tasks["T1", 1].withdrawn == (what != "fine")


def test_from_an_award_ahead_nobody_concludes_that_the_operations_before_are_done() -> None:
    given = held("T1", 2, "c1", 3 * 2**24 + 5, "held")
    book = book_with(task(), task(op=1, machines=("b1",)), task(op=2, machines=("c1",)))
    book.on_agenda("nc", agenda(2, 5, [given.model_copy(update={"ahead": 1})]))
    assert [one.state for one in book.ops("T1")] == ["done", "waiting", "held"]
    other = book_with(task(), task(op=1, machines=("b1",)), task(op=2, machines=("c1",)))
    other.on_agenda("nc", agenda(2, 5, [given]))
    assert [one.state for one in other.ops("T1")] == ["done", "done", "held"]


def test_without_tags_nothing_is_awarded_before_its_part_is_ready() -> None:
    book = book_with(task(), task(op=1, machines=("c1",)), tags=False)
    award(book)
    answer(book)
    assert not book.open_ahead(("T1", 1))
    assert state(book, ("T1", 1)) == "waiting"


def test_agendas_alone_tell_begin_end_and_interruption() -> None:
    book = book_with(task())
    counter, _ = body(award(book))
    book.on_agenda("na", agenda(2, 5, [held("T1", 0, "a1", counter, "held")]))
    assert state(book) == "held"
    book.on_agenda("na", agenda(3, 20, [held("T1", 0, "a1", counter, "started", 12)]))
    assert (state(book), book.tasks[KEY].began_at) == ("working", 12 * SECOND)
    book.on_agenda("na", agenda(4, 40))
    assert (state(book), book.tasks[KEY].lost) == ("open", {"a1": 40 * SECOND})
    late = Interrupted(at=39 * SECOND, machine="a1", job="T1", op=0, started_at=12 * SECOND)
    counter, _ = body(award(book, at=40 + RETRY_S))
    book.on_record(late)  # it tells of the run before
    assert state(book) == "awarded"
    book.on_agenda("na", agenda(6, 300, [held("T1", 0, "a1", counter, "finished", 290)]))
    book.on_agenda("na", agenda(5, 200, [held("T1", 0, "a1", counter, "started", 150)]))  # overtaken
    assert (state(book), book.tasks[KEY].ended_at) == ("done", 290 * SECOND)


def test_an_award_on_its_way_is_not_taken_for_given_up() -> None:
    book = book_with(task())
    award(book)
    book.on_agenda("na", agenda(2, 1))  # made before the award came
    assert state(book) == "awarded"


@pytest.mark.parametrize("first", ["jobs", "agendas"])
def test_a_judge_that_begins_with_jobs_and_agendas_does_nothing_again(first: str) -> None:
    book = Tenders(ME, site="s", judge="cloud", machines=NODE_OF)
    tasks = [task(job, op) for job in ("T1", "T2", "T3") for op in range(3)]
    if first == "jobs":
        for one in tasks:
            book.add(one)
    for node, listed in {
        "na": [held("T1", 0, "a1", 7, "finished", 10), held("T2", 1, "a2", 9, "started", 20)],
        "nb": [held("T1", 2, "b1", 8, "held", 30)],
        "nc": [],
    }.items():
        book.on_presence(node, True)
        book.on_agenda(node, agenda(2, 40, listed))
    if first == "agendas":
        for one in tasks:
            book.add(one)
    assert [one.state for one in book.ops("T1")] == ["done", "done", "held"]
    assert [one.state for one in book.ops("T2")] == ["done", "working", "waiting"]
    assert [one.state for one in book.ops("T3")] == ["waiting"] * 3


def test_cancelled_work_ends_unless_it_has_begun() -> None:
    book = book_with(*(task("T1", op) for op in range(3)), task("T2"), task("T3"))
    award(book, ("T1", 0))
    book.on_record(Started(at=SECOND, machine="a1", job="T1", op=0, plan_revision=0, award=1))
    award(book, ("T2", 0), "b1")
    answer(book, ("T2", 0))
    book.open(("T3", 0))
    sends = [send for key in list(book.tasks) for send in book.cancel(key, 5 * SECOND)]
    assert [body(send)[1] for send in sends] == [None]
    states = {key: one.state for key, one in book.tasks.items()}
    assert states == {("T1", 0): "working", ("T1", 1): "cancelled", ("T1", 2): "cancelled",
                      ("T2", 0): "held", ("T3", 0): "cancelled"}  # fmt: skip
    answer(book, ("T2", 0), 6, state="none")
    book.on_record(Finished(at=99 * SECOND, machine="a1", job="T1", op=0, started_at=SECOND))
    assert (state(book, ("T2", 0)), state(book, ("T1", 0))) == ("cancelled", "done")


def test_cancelled_work_that_is_interrupted_ends_and_facts_of_cancelled_work_count() -> None:
    book = book_with(task(), task("T2"))
    award(book)
    book.on_record(Started(at=SECOND, machine="a1", job="T1", op=0, plan_revision=0, award=1))
    book.cancel(KEY, 2 * SECOND)
    book.on_record(Interrupted(at=3 * SECOND, machine="a1", job="T1", op=0, started_at=SECOND))
    assert state(book) == "cancelled"
    book.cancel(("T2", 0), 2 * SECOND)
    (send,) = book.on_agenda("nb", agenda(2, 9, [held("T2", 0, "b1", 9, "held", 3)]))  # by an earlier judge
    assert body(send) == (book.tasks["T2", 0].counter, None)
    book.on_agenda("nb", agenda(3, 12, [held("T2", 0, "b1", 9, "started", 11)]))
    assert state(book, ("T2", 0)) == "working"


def counted(*tasks: Task) -> Tenders:
    """Behind every machine places are counted."""
    book = book_with(*tasks)
    book.reckon_with(keeps=NODE_OF)
    return book


def finished(op: int, machine: str, at: int) -> Finished:
    return Finished(at=at * SECOND, machine=machine, job="T1", op=op, started_at=(at - 1) * SECOND)


@pytest.mark.parametrize("when", ["nobody has it", "held elsewhere", "before it ends", "before it is known to end"])
def test_a_cancelled_job_ends_when_the_machine_where_its_part_lies_was_told_to_put_it_aside(when: str) -> None:
    book = counted(*(task("T1", op, machines=["a1", "b1"]) for op in range(3)))
    if when == "before it is known to end":
        for op in range(3):
            book.cancel(("T1", op), SECOND)
        assert [one.state for one in book.ops("T1")] == ["cancelled"] * 3
        book.on_agenda("na", agenda(2, 9, [held("T1", 0, "a1", 1, "finished", 8)]))
    elif when == "before it ends":
        book.on_record(Started(at=SECOND, machine="a1", job="T1", op=0, plan_revision=0))
        for op in range(3):
            book.cancel(("T1", op), 2 * SECOND)
        book.on_record(finished(0, "a1", 8))
    else:
        book.on_record(finished(0, "a1", 8))
        if when == "held elsewhere":
            award(book, ("T1", 1), "b1", 8)
            answer(book, ("T1", 1), 8)
        for op in range(3):
            for send in book.cancel(("T1", op), 8 * SECOND):
                assert (send.node, body(send)[1]) == ("nb", None)
        if when == "held elsewhere":
            answer(book, ("T1", 1), 9, state="none")
    assert [one.state for one in book.ops("T1")] == ["done", "held", "cancelled"]
    assert book.next_due() is not None
    (send,) = book.on_time(10 * SECOND)
    assert (send.node, body(send)[1]) == ("na", None)
    assert send.message.body.cancelled  # type: ignore[attr-defined]
    book.on_presence("na", False)
    assert book.on_time((LEASE_S + 100) * SECOND) == []
    assert state(book, ("T1", 1)) == "unknown", "its node may come back"
    assert book.tasks["T1", 1].why == "cancelled; na, which is away, has to put its part aside at a1"
    book.on_presence("na", True)
    (again,) = book.on_time((LEASE_S + 200) * SECOND)
    assert body(again) == body(send)
    answer(book, ("T1", 1), LEASE_S + 201, state="none")
    assert [one.state for one in book.ops("T1")] == ["done", "cancelled", "cancelled"]
    assert book.on_time((LEASE_S + 900) * SECOND) == []


@pytest.mark.parametrize("told_by", ["record", "agenda"])
def test_a_part_that_broke_with_its_machine_takes_its_job_with_it(told_by: str) -> None:
    book = book_with(*(task("T1", op) for op in range(3)), task("T2"))
    book.reckon_with(scraps=["a1"])
    award(book)
    book.on_agenda("na", agenda(2, 2, [held("T1", 0, "a1", book.tasks[KEY].counter, "started", 1)]))
    if told_by == "record":
        book.on_record(Interrupted(at=5 * SECOND, machine="a1", job="T1", op=0, started_at=SECOND))
    else:
        book.on_agenda("na", agenda(3, 5))
    assert {(one.state, one.why) for one in book.ops("T1")} == {
        ("cancelled", "scrapped: a1 broke down at work on op 0")
    }
    assert state(book, ("T2", 0)) == "waiting"


def test_what_is_awarded_elsewhere_of_a_part_that_turns_out_to_be_scrapped_is_taken_back() -> None:
    book = book_with(task())
    book.reckon_with(scraps=["a1"])
    award(book, machine="b1", at=10)
    (send,) = book.on_record(Interrupted(at=5 * SECOND, machine="a1", job="T1", op=0, started_at=SECOND))
    assert (send.node, body(send)[1]) == ("nb", None)
    answer(book, at=11, state="none")
    assert (state(book), book.tasks[KEY].why) == ("cancelled", "scrapped: a1 broke down at work on op 0")


def test_an_agenda_made_before_the_work_was_interrupted_does_not_begin_it_again() -> None:
    book = book_with(task())
    counter, _ = body(award(book))
    book.on_record(Interrupted(at=20 * SECOND, machine="a1", job="T1", op=0, started_at=12 * SECOND))
    assert state(book) == "open"
    book.on_agenda("na", agenda(3, 15, [held("T1", 0, "a1", counter, "started", 12)]))
    assert state(book) == "open"


def test_an_interruption_of_another_run_before_takes_nothing_from_who_has_it_now() -> None:
    book = book_with(task())
    award(book, at=100)
    book.on_record(Interrupted(at=90 * SECOND, machine="a1", job="T1", op=0, started_at=12 * SECOND))
    assert state(book) == "awarded"


def test_an_answer_to_an_award_before_is_none_to_the_withdrawal() -> None:
    book = book_with(task())
    first, _ = body(award(book))
    book.withdraw(KEY, 10 * SECOND, "not wanted there")
    book.on_ack("na", AwardAck(job="T1", op=0, counter=first, accepted=True, at=11 * SECOND, state="held"), 11 * SECOND)
    assert (state(book), book.tasks[KEY].withdrawn) == ("awarded", True)


def test_a_bid_counts_once_and_in_its_round_only() -> None:
    book = book_with(task(machines=["a1", "a2", "b1"]))
    book.open(KEY)
    book.offer(KEY, 0)

    def bid(machine: str, number: int) -> None:
        one = MachineBid(machine=machine, start_at=0, end_at=SECOND, energy_kwh=0)
        book.on_bid(NODE_OF[machine], Bid(term=3, session=ME.session, job="T1", op=0, round=number, at=0,
                                          valid_until=600 * SECOND, bids=[one]))  # fmt: skip

    bid("a1", book.tasks[KEY].round - 1)
    assert not book.tasks[KEY].bids
    bid("a1", book.tasks[KEY].round)
    bid("a2", book.tasks[KEY].round)
    assert list(book.tasks[KEY].bids) == ["a1"]


def test_why_a_task_is_offered_again_tells_bids_that_grew_old_from_none() -> None:
    book = book_with(task(machines=["a1"]))
    book.open(KEY)
    book.offer(KEY, 0)
    one = MachineBid(machine="a1", start_at=0, end_at=SECOND, energy_kwh=0)
    book.on_bid("na", Bid(term=3, session=ME.session, job="T1", op=0, round=book.tasks[KEY].round, at=0,
                          valid_until=600 * SECOND, bids=[one]))  # fmt: skip
    book.on_time(601 * SECOND)
    assert (state(book), book.tasks[KEY].why) == ("open", "bids grew old before an award")
    book.offer(KEY, 602 * SECOND)
    book.on_time(10_000 * SECOND)
    assert (state(book), book.tasks[KEY].why) == ("open", "nobody bid")


def test_cancelled_work_that_an_absent_node_may_have_begun_is_unknown_rather_than_over() -> None:
    book = book_with(task())
    award(book)
    answer(book)
    book.on_presence("na", False)
    book.cancel(KEY, SECOND)
    book.on_time((LEASE_S + SKEW_S) * SECOND)
    assert state(book) == "unknown"


def test_a_judge_awards_nothing_before_all_that_are_there_obey_it_however_long_ago_it_began() -> None:
    book = book_with(task(machines=["a1"]), there=["na"])
    award(book)
    answer(book, at=1, yes=False, state="none")
    book.on_presence("nb", True)
    late = (2 * LEASE_S) * SECOND
    for send in book.offer(KEY, late):
        one = MachineBid(machine="a1", start_at=late, end_at=late, energy_kwh=0)
        book.on_bid(send.node, Bid(term=3, session=ME.session, job="T1", op=0, round=book.tasks[KEY].round, at=late,
                                   valid_until=late + 600 * SECOND, bids=[one]))  # fmt: skip
    assert book.ready(late) == []
    book.on_agenda("nb", agenda(1, 2 * LEASE_S))
    assert [one.key for one in book.ready(late)] == [KEY]


def test_an_agenda_made_before_a_node_let_go_and_heard_after_it_changes_nothing() -> None:
    book = book_with(task())
    counter, _ = body(award(book))
    answer(book)
    book.withdraw(KEY, 10 * SECOND, "not wanted there")
    answer(book, at=11, state="none")
    book.on_agenda("na", agenda(2, 9, [held("T1", 0, "a1", counter, "held")]))
    assert state(book) == "open"


def test_of_two_nodes_that_say_they_hold_it_the_second_is_not_forgotten_whatever_its_counter() -> None:
    book = book_with(task(), tags=False)
    stale = agenda(2, 1, [held("T1", 0, "a1", 7, "held")], judge=ME)
    book.on_agenda("na", stale)
    book.withdraw(KEY, SECOND, "not wanted there")
    asked = book.tasks[KEY].counter
    assert book.on_agenda("nb", agenda(2, 2, [held("T1", 0, "b1", 9, "held")])) == []  # lower than what was asked back
    answer(book, at=3, state="none")
    one = book.tasks[KEY]
    assert (one.state, one.machine, one.counter, one.withdrawn) == ("held", "b1", 9, False)
    book.on_agenda("na", agenda(3, 2, [held("T1", 0, "a1", 7, "held")]))  # made before it let go
    assert (one.state, one.machine) == ("held", "b1")
    (send,) = book.withdraw(KEY, 4 * SECOND, "nor there")
    assert body(send)[0] > asked
    answer(book, at=5, state="none")
    assert state(book) == "open", "both have let it go"


def test_an_open_task_that_a_node_says_it_holds_is_its_whatever_was_asked_back_from_others() -> None:
    book = book_with(task(), tags=False)
    award(book)
    answer(book, at=1, yes=False, state="none")
    assert state(book) == "open"
    book.on_agenda("nb", agenda(2, 2, [held("T1", 0, "b1", 9, "held")]))
    assert (state(book), book.tasks[KEY].machine) == ("held", "b1")


@pytest.mark.parametrize("what", ["started", "finished"])
def test_all_that_say_they_hold_what_another_has_begun_are_told_to_let_go(what: str) -> None:
    book = book_with(task(machines=["a1", "b1", "c1"]), tags=False)
    book.on_agenda("na", agenda(2, 1, [held("T1", 0, "a1", 7, "held")]))
    book.on_agenda("nb", agenda(2, 1, [held("T1", 0, "b1", 5, "held")]))
    sends = book.on_agenda("nc", agenda(2, 3, [held("T1", 0, "c1", 3, what, 2)]))
    assert sorted((send.node, body(send)[1]) for send in sends) == [("na", None), ("nb", None)]
    assert len({body(send)[0] for send in sends}) == 2
    later = book.on_agenda("nb", agenda(3, 4, [held("T1", 0, "b1", 5, "held")]))
    assert [(send.node, body(send)[1]) for send in later] == [("nb", None)]
    assert book.on_agenda("nc", agenda(3, 4, [held("T1", 0, "c1", 3, "held", 1)])) == []
    assert book.tasks[KEY].machine == "c1"


def test_work_overdue_on_a_node_that_is_away_is_unknown_and_known_again_when_it_is_back() -> None:
    book = book_with(task())
    award(book)
    book.on_record(Started(at=SECOND, machine="a1", job="T1", op=0, plan_revision=0, award=1))
    late = (1 + 100 + OVERDUE_S) * SECOND
    book.on_time(late)
    assert state(book) == "working"  # its node is there: it will say
    book.on_presence("na", False)
    assert book.next_due() is not None
    book.on_time(late + SECOND)
    assert state(book) == "unknown"
    book.on_presence("na", True)
    book.on_agenda("na", agenda(2, 9999, [held("T1", 0, "a1", 1, "finished", 90)]))
    assert (state(book), book.tasks[KEY].ended_at) == ("done", 90 * SECOND)


def test_a_book_from_the_disk_goes_on() -> None:
    book = book_with(task(), task("T2"), task("T3"))
    award(book)
    award(book, ("T2", 0), "b1")
    answer(book, ("T2", 0))
    book.withdraw(("T2", 0), SECOND, "why not")
    kept = [Task.model_validate_json(one.model_dump_json()) for one in book.tasks.values()]
    again = Tenders(Authority(4, "0000000c"), site="s", judge="cloud", machines=NODE_OF, tasks=kept)
    for node in ("na", "nb", "nc"):
        again.on_presence(node, True)
    again.begin(2 * SECOND)
    sends = again.on_time(200 * SECOND)
    assert sorted(body(send) for send in sends) == sorted(
        [(book.tasks[KEY].counter, "a1"), (book.tasks["T2", 0].counter, None)]
    )
    again.on_agenda("na", agenda(1, 201, judge=again.authority))
    assert again._awarding._next(again.tasks[KEY]) > max(one.counter for one in kept)


def test_a_fenced_judge_sends_nothing() -> None:
    book = book_with(task(), task("T2"))
    award(book)
    book.open(("T2", 0))
    book.on_judge(JudgeInForce(term=4, session="00000000", judge="nb", at=0))
    assert book.fenced
    assert book.offer(("T2", 0), SECOND) == []
    assert book.withdraw(KEY, SECOND, "") == []
    assert book.on_time(10**6 * SECOND) == []
    assert book.next_due() is None


def random_story(book: Tenders, rng: random.Random, at: int) -> list[Send]:
    """Something that may happen to any task, the same for books in the same state."""
    key = rng.choice(sorted(book.tasks))
    one, now = book.tasks[key], at * SECOND
    match rng.randrange(7):
        case 0:
            book.open(key)
        case 1 if one.state == "open":
            return book.offer(key, now)
        case 2 if one.state == "tendered" and one.asked:
            node = one.asked[0]
            bids = [MachineBid(machine=name, start_at=now, end_at=now, energy_kwh=0)
                    for name in one.seconds if NODE_OF[name] == node]  # fmt: skip
            book.on_bid(node, Bid(term=3, session=ME.session, job=one.job, op=one.op, round=one.round, at=now,
                                  valid_until=now + rng.choice((20, 600)) * SECOND, bids=bids))  # fmt: skip
        case 3:
            ready = book.ready(now)
            if ready:
                return book.award(ready[0].key, sorted(ready[0].bids)[0], now)
        case 4 if one.machine is not None and not one.over:
            answer(book, key, at, yes=rng.random() < 0.7, state=rng.choice(("none", "held", "started")))
        case 5:
            node = rng.choice(("na", "nb", "nc"))
            book.on_presence(node, not book.nodes.online[node])
        case 6:
            return book.withdraw(key, now, "rest")
    return []


@pytest.mark.parametrize("seed", range(20))
def test_who_is_called_when_next_due_misses_nothing_that_who_is_called_all_the_time_does(seed: int) -> None:
    def story(step: Callable[[Tenders, int], list[Send]]) -> list[tuple[int, Send]]:
        rng = random.Random(seed)
        book = book_with(*(task(f"T{n}") for n in range(6)))
        found = []
        for at in range(3000):
            if at < 600 and rng.random() < 0.3:
                found += [(at, send) for send in random_story(book, rng, at)]
            found += [(at, send) for send in step(book, at * SECOND)]
        return found

    def when_due(book: Tenders, now: int) -> list[Send]:
        due = book.next_due()
        return book.on_time(now) if due is not None and due <= now else []

    always = story(lambda book, now: book.on_time(now))
    assert always
    assert story(when_due) == always


def test_a_calendar_keeps_the_time_said_last() -> None:
    rng, calendar, plain = random.Random(5), Calendar[int](), dict[int, int]()
    for now in range(2000):
        for _ in range(3):
            key, at = rng.randrange(40), rng.choice((None, now + rng.randrange(1, 300)))
            calendar.put(key, at)
            plain.pop(key, None)
            if at is not None:
                plain[key] = at
        assert calendar.next() == min(plain.values(), default=None)
        due = sorted((at, key) for key, at in plain.items() if at <= now)
        assert calendar.pop(now) == [key for _, key in due]
        for _, key in due:
            del plain[key]
        assert len(calendar._heap) <= 2 * 40 + 65


def calls(what: Callable[[], object]) -> int:
    """How many functions are called in it."""
    count = 0

    def profile(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(profile)
    try:
        what()
    finally:
        sys.setprofile(None)
    return count


def test_a_message_costs_the_same_however_many_tasks_there_are() -> None:
    def costs(many: int) -> list[int]:
        book = book_with(*(task(f"T{n}") for n in range(many)))
        for n in range(many):
            book.open((f"T{n}", 0))
        for n in range(0, many, 2):
            award(book, (f"T{n}", 0))
            answer(book, (f"T{n}", 0))
        book.on_time(SECOND)
        started = Started(at=SECOND, machine="a1", job="T2", op=0, plan_revision=0, award=1)
        finished = Finished(at=2 * SECOND, machine="a1", job="T2", op=0, started_at=SECOND)
        return [
            calls(lambda: award(book, ("T1", 0))),
            calls(lambda: answer(book, ("T1", 0))),
            calls(lambda: book.on_record(started)),
            calls(lambda: book.on_record(finished)),
            calls(lambda: book.withdraw(("T4", 0), 2 * SECOND, "")),
            calls(lambda: book.on_time(2 * SECOND)),
            calls(lambda: book.next_due()),
        ]

    few, many = costs(10), costs(1000)
    assert all(more <= 1.5 * less + 20 for less, more in zip(few, many, strict=True)), (few, many)


# --- the agent ---------------------------------------------------------------------------------------

PLANT = Plant.model_validate(
    {
        "site": "s",
        "tick_s": 1.0,
        "transport_s": 0.0,
        "products": ["p"],
        "routes": {"p": [{"time_h": {"a1": 0.1, "b1": 0.1}}, {"time_h": {"a2": 0.1}}]},
        "workshops": [
            {
                "name": f"w{node}",
                "node": node,
                "machines": [
                    {"id": name, "work_kw": 1, "idle_kw": 0, "preheat_kw": 0, "preheat_h": 0}
                    for name, where in NODE_OF.items()
                    if where == node
                ],
            }
            for node in ("na", "nb", "nc")
        ],
    }
)


def agent_with(*jobs: str, book: Tenders | None = None) -> Dispatcher:
    agent = Dispatcher(PLANT, book or book_with(), ByRule(kind="fifo"), t0=0)
    agent.add(OrderedJob(job=job, product="p") for job in jobs)
    return agent


def play(agent: Dispatcher, until: int, begin: int = 0) -> list[tuple[int, str, str, int]]:
    """Nodes that bid, acknowledge, begin at once and are done in time; what was awarded, when and to which machine.

    The agent is called at `next_due` only."""
    book, now, found = agent.book, begin * SECOND, []
    busy: dict[str, int] = {}
    coming: list[tuple[int, Finished]] = []
    while now <= until * SECOND and not agent.done:
        for send in agent.on_tick(now):
            if isinstance(send.message, Offer):
                offer = send.message
                bids = [MachineBid(machine=name, start_at=now, end_at=now + round(seconds * SECOND), energy_kwh=0)
                        for name, seconds in offer.seconds.items()]  # fmt: skip
                book.on_bid(send.node, Bid(term=3, session=ME.session, job=offer.job, op=offer.op, round=offer.round,
                                           at=now, valid_until=now + 600 * SECOND, bids=bids))  # fmt: skip
            elif send.what == "award" and send.message.body.machine:  # type: ignore[attr-defined]
                one = send.message.body  # type: ignore[attr-defined]
                answer(book, (one.job, one.op), now // SECOND)
                start = max(now, busy.get(one.machine, 0))
                busy[one.machine] = start + round(one.seconds * SECOND)
                coming.append((busy[one.machine], Finished(at=busy[one.machine], machine=one.machine, job=one.job,
                                                           op=one.op, started_at=start)))  # fmt: skip
                found.append((now // SECOND, one.job, one.machine, one.op))
        due = agent.next_due(now)
        assert due is not None
        now = min([due, *(at for at, _ in coming)])
        for at, record in coming:
            if at <= now:
                agent.on_record(record)
        coming = [one for one in coming if one[0] > now]
    return found


def test_an_agent_called_only_when_due_brings_all_work_to_its_end() -> None:
    agent = agent_with("T1", "T2", "T3")
    awarded = play(agent, 7200)
    assert agent.done
    assert sorted((job, op) for _, job, _, op in awarded) == [(f"T{n}", op) for n in (1, 2, 3) for op in (0, 1)]
    assert max(at for at, *_ in awarded) <= 4 * 360  # nothing waited for a clock


def test_an_order_released_later_is_not_tendered_before() -> None:
    agent = agent_with()
    agent.add([OrderedJob(job="T1", product="p", release_at=500 * SECOND)])
    awarded = play(agent, 7200)
    assert [(at, op) for at, *_, op in awarded] == [(500, 0), (860, 1)]


def test_a_cancelled_order_leaves_nothing_to_do_and_is_told_to_no_delegate() -> None:
    agent = agent_with("T1", "T2")
    agent.on_tick(0)
    agent.cancel(["T1"], SECOND)
    assert [one.job for one in agent.open_jobs()] == ["T2"]
    awarded = play(agent, 7200, begin=1)
    assert agent.done
    assert {job for _, job, *_ in awarded} == {"T2"}
    assert {one.state for one in agent.book.ops("T1")} == {"cancelled"}


def test_a_delegate_goes_on_where_the_judge_was() -> None:
    agent = agent_with("T1", "T2", "T3")
    play(agent, 400)
    jobs = agent.open_jobs()
    assert {one.job: (one.done, one.place) for one in jobs if one.done} == {"T1": (1, "a1"), "T2": (1, "b1")}
    delegate = agent_with(book=book_with())
    delegate.adopt(jobs, 400 * SECOND)
    awarded = play(delegate, 7200, begin=400)
    assert delegate.done
    assert sorted((job, op) for _, job, _, op in awarded) == [("T1", 1), ("T2", 1), ("T3", 0), ("T3", 1)]


def test_an_agent_goes_on_after_a_restart() -> None:
    agent = agent_with("T1", "T2", "T3")
    done = play(agent, 400)
    kept = [Task.model_validate_json(one.model_dump_json()) for one in agent.book.tasks.values()]
    book = Tenders(ME, site="s", judge="cloud", machines=NODE_OF, tasks=kept)
    given = book.of("awarded", "held")  # which the nodes have done meanwhile
    for node in ("na", "nb", "nc"):
        book.on_presence(node, True)
        own = [one for one in given if one.machine is not None and NODE_OF[one.machine] == node]
        book.on_agenda(
            node, agenda(9, 400, [held(*one.key, one.machine or "", one.counter, "finished", 399) for one in own])
        )
    again = Dispatcher(PLANT, book, ByRule(kind="fifo"), t0=0, jobs=dict(agent.jobs))
    awarded = play(again, 7200, begin=401)
    assert again.done
    assert sorted((job, op) for _, job, _, op in [*done, *awarded]) == [(f"T{n}", o) for n in (1, 2, 3) for o in (0, 1)]


def test_why_a_job_does_not_go_on_is_said() -> None:
    agent = agent_with("T1", "T2", book=book_with(there=()))
    agent.on_tick(0)
    assert agent.notices == dict.fromkeys(("T1", "T2"), "no able node is there")
    agent.book.on_presence("na", True)
    assert "node na" in agent.notices


def test_a_judge_is_told_what_came_unannounced_since_it_began_and_no_more_of_it_than_is_kept() -> None:
    agent = agent_with("j1")
    assert [work.release for work in agent.outlook(SECOND).shop.came] == [1]
    agent.add([OrderedJob(job="ahead", product="p", release_at=100 * SECOND), OrderedJob(job="j2", product="p")])
    came = agent.outlook(9 * SECOND).shop.came
    assert [work.release for work in came] == [1, 9], "what was announced ahead is no surprise"
    assert [len(work.steps) for work in came] == [len(PLANT.route("p"))] * 2, "the whole route, whatever is done of it"
    agent.add([OrderedJob(job="j2", product="p", due_at=500 * SECOND)])
    assert len(agent.outlook(10 * SECOND).shop.came) == 2, "it is known already"
    agent.add(OrderedJob(job=f"k{n}", product="p") for n in range(2 * CAME))
    assert len(agent.outlook(11 * SECOND).shop.came) == CAME
