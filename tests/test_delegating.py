"""What a judge tells its delegates and all others of itself: when it is news, and in an order everybody can tell."""

from __future__ import annotations

from pathlib import Path

from messages.clock import SECOND
from messages.contracts import Finished, OrderedJob
from messages.dispatch.agent import Dispatcher
from messages.dispatch.delegating import Delegating
from messages.dispatch.judge import ByRule
from messages.dispatch.tenders import Tenders
from messages.dispatch.words import Words
from messages.negotiation import Authority, Delegation, JudgeInForce
from messages.pace import pace_of
from messages.plant import load_plant

T0 = 1_767_225_600_000_000
PLANT = load_plant(Path(__file__).parent.parent / "firmware_sim" / "plants" / "ceramic.toml")
PACE = pace_of(PLANT)
REST_US = round(PACE.delegate_s * SECOND)


def judge() -> Dispatcher:
    machines = {machine: PLANT.node_of(machine) for machine in PLANT.machines}
    book = Tenders(Authority(3, "00000000"), site=PLANT.site, judge="cloud", machines=machines, pace=PACE)
    return Dispatcher(PLANT, book, ByRule(kind="fifo"), T0)


def tick(agent: Dispatcher, delegating: Delegating, now: int) -> Delegation | None:
    """As a shell does."""
    if agent.book.changed:
        delegating.stir()
        agent.book.changed.clear()
    return delegating.news(now)


def test_delegates_hear_of_open_jobs_when_they_have_changed_and_else_nobody_looks() -> None:
    agent = judge()
    delegating = Delegating(agent)
    agent.add([OrderedJob(job="b01", product="b01")])
    first = tick(agent, delegating, T0)
    assert first is not None and [job.job for job in first.jobs] == ["b01"]
    for count in range(1, 50):
        assert tick(agent, delegating, T0 + count * REST_US) is None
    assert delegating.looks == 1

    now = T0 + 50 * REST_US
    machine = next(iter(PLANT.route("b01")[0][1]))
    agent.on_record(Finished(at=now, machine=machine, job="b01", op=0, started_at=now - 1))
    second = tick(agent, delegating, now)
    assert second is not None and [job.done for job in second.jobs] == [1]
    assert second.revision > first.revision
    agent.cancel(["b01"], now)
    assert tick(agent, delegating, now + REST_US - 1) is None, "not so soon"
    third = tick(agent, delegating, now + REST_US)
    assert third is not None and third.jobs == []
    assert delegating.looks == 3


def test_delegates_hear_of_what_came_into_stock_though_the_open_jobs_are_the_same() -> None:
    plant = load_plant(Path(__file__).parent.parent / "firmware_sim" / "plants" / "remanufacturing.toml")
    machines = {machine: plant.node_of(machine) for machine in plant.machines}
    book = Tenders(Authority(3, "00000000"), site=plant.site, judge="cloud", machines=machines, pace=PACE)
    agent = Dispatcher(plant, book, ByRule(kind="fifo"), T0)
    delegating = Delegating(agent)
    first = tick(agent, delegating, T0)
    got = {"worn-rotor": 1, "housing": 1, "bearing": 2}
    of = Finished(at=T0, machine="cell-1", job="strip-alternator~1", op=0, started_at=T0 - 1, recovered=got)
    agent.on_record(of)
    second = tick(agent, delegating, T0 + REST_US)
    assert first is not None and second is not None and second.jobs == first.jobs
    gained = {name: second.stock[name] - first.stock.get(name, 0) for name in got}
    assert gained == got
    assert tick(agent, delegating, T0 + 2 * REST_US) is None


def test_what_a_broker_may_have_lost_is_said_again_at_once_with_a_higher_revision() -> None:
    agent = judge()
    delegating = Delegating(agent)
    first = tick(agent, delegating, T0)
    assert first is not None, "that there are no jobs is a word, too"
    delegating.again()
    again = tick(agent, delegating, T0)
    assert again is not None and (again.jobs, again.revision) == (first.jobs, first.revision + 1)
    assert tick(agent, delegating, T0 + REST_US) is None


def test_a_later_word_is_higher_and_one_of_a_later_term_is_higher_than_all_before() -> None:
    body = JudgeInForce(term=3, session="00000000", judge="cloud", at=T0)
    words = Words("s1", Authority(3, "00000000"), PACE)
    said = [words.next(body) for _ in range(3)]
    counters = [word.counter for word in said]
    assert counters == sorted(set(counters)) and words.said == 3
    assert Words("s1", Authority(4, "00000000"), PACE).next(body).counter > counters[-1]
    assert said[0].valid_until == T0 + round(3 * PACE.renew_s * SECOND)
