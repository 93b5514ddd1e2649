"""Where messages take longer than a judge's word is good, judges are patient: one begins with what another learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.delegate import Standing
from messages.clock import SECOND
from messages.dispatch.agent import Dispatcher
from messages.dispatch.awaiting import Awaiting, longer
from messages.dispatch.judge import ByRule
from messages.dispatch.tenders import Tenders
from messages.dispatch.words import Words
from messages.negotiation import Agenda, Authority, JudgeInForce
from messages.pace import PATIENT, Pace, pace_of
from shoal.swarm.outcome import T0
from shoal.swarm.setting import judge_of, swarm_of, weights_of
from shoal.swarm.sim import simulate

WORKSHOP = Path(__file__).resolve().parent.parent / "examples" / "workshop_occupying.json"
SWIFT = Pace(offer_s=0.5, renew_s=5.0)
ME = Authority(3, "0000000a")
SWARM, _ = swarm_of(WORKSHOP, judge_of("fifo"), weights_of(""))


@pytest.mark.parametrize("disturb", ["judge,delay:20,lose:0.4"])
def test_the_work_is_done_though_messages_take_longer_than_a_word_is_good_and_judges_are_few(disturb: str) -> None:
    swarm, _ = swarm_of(WORKSHOP, judge_of("fifo"), weights_of(""), disturb=disturb, seed=1, machines_per_node=2)
    outcome = simulate(swarm, None)
    assert outcome.holds, outcome.faults
    assert (
        outcome.messages["offer"] < 3_000
    )  # 24,811 and one task done, where every judge began as if it were the first


def test_what_is_known_of_the_way_of_messages_goes_from_judge_to_judge_by_the_word() -> None:
    now = T0
    learned = Awaiting(SWIFT, late_us=20 * SECOND)
    assert learned.late_us == 20 * SECOND
    assert learned.us(SWIFT.offer_s) == learned.late_us + SWIFT.offer_s * SECOND
    words = Words("s1", ME, SWIFT)
    body = JudgeInForce(term=ME.term, session=ME.session, judge="cloud", at=now, delegates=["n1"])
    prompt, patient = words.next(body), words.next(body, learned.late_us)
    assert (prompt.valid_until, patient.valid_until) == (now + 15 * SECOND, now + 35 * SECOND)
    standing = Standing(me="n1", nodes=["n1"], pace=SWIFT)
    assert standing.late_us == 0
    for word, late_us in ((prompt, 0), (patient, 20 * SECOND)):
        standing.on_judge(word, now + SECOND, cloud=True)
        assert standing.late_us == late_us
    assert not standing.is_silent(now + 35 * SECOND - 1) and standing.is_silent(now + 35 * SECOND)


def test_patience_grows_with_every_deposition_and_has_an_end() -> None:
    late_us, seen = 0, []
    for _ in range(20):
        late_us = longer(late_us, SWIFT)
        seen.append(late_us / SECOND)
    assert seen[:3] == [0.5, 1.0, 2.0]
    assert seen[-1] == PATIENT.offer_s - SWIFT.offer_s
    assert longer(0, PATIENT) == longer(2**53, PATIENT) == 0
    for believed in (2**53, -1):
        assert 0 <= Awaiting(SWIFT, believed).late_us <= PATIENT.offer_s * SECOND


def test_a_judge_offers_nothing_before_every_node_that_is_there_obeys_and_then_everything() -> None:
    plant = SWARM.plant
    machines = {machine: plant.node_of(machine) for machine in plant.machines}
    book = Tenders(ME, site=plant.site, judge="cloud", machines=machines, pace=pace_of(plant), now=T0)
    agent = Dispatcher(plant, book, ByRule(kind="fifo"), T0)
    agent.add(SWARM.jobs)
    for node in plant.nodes:
        book.on_presence(node, True)
    for k in range(50):
        assert [send.what for send in agent.on_tick(T0 + k * SECOND) if send.what == "offer"] == []
    assert not book.of("tendered")
    *others, last = plant.nodes
    for node in others:
        book.on_agenda(node, Agenda(term=ME.term, session=ME.session, revision=1, at=T0))
        assert agent.offers(T0 + 50 * SECOND) == []
    book.on_agenda(last, Agenda(term=ME.term, session=ME.session, revision=1, at=T0))
    offered = {send.message.job for send in agent.offers(T0 + 50 * SECOND)}  # type: ignore[union-attr]
    assert offered == {job.job for job in SWARM.jobs}
