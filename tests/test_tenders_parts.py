"""The parts of the judge's book by themselves: what each promises without the others."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from messages.clock import SECOND
from messages.dispatch.ahead import Ahead, not_coming
from messages.dispatch.awaiting import Awaiting
from messages.dispatch.due import Due
from messages.dispatch.ledger import Ledger
from messages.dispatch.nodes import MAX_FOREIGN, Nodes
from messages.dispatch.outputs import put_aside
from messages.dispatch.task import Task
from messages.dispatch.term import Term
from messages.negotiation import Agenda, Authority, Held
from messages.pace import Pace

ME, OTHER = Authority(3, "0000000b"), Authority(3, "0000000a")
PACE = Pace(lease_s=100.0, renew_s=10.0, repeat_s=5.0, silent_s=20.0, skew_s=1.0, overdue_s=30.0)
DISPATCH = Path(__file__).parent.parent / "messages" / "dispatch"
IN_ORDER = (
    *("task", "index", "awaiting", "term", "nodes", "ahead", "due", "ledger", "outputs", "tendering", "awarding"),
    *("deeds", "holdings", "losses", "answers", "leases", "tenders"),
)
"""Every part may know those before it."""


def agenda(revision: int, *held: Held, judge: Authority = ME, at: int = 0, behind: tuple[str, ...] = ()) -> Agenda:
    outputs = {"a1": {"at": at, "jobs": list(behind)}}
    return Agenda.model_validate(
        {"term": judge.term, "session": judge.session, "revision": revision, "at": at, "awards": held}
        | {"outputs": outputs}
    )


def held(job: str, machine: str, counter: int, state: str = "held") -> Held:
    one = {"job": job, "op": 0, "machine": machine, "counter": counter, "state": state, "at": 0, "valid_until": 10}
    return Held.model_validate(one)


def ledger() -> tuple[Ledger, Nodes]:
    nodes = Nodes({"a1": "na", "b1": "nb"})
    return Ledger(nodes, Due(PACE, Awaiting(PACE), nodes)), nodes


def test_no_part_knows_one_that_is_made_after_it_and_none_knows_the_book() -> None:
    for number, name in enumerate(IN_ORDER):
        tree = ast.parse((DISPATCH / f"{name}.py").read_text(encoding="utf-8"))
        known = {one.module or "" for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)}
        later = {f"messages.dispatch.{other}" for other in IN_ORDER[number:]}
        assert not known & later, f"{name} imports {known & later}"


def test_a_term_is_established_when_all_that_are_there_obey_and_for_good_over_once_a_higher_one_is_heard() -> None:
    term = Term(ME, nodes=["na", "nb"], tags=True, pace=PACE)
    assert term.begin(0) and not term.begin(1)
    assert term.hear("na", OTHER, there=True) and term.silent == ("na",) and not term.established
    assert not term.hear("na", None, there=True)  # nothing new
    assert term.hear("na", ME, there=True) and term.established
    assert not term.hear("nb", None, there=False) and term.established  # who is away keeps nobody waiting
    term.on_authority(OTHER)
    assert term.established
    term.on_authority(Authority(4, "00000000"))
    assert term.fenced and not term.established


@pytest.mark.parametrize("tags", [True, False])
def test_what_a_stranger_may_hold_waits_for_the_longest_lease_where_parts_have_tags_and_else_for_his_word(
    tags: bool,
) -> None:
    term, task = Term(ME, nodes=["na"], tags=tags, pace=PACE), Task(job="T1", op=0, seconds={"a1": 1.0})
    term.begin(0)
    assert term.may_be_held(task, ["na"], 99 * SECOND) and not term.may_be_held(task, ["nb", None], 99 * SECOND)
    assert term.may_be_held(task, ["na"], 100 * SECOND) is not tags
    term.hear("na", ME, there=True)
    assert not term.may_be_held(task, ["na"], 0)


def test_the_end_of_the_last_older_lease_is_told_once_and_a_clock_that_is_ahead_is_cut_to_the_judge_s() -> None:
    term = Term(ME, nodes=["na"], tags=True, pace=PACE)
    assert term.heard(10**15) == 10**15  # nothing is known of the time yet
    term.begin(SECOND)
    assert term.next_due() == 101 * SECOND and not term.on_time(100 * SECOND)
    assert term.on_time(101 * SECOND) and not term.on_time(102 * SECOND) and term.next_due() is None
    assert term.heard(10**15) == 112 * SECOND and term.heard(5) == 5


def test_of_a_node_s_agendas_the_newest_counts_and_what_another_lists_is_found_by_the_greater_number() -> None:
    nodes = Nodes({"a1": "na", "b1": "nb", "c1": "nc"})
    task = Task(job="T1", op=0, seconds={"a1": 1.0, "b1": 1.0, "c1": 1.0})
    assert nodes.on_agenda("na", agenda(2, held("T1", "a1", 7)))
    assert not nodes.on_agenda("na", agenda(1)) and not nodes.on_agenda("na", agenda(2))
    assert nodes.on_agenda("nb", agenda(1, held("T1", "b1", 9), held("T2", "a1", 1)))
    assert ("T2", 0) not in nodes.listed("nb")  # another node's machine
    assert [node for node, _ in nodes.elsewhere(task, but="nc")] == ["nb", "na"]
    assert [node for node, _ in nodes.elsewhere(task, but="nb")] == ["na"]
    task.let_go["nb"] = 9
    assert [node for node, _ in nodes.elsewhere(task, but="nc")] == ["na"]


def test_nodes_may_name_only_so_many_machines_that_are_not_in_the_plant() -> None:
    nodes = Nodes({"a1": "na"})
    for number in range(MAX_FOREIGN + 5):
        nodes.learn(f"x{number}", "nb")
    assert len(nodes.node_of) == MAX_FOREIGN + 1 and nodes.of(f"x{MAX_FOREIGN}") == "" and nodes.of("a1") == "na"
    assert nodes.planned == {"na"}  # nobody waits for nodes that are not in the plant


def test_the_ledger_tells_each_reader_what_changed_and_a_judge_only_what_he_might_decide_otherwise_on() -> None:
    book, nodes = ledger()
    nodes.on_presence("na", True)
    one = Task(job="T1", op=0, seconds={"a1": 10.0})
    book.insert(one)
    assert (book.changed, book.version) == (set(), 0) and list(book.progressed) == ["T1"]
    book.enter(one, "tendered", rouse=False)
    assert (book.changed, book.moved, book.version) == ({("T1", 0)}, {"T1"}, 0)
    one.machine, one.began_at = "a1", 0
    book.enter(one, "working")
    assert book.version == 1 and book.at("na") == [("T1", 0)] and book.of("working") == [one]
    assert book.next_due() == 40 * SECOND  # 10 s of work, 30 s of patience
    assert [task.key for task in book.due(40 * SECOND)] == [("T1", 0)] and book.next_due() is None
    assert book.forget("T1") == [("T1", 0)] and not book.tasks and not book.progressed and book.at("na") == []


def test_an_award_is_due_to_be_said_again_only_while_its_node_is_there() -> None:
    nodes = Nodes({"a1": "na"})
    due = Due(PACE, Awaiting(PACE), nodes)
    one = Task(job="T1", op=0, seconds={"a1": 1.0}, state="awarded", machine="a1", lease=100 * SECOND)
    assert sorted(due.times(one, ready=False)) == [20 * SECOND, 101 * SECOND]
    nodes.on_presence("na", True)
    assert sorted(due.times(one, ready=False)) == [5 * SECOND, 20 * SECOND, 101 * SECOND]
    one.state = "held"
    assert due.times(one, ready=False) == [101 * SECOND]
    one.withdrawn = True
    assert sorted(due.times(one, ready=False)) == [5 * SECOND, 101 * SECOND]


def test_what_was_awarded_ahead_is_not_coming_once_somebody_before_it_is_broken_or_nobody_has_it() -> None:
    def op(number: int, state: str, machine: str | None = "a1") -> Task:
        return Task.model_validate({"job": "T1", "op": number, "seconds": {}, "state": state, "machine": machine})

    route = [op(0, "done"), op(1, "working"), op(2, "held"), op(3, "awarded", "b1")]
    assert list(not_coming(route, lambda _: True)) == []
    assert [one.op for one in not_coming(route, lambda machine: machine != "a1")] == [2, 3]
    assert [one.op for one in not_coming([op(0, "open", None), *route[2:]], lambda _: True)] == [2, 3]


def test_only_jobs_with_an_award_ahead_are_looked_at_and_once() -> None:
    ahead, one = Ahead(), Task(job="T1", op=1, seconds={}, state="held", ahead=1)
    ahead.loosen("T1")
    assert ahead.adrift == []
    ahead.entered(one)
    one.state = "open"
    ahead.entered(one)
    assert ahead.adrift == ["T1"]
    ahead.settle()
    assert ahead.adrift == []


def test_a_part_was_put_aside_when_its_machine_s_output_names_it_no_more() -> None:
    assert put_aside(agenda(1, behind=("T1", "T2")), agenda(2, behind=("T2", "T3"))) == {"T1"}
    empty = agenda(1).model_copy(update={"outputs": {}})
    assert put_aside(empty, agenda(2)) == put_aside(agenda(1, behind=("T1",)), empty) == set()
