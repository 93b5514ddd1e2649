"""The judge's file: what it holds after a crash is what was said, and no more than what is bounded."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

import cloud.swarmbook as module
from cloud.retained import Retained
from cloud.swarmbook import SwarmBook, Told
from messages.clock import SECOND
from messages.contracts import Order, OrderedJob
from messages.dispatch.task import Send, Task
from messages.dispatch.tenders import Tenders
from messages.errors import BadMessage
from messages.negotiation import Agenda, Authority, AwardAck, Held, MachineBid, Workpiece, task_of

T0 = 1_750_000_000 * SECOND
ME = Authority(3, "aaaaaaaa")
TOLD = Told("cell-1", "b-0", "b", 0, 17, T0, False)


def order(*jobs: str, revision: int = 0) -> Order:
    made = [OrderedJob(job=job, product="p") for job in jobs]
    return Order(order="o1", revision=revision, placed_at=T0, jobs=made)


def test_all_that_one_step_changed_is_there_or_nothing_of_it(tmp_path: Path) -> None:
    with closing(SwarmBook(tmp_path / "judge.db")) as book:
        book.keep([Task(job="b", op=0, seconds={"m": 60.0}, state="held", machine="m", counter=17)], told=[TOLD])
        with pytest.raises(ZeroDivisionError), book.together():
            book.keep([Task(job="b", op=0, seconds={"m": 60.0}, state="done")], gone=[("c", 0)], told=[])
            book.cancel([OrderedJob(job="c", product="p")])
            raise ZeroDivisionError
        book.remember(term=4, session="bbbbbbbb")
    with closing(SwarmBook(tmp_path / "judge.db")) as book:
        [task] = book.tasks()
        assert (task.state, task.machine, task.counter) == ("held", "m", 17)
        assert book.told() == [TOLD]
        assert (book.state().term, book.state().cancelled) == (4, [])
        book.cleared([TOLD._replace(counter=16)])
        assert book.told() == [TOLD], "what was said since stays"
        book.cleared([TOLD])
        book.keep([], gone=[task.key])
        assert (book.told(), book.tasks()) == ([], [])


def test_the_last_batons_stay_and_older_ones_are_named_until_the_broker_has_them_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BATONS", 3)
    with closing(SwarmBook(tmp_path / "judge.db")) as book:
        book.keep_batons(Workpiece(job=f"j{n}", product="p", revision=n, at=T0, state="done") for n in range(5))
        book.keep_batons([Workpiece(job="j2", product="p", revision=9, at=T0, state="done")])
        assert set(book.old_batons()) == {"j0", "j1"}
        for job in book.old_batons():
            book.drop_baton(job)
        assert [(one.job, one.revision) for one in book.batons()] == [("j3", 3), ("j4", 4), ("j2", 9)]
        assert book.old_batons() == []


def test_a_cancelled_name_stays_taken_and_the_order_itself_may_go_on(tmp_path: Path) -> None:
    with closing(SwarmBook(tmp_path / "judge.db")) as book:
        book.place(order("a", "b"), begun=set())
        book.place(order("a", revision=1), begun={"a"})
        book.cancel([OrderedJob(job="b", product="p")])
        book.forget_cancelled(["b"])
        assert book.state().cancelled == []
        with pytest.raises(BadMessage, match="'b'"):
            book.place(order("a", "b", revision=2), begun={"a"})
        assert book.place(order("a", "c", revision=2), begun={"a"})


def test_what_the_broker_retains_is_cleared_once_nobody_needs_it(tmp_path: Path) -> None:
    book = Tenders(ME, site="s1", judge="cloud", machines={"m": "cell-1", "n": "cell-2"})
    retained, now, key = Retained(), T0, ("b", 0)

    def over(*, everything: bool = False) -> list[tuple[str, int]]:
        keys = None if everything else list(book.changed)
        book.changed.clear()
        return [(one.node, one.counter) for one in retained.over(book, now, keys)]

    def tell(sends: list[Send]) -> int:
        [send] = sends
        return retained.tell(send).counter

    for node in ("cell-1", "cell-2"):
        book.on_presence(node, True)
        book.on_agenda(node, agenda(now))
    book.begin(now)
    book.add(Task(job="b", op=0, seconds={"m": 60.0, "n": 60.0}))
    book.open(key)
    task = book.tasks[key]
    task.state, task.good_until = "tendered", dict.fromkeys("mn", now + 600 * SECOND)
    task.bids = {name: MachineBid(machine=name, start_at=now, end_at=now, energy_kwh=0) for name in "mn"}
    first = tell(book.award(key, "m", now))
    assert over() == [], "it is in force"
    second = tell(book.withdraw(key, now, "m broke down"))
    assert second > first
    assert over() == [], "its node has not heard it"
    retained.on_ack("cell-1", key, first)
    assert over() == [], "that was the answer to the award"
    ack = AwardAck(job="b", op=0, counter=second, accepted=True, at=now)
    retained.on_ack("cell-1", key, second)
    book.on_ack("cell-1", ack, now)
    assert over() == [("cell-1", second)]
    assert over(everything=True) == [], "once, until somebody says that it was lost"
    retained.again()
    assert over(everything=True) == [("cell-1", second)]
    retained.gone(Told("cell-1", task_of("b", 0), "b", 0, second, task.lease, True))
    assert len(retained) == 0

    task.state, task.good_until = "tendered", dict.fromkeys("mn", now + 600 * SECOND)
    third = tell(book.award(key, "n", now))
    held = Held(job="b", op=0, machine="n", counter=third, state="finished", at=now + 1, valid_until=now)
    book.on_agenda("cell-2", agenda(now + 1, held))
    assert over() == [("cell-2", third)], "done"


def agenda(at: int, *held: Held) -> Agenda:
    return Agenda(term=ME.term, session=ME.session, revision=len(held), at=at, awards=list(held))
