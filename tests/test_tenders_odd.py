"""The judge's book where plants, clocks, disks and nodes are not as they should be: it goes on, and says so."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from pydantic import ValidationError

from messages.clock import SECOND
from messages.contracts import Finished, Interrupted, Started, StateChanged
from messages.dispatch.monitoring import Monitor
from messages.dispatch.task import Task
from messages.dispatch.tenders import Tenders
from messages.negotiation import Agenda, Authority, Bid, Held, MachineBid, Offer
from messages.pace import PATIENT, Pace

ME = Authority(3, "0000000a")
NODE_OF = {"a1": "na", "a2": "na", "b1": "nb", "c1": "nc"}
WITHOUT_C = {name: node for name, node in NODE_OF.items() if node != "nc"}
KEY = ("T1", 0)
LEASE_US = round((PATIENT.lease_s + PATIENT.skew_s) * SECOND)


def agenda(revision: int, at: int, held: Iterable[Held] = ()) -> Agenda:
    return Agenda(term=ME.term, session=ME.session, revision=revision, at=at, awards=list(held))


def held(machine: str, state: str, *, counter: int = 5, at: int = 0) -> Held:
    body = {"job": KEY[0], "op": KEY[1], "machine": machine, "counter": counter, "state": state, "at": at}
    return Held.model_validate(body | {"valid_until": at + round(PATIENT.lease_s * SECOND)})


def book_of(*tasks: Task, node_of: dict[str, str] = NODE_OF, tags: bool = True, pace: Pace = PATIENT) -> Tenders:
    """Every node is there and obeys."""
    book = Tenders(ME, site="s", judge="cloud", machines=node_of, tags=tags, tasks=tasks, pace=pace)
    for node in sorted(set(node_of.values())):
        book.on_presence(node, True)
        book.on_agenda(node, agenda(1, 0))
    book.begin(0)
    return book


def task(machines: Iterable[str] = ("a1", "c1")) -> Task:
    return Task(job=KEY[0], op=KEY[1], seconds=dict.fromkeys(machines, 100.0))


def bid(offer: Offer, machines: Iterable[str], now: int, *, good_s: float = 600) -> Bid:
    bids = [MachineBid(machine=name, start_at=now, end_at=now + SECOND, energy_kwh=0) for name in machines]
    until = now + round(good_s * SECOND)
    return Bid(term=3, session=ME.session, job=offer.job, op=offer.op, round=offer.round, at=now,
               valid_until=until, bids=bids)  # fmt: skip


def asked(book: Tenders, now: int) -> dict[str, Offer]:
    """Node → what it was offered of the task now, if it is offered."""
    book.on_time(now)
    sends = [send for key in book.offerable() for send in book.offer(key, now)]
    return {send.node: send.message for send in sends if isinstance(send.message, Offer)}


def award(book: Tenders, machine: str) -> None:
    book.open(KEY)
    for node, offer in asked(book, 0).items():
        book.on_bid(node, bid(offer, [name for name in offer.seconds if NODE_OF[name] == node], 0))
    assert book.award(KEY, machine, 0)


def after_c_left(*, begun: bool = False, tags: bool = True) -> Tenders:
    """A book on the disk has an award to a machine that is not in the plant any more."""
    before = book_of(task(), tags=tags)
    award(before, "c1")
    if begun:
        before.on_record(Started(at=SECOND, machine="c1", job="T1", op=0, plan_revision=0))
    return book_of(before.tasks[KEY].model_copy(deep=True), node_of=WITHOUT_C, tags=tags)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("tags", [False, True])
def test_a_task_at_a_machine_that_left_the_plant_ends_no_judge(begun: bool, tags: bool) -> None:
    book = after_c_left(begun=begun, tags=tags)
    one = book.tasks[KEY]
    assert (one.state, "c1" in one.why) == ("unknown", True)
    assert book.on_connect() == []
    assert book.on_time(LEASE_US - 1) == []
    assert one.state == "unknown"
    assert book.on_time(LEASE_US) == []
    assert one.state == ("open" if tags and not begun else "unknown")  # the tag is the last fence
    assert "c1" in one.why
    book.cancel(KEY, LEASE_US + 1)
    assert [task.state for task in book.tasks.values()] == ["cancelled"]


def test_a_node_with_a_newer_plant_holds_what_it_says_and_can_be_asked_to_give_it_back() -> None:
    book = book_of(task(["a1", "b1"]))
    book.open(KEY)
    book.on_agenda("nb", agenda(2, SECOND, [held("new-1", "held")]))
    assert (book.tasks[KEY].state, book.tasks[KEY].machine) == ("held", "new-1")
    (send,) = book.withdraw(KEY, 2 * SECOND, "not wanted there")
    assert send.node == "nb"


def test_a_node_speaks_of_no_machine_of_another() -> None:
    book = book_of(task(["a1", "b1"]))
    book.open(KEY)
    book.on_agenda("nb", agenda(2, SECOND, [held("a1", "held")]))
    assert book.tasks[KEY].state == "open"
    book.on_agenda("nb", agenda(3, 2 * SECOND, [held("a1", "finished")]))  # what was done is done, whoever tells
    assert book.tasks[KEY].state == "done"


def test_a_machine_that_took_another_s_place_is_asked_for_what_was_open_before() -> None:
    book = book_of(task(["a1"]))
    book.open(KEY)
    book.add(task(["b1"]))
    assert list(asked(book, 0)) == ["nb"]


def test_a_node_with_a_slow_clock_keeps_nothing_from_the_others() -> None:
    book = book_of(task(["a1", "b1"]))
    book.open(KEY)
    at = 1000 * SECOND
    for node, offer in asked(book, at).items():
        book.on_bid(node, bid(offer, offer.seconds, at, good_s=-1 if node == "nb" else 600))
    assert book.is_ready(KEY, at)
    assert book.award(KEY, "b1", at) == []
    assert "clock of nb" in book.tasks[KEY].declined["b1"]
    assert book.award(KEY, "a1", at)


def test_bids_of_one_round_grow_old_one_by_one() -> None:
    book = book_of(task(["a1", "b1"]))
    book.open(KEY)
    for node, offer in asked(book, 0).items():
        book.on_bid(node, bid(offer, offer.seconds, 0, good_s=100 if node == "nb" else 600))
    book.on_time(100 * SECOND)
    assert (list(book.tasks[KEY].bids), book.is_ready(KEY, 100 * SECOND)) == (["a1"], True)
    assert book.award(KEY, "b1", 100 * SECOND) == []
    book.on_time(600 * SECOND)
    assert book.offerable() == [KEY]  # they were good for long: it is offered again at once


@pytest.mark.parametrize("good_us", [-1, 1])
def test_where_every_clock_is_slow_a_task_is_offered_now_and_then_and_not_at_full_speed(good_us: int) -> None:
    book = book_of(task(["a1", "b1"]))
    book.open(KEY)
    begin, minutes, offers = 1000 * SECOND, 10, 0
    for step in range(minutes * 600):
        now = begin + step * SECOND // 10
        for node, offer in asked(book, now).items():
            offers += 1
            book.on_bid(node, bid(offer, offer.seconds, now, good_s=good_us / SECOND))
    assert 2 <= offers <= 2 * (minutes * 60 / PATIENT.retry_s + 1)


def started(machine: str, at: int) -> Started:
    return Started(at=at, machine=machine, job=KEY[0], op=KEY[1], plan_revision=0)


def finished(machine: str, began_at: int, at: int) -> Finished:
    return Finished(at=at, machine=machine, job=KEY[0], op=KEY[1], started_at=began_at)


def test_a_machine_whose_clock_is_hours_ahead_delays_no_offer_and_silences_nobody() -> None:
    book = book_of(task(["a1", "b1"]))
    book.open(KEY)
    at, ahead = 10_000 * SECOND, 3 * 3600 * SECOND
    book.on_time(at)
    book.on_record(started("a1", at))
    book.on_record(Interrupted(at=at + ahead, machine="a1", job="T1", op=0, started_at=at))
    book.on_record(StateChanged(at=at + ahead, machine="a1", state="down"))
    soon = at + round((PATIENT.renew_s + PATIENT.retry_s) * SECOND)
    assert book.tasks[KEY].not_sooner <= soon
    assert asked(book, soon)
    book.on_record(StateChanged(at=soon, machine="a1", state="idle"))  # its clock was put right
    assert not book.machines.is_down("a1")
    book.on_record(started("b1", soon + SECOND))
    assert (book.tasks[KEY].state, book.tasks[KEY].machine) == ("working", "b1")


def test_work_that_does_not_end_on_a_node_that_is_there_is_told() -> None:
    book = book_of(task(["a1"]))
    book.open(KEY)
    book.on_record(started("a1", 0))
    due = round((100 + PATIENT.overdue_s) * SECOND)
    book.on_time(due - 1)
    assert book.tasks[KEY].why == ""
    book.on_time(due)
    assert (book.tasks[KEY].state, "a1 should have finished" in book.tasks[KEY].why) == ("working", True)
    assert book.next_due() is None or book.next_due() > due  # type: ignore[operator]
    book.on_record(finished("a1", 0, due + SECOND))
    assert book.tasks[KEY].why == ""


@pytest.mark.parametrize(
    ("second", "twice"),
    [(("a1", 0, 100), False), (("a1", 10, 101), False), (("b1", 10, 100), True), (("a1", 100, 200), True)],
)
def test_work_that_was_done_twice_is_told(second: tuple[str, int, int], twice: bool) -> None:
    book = book_of(task(["a1", "b1"]), tags=False)
    book.open(KEY)
    book.on_record(finished("a1", 0, 100 * SECOND))
    machine, began_at, at = second
    book.on_record(finished(machine, began_at * SECOND, at * SECOND))
    assert ("T1" in book.twice) is twice
    assert book.tasks[KEY].why.startswith("done twice") is twice
    again = book_of(book.tasks[KEY].model_copy(deep=True))
    assert again.twice == book.twice
    book.forget("T1")
    assert book.twice == {}


def test_a_node_with_a_new_disk_is_listened_to_and_what_the_old_one_said_is_past() -> None:
    book = book_of(task(["a1", "b1"]))
    book.open(KEY)
    book.on_agenda("na", agenda(400, SECOND, [held("a1", "started")]))
    new = 1000 * SECOND  # revisions of a new disk begin at its clock
    book.on_agenda("na", agenda(new, new))
    assert book.tasks[KEY].state == "open"
    book.on_agenda("na", agenda(401, 2 * SECOND, [held("a1", "started")]))
    assert book.tasks[KEY].state == "open"


def rounds(book: Tenders, count: int, now: int, *, late: bool = False) -> tuple[int, list[tuple[str, Bid]]]:
    """The time after so many rounds in which nobody was able, and what nodes said."""
    said = []
    for _ in range(count):
        for node, offer in asked(book, now).items():
            one = bid(offer, [], now)
            said.append((node, one))
            if not late:
                book.on_bid(node, one)
        now += round(2 * (book._awaiting.us(book.pace.offer_s) + book.pace.retry_s * SECOND))
        book.on_time(now)
    return now, said


def test_an_answer_that_comes_twice_makes_nobody_wait_longer_and_late_ones_not_for_ever() -> None:
    pace = Pace(offer_s=0.5, retry_s=0.5, silent_s=5.0, repeat_s=1.0)
    book = book_of(task(["a1", "b1"]), pace=pace)
    book.open(KEY)
    waits = book._awaiting.us(pace.offer_s)
    now, said = rounds(book, 40, SECOND)
    for one in said:
        book.on_bid(*one)
    assert book._awaiting.us(pace.offer_s) == waits
    now, said = rounds(book, 2, now, late=True)
    now, _ = rounds(book, 1, now)
    for one in said:
        book.on_bid(*one)
    longer = book._awaiting.us(pace.offer_s)
    assert longer > waits
    for one in said:
        book.on_bid(*one)
    assert book._awaiting.us(pace.offer_s) == longer
    rounds(book, 80, now)
    assert book._awaiting.us(pace.offer_s) == waits


@pytest.mark.parametrize("odd", [{"term": 2**29}, {"term": 2**34}, {"counter": 2**53 - 1}])
def test_no_word_of_a_node_can_be_beyond_what_a_judge_could_top(odd: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        if "term" in odd:
            Agenda(term=odd["term"], session=ME.session, revision=1, at=0)
        else:
            held("a1", "held", counter=odd["counter"])


@pytest.mark.parametrize(
    "odd", [{"end_at": 9}, {"cost": -1e300}, {"cost": float("nan")}, {"carbon_kg": float("inf")}, {"carbon_kg": 1e300}]
)
def test_a_bid_that_promises_what_cannot_be_is_none(odd: dict[str, float]) -> None:
    body = {"machine": "a1", "start_at": 10, "end_at": 20, "energy_kwh": 1.0, "cost": -2.0}
    assert MachineBid.model_validate(body).cost == -2.0  # whoever takes power may be paid for it
    with pytest.raises(ValidationError):
        MachineBid.model_validate(body | odd)


def test_the_view_of_the_site_says_what_was_done_twice() -> None:
    book = book_of(task(["a1", "b1"]), tags=False)
    book.open(KEY)
    monitor = Monitor(NODE_OF)
    for machine in ("a1", "b1"):
        book.on_record(finished(machine, 0, 100 * SECOND))
        view = monitor.view(book, batons={}, now=101 * SECOND)
        assert view is not None
        assert view.twice == (["T1"] if machine == "b1" else [])


@pytest.mark.parametrize("state", ["held", "started"])
def test_a_node_that_comes_back_with_an_empty_disk_is_heard_and_what_it_had_is_tendered_again(state: str) -> None:
    book = book_of(task(["a1"]))
    book.open(KEY)
    book.on_agenda("na", agenda(40, 10 * SECOND, [held("a1", state, at=10 * SECOND)]))
    assert book.tasks[KEY].state == ("held" if state == "held" else "working")
    book.on_presence("na", False)
    book.on_presence("na", True)
    book.on_agenda("na", agenda(1, 70 * SECOND))
    assert book.tasks[KEY].state == "open"
    assert "na" in asked(book, 200 * SECOND)


def test_what_a_node_said_before_changes_nothing_and_a_clock_set_back_silences_no_node() -> None:
    book = book_of(task(["a1"]))
    book.open(KEY)
    book.on_agenda("na", agenda(40, 100 * SECOND, [held("a1", "held", at=90 * SECOND)]))
    book.on_agenda("na", agenda(39, 99 * SECOND))
    book.on_agenda("na", agenda(39, 100 * SECOND))
    assert book.tasks[KEY].state == "held"
    book.on_agenda("na", agenda(41, 50 * SECOND, [held("a1", "started", at=40 * SECOND)]))
    assert book.tasks[KEY].state == "working"
