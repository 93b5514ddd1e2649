"""Judges, nodes and real machine models around a bus that loses, doubles, delays and reorders: every task once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.awards import Awards
from edge.bidding import Bidding
from edge.executor import Executor, Out
from firmware_sim.factory import Factory
from firmware_sim.settings import Breakdown, Variation
from messages.clock import SECOND
from messages.contracts import MachineEvent, OrderedJob, Record
from messages.dispatch.agent import Dispatcher
from messages.dispatch.decode import Weights
from messages.dispatch.judge import ByRule, Decision, Mcts
from messages.dispatch.judge import Judge as Seam
from messages.dispatch.leases import Leases
from messages.dispatch.state import State
from messages.dispatch.task import Send, Task
from messages.dispatch.tenders import Tenders
from messages.dispatch.term import Term
from messages.negotiation import Agenda, Authority, AwardAck, Bid
from messages.pace import Pace
from messages.plant import load_plant

CERAMIC = load_plant(Path(__file__).parent.parent / "firmware_sim" / "plants" / "ceramic.toml")
PLANT = CERAMIC.model_validate(  # every second machine of a workshop has a node of its own: rivals for each task
    CERAMIC.model_dump()
    | {
        "workshops": [
            workshop
            | {
                "machines": [
                    machine | {"node": f"{workshop['node']}-{n}" if n % 2 else None}
                    for n, machine in enumerate(workshop["machines"])
                ]
            }
            for workshop in CERAMIC.model_dump()["workshops"]
        ]
    }
)
NODE_OF = {machine: PLANT.node_of(machine) for machine in PLANT.machines}


class Eager(ByRule):
    """Awards all that is open at once, so that as much as can be is held when judges change."""

    def decide(self, state: State, weights: Weights | None = None, **more: Any) -> Decision:
        decision = super().decide(state, weights, **more)
        return replace(decision, awards=decision.schedule.bids)


EAGER, MCTS = Eager(kind="fifo"), Mcts(iterations=4)
T0 = 1_700_000_000 * SECOND
STEP = 120 * SECOND
LONGEST = 120 * 3600 * SECOND
AGENDA_STEPS = 50
"""A node says its agenda when it has changed; and this often, as a broker that keeps it would say it again."""


class Wire:
    """Messages under way: some are lost, some come twice, all come late and in any order."""

    def __init__(self, rng: random.Random, *, bad: float) -> None:
        self.rng, self.bad = rng, bad
        self.waiting: list[tuple[int, str, object]] = []

    def send(self, step: int, to: str, message: object) -> None:
        for _ in range(self.rng.choices((0, 1, 2), (self.bad, 1, self.bad))[0]):
            self.waiting.append((step + self.rng.choice((0, 0, 0, 1, 2, 5)), to, message))

    def arrived(self, step: int, to: str) -> list[object]:
        here = [message for due, where, message in self.waiting if where == to and due <= step]
        self.waiting = [one for one in self.waiting if one[1] != to or one[0] > step]
        self.rng.shuffle(here)
        return here


class Node:
    """An executor and its bids; decisions and their snapshot are one, what is sent may be lost."""

    def __init__(self, name: str, factory: Factory, rng: random.Random, deaths: float) -> None:
        self.name, self.factory, self.rng, self.deaths = name, factory, rng, deaths
        self.executor = Executor(PLANT, name)
        self.kept = self.executor.snapshot()
        self.events: list[tuple[str, MachineEvent]] = []
        self.records: list[Record] = []
        self.dead_until = 0
        self.said: Agenda | None = None
        self.told: list[str] = []

    def tick(self, step: int, now: int, wire: Wire, judges: list[str]) -> None:
        if now < self.dead_until:
            return
        if self.rng.random() < self.deaths:
            self.dead_until = now + self.rng.randrange(1, 90) * STEP
            self.executor = Executor(PLANT, self.name, self.kept)
            self.said = None
            return
        for message in wire.arrived(step, self.name):
            assert isinstance(message, Send)
            if message.what == "award":
                self._do(self.executor.on_award(message.message, now), now, step, wire, judges)  # type: ignore[arg-type]
            elif message.what == "offer":
                bid = Bidding(self.executor).bid(message.message, now)  # type: ignore[arg-type]
                if bid is not None:
                    for judge in judges:
                        wire.send(step, judge, (self.name, bid))
            else:
                self.executor.awards.obey(message.message.authority)  # type: ignore[attr-defined]
        events, self.events = self.events, []
        for device, event in events:
            self._do(self.executor.on_events(device, [event], now), now, step, wire, judges)
        self._do(self.executor.on_time(now), now, step, wire, judges)
        agenda = Bidding(self.executor).agenda(now)
        if agenda is None:
            return
        said = agenda.model_copy(update={"at": 0, "free_at": {}})
        if step % AGENDA_STEPS == 0 or said != self.said or judges != self.told:
            self.said, self.told = said, list(judges)
            for judge in judges:
                wire.send(step, judge, (self.name, agenda))

    def _do(self, out: Out, now: int, step: int, wire: Wire, judges: list[str]) -> None:
        self.records += out.records
        self.kept = self.executor.snapshot()
        for ack in out.award_acks:
            for judge in judges:
                wire.send(step, judge, (self.name, ack))
        for device, action in out.actions:
            for _ in range(self.rng.choice((0, 1, 1, 1, 2))):
                self.factory.act(device, action, now)


class Judge:
    """A scheduling agent on its connections."""

    def __init__(
        self, name: str, term: int, tasks: list[Task], judge: Seam, jobs: Sequence[str], *, tags: bool, lease_h: float
    ) -> None:
        self.name = name
        self.book = Tenders(
            Authority(term, f"{term:04x}{ord(name[-1]):04x}"),
            site="ceramic",
            judge="cloud",
            machines=NODE_OF,
            tasks=tasks,
            pace=Pace(offer_s=600, lease_s=lease_h * 3600),
            tags=tags,
        )
        self.agent = Dispatcher(PLANT, self.book, judge, T0)
        self.agent.add(OrderedJob(job=name, product=name) for name in jobs)
        self.withdrawn = 0

    def tick(
        self, step: int, now: int, wire: Wire, nodes: dict[str, Node], records: list[Record], cancelled: Collection[str]
    ) -> None:
        sends = self.agent.cancel(cancelled, now)
        for name, node in nodes.items():
            self.book.on_presence(name, now >= node.dead_until)
        for message in wire.arrived(step, self.name):
            assert isinstance(message, tuple)
            node_name, body = message
            if isinstance(body, Bid):
                self.book.on_bid(node_name, body)
            elif isinstance(body, AwardAck):
                self.book.on_ack(node_name, body, now)
            elif isinstance(body, Agenda):
                sends += self.book.on_agenda(node_name, body)
        for record in records:
            sends += self.agent.on_record(record)
        for send in sends + self.agent.on_tick(now):
            self.withdrawn += send.what == "award" and send.message.body.machine is None  # type: ignore[attr-defined]
            for to in [send.node] if send.node else list(nodes):
                wire.send(step, to, send)


def possible_starts(nodes: dict[str, Node], now: int) -> Counter[tuple[str, int]]:
    """How many nodes, dead ones as they will wake up, may begin a task or have begun it."""
    found: Counter[tuple[str, int]] = Counter()
    for name, node in nodes.items():
        for one in Executor(PLANT, name, node.kept).awards.agenda():
            found[one.job, one.op] += one.state != "held" or one.valid_until > now
    return found


def run(
    seed: int,
    seam: Seam,
    *,
    tags: bool,
    jobs: Sequence[str] = PLANT.products,
    cancels: float = 0.0,
    lease_h: float = 4.0,
    deaths: float = 0.01,
) -> int:
    """A plant from the first offer to the last finished task, of which some orders are cancelled; how many awards were
    withdrawn. AssertionError if a promise is broken."""
    rng = random.Random(seed)
    scenario = tuple(
        Breakdown(workshop=rng.choice(["drying", "firing", "glazing"]), at_h=rng.uniform(2, 20), repair_h=4)
        for _ in range(seed % 3)
    )
    factory = Factory(PLANT, start=T0, seed=seed, variation=Variation(), scenario=scenario)
    wire = Wire(rng, bad=0.15)
    nodes = {name: Node(name, factory, random.Random(seed * 31 + n), deaths) for n, name in enumerate(PLANT.nodes)}
    judges = [Judge("judge-a", 1, [], seam, jobs, tags=tags, lease_h=lease_h)]
    now, step, term, withdrawn = T0, 0, 1, 0
    cancelled: set[str] = set()
    told: list[Record] = []
    # A judge that has just begun knows what was done to cancelled orders when it has heard every node.
    while not all(judge.agent.done and judge.book.nodes.agendas.keys() == nodes.keys() for judge in judges):
        now, step = now + STEP, step + 1
        assert now < T0 + LONGEST, {
            task.key: (task.state, task.why) for task in judges[0].book.tasks.values() if task.state != "done"
        }
        factory.advance(now)
        for machine in PLANT.machines:
            nodes[NODE_OF[machine]].events += [(machine, event) for event in factory.drain(machine)]
        fresh: list[Record] = []
        for node in nodes.values():
            node.tick(step, now, wire, [judge.name for judge in judges])
            fresh += node.records
            node.records = []
        rng.shuffle(fresh)
        told += fresh
        if rng.random() < cancels:
            cancelled.add(rng.choice(jobs))
        for judge in judges:
            judge.tick(step, now, wire, nodes, fresh, sorted(cancelled))
            withdrawn, judge.withdrawn = withdrawn + judge.withdrawn, 0
        if not tags and step % 5 == 0:
            assert max(possible_starts(nodes, now).values(), default=0) <= 1, "a task with two owners"
        # A second judge begins: with the first one's book or without, of a higher term or the same.
        if rng.random() < 0.02 and len(judges) == 1:
            term += rng.choice((0, 1))
            name = "judge-b" if judges[0].name == "judge-a" else "judge-a"
            kept = [task.model_copy(deep=True) for task in judges[0].book.tasks.values()] if rng.random() < 0.5 else []
            rival = Judge(name, term, kept, seam, jobs, tags=tags, lease_h=lease_h)
            for record in told if rng.random() < 0.7 else ():
                rival.agent.on_record(record)
            judges.append(rival)
        if len(judges) == 2 and any(judge.book.fenced for judge in judges):
            judges = [judge for judge in judges if not judge.book.fenced][:1] or judges[:1]
    runs = Counter((one.job, one.op) for one in factory.done)
    assert set(runs.values()) <= {1}, "a task done twice"
    for judge in judges:
        for key, task in judge.book.tasks.items():
            assert task.state == ("done" if key in runs else "cancelled"), (key, task.state)
            assert task.state == "done" or key[0] in cancelled, "a task that was lost"
    return withdrawn


@pytest.mark.parametrize(("seed", "tags"), [(1, True), (3, False)])
def test_over_a_bad_bus_with_crashes_breakdowns_and_rival_judges_every_task_is_done_once(seed: int, tags: bool) -> None:
    run(seed, EAGER, tags=tags)


def test_so_it_is_with_a_judge_that_searches() -> None:
    run(0, MCTS, tags=True, jobs=PLANT.products[:3])


@pytest.mark.parametrize(("seed", "tags"), [(0, True), (3, False), (12, False)])
def test_what_broken_machines_hold_and_cancelled_orders_is_taken_back_and_nothing_is_done_twice(
    seed: int, tags: bool
) -> None:
    assert run(seed, EAGER, tags=tags, cancels=0.02, lease_h=2) > 0  # nodes may be dead for longer


def by_the_clock(leases: Leases, task: Task, now: int) -> list[Send]:
    """The end of a lease, as if an absent node could not have begun."""
    leases._losses.again(task, now, "")
    return []


FAULTS = {
    "a new judge does not wait for absent nodes": (Term, "may_be_held", lambda *_: False, 12, 2, 0.01, "two owners"),
    "a lease ends by the clock": (Leases, "_at_end", by_the_clock, 0, 1, 0.05, "two owners"),
    "a node obeys every judge": (Awards, "obey", lambda *_: True, 12, 2, 0.01, r"\('open', ''\)"),
}


@pytest.mark.parametrize("guard", FAULTS)
def test_the_check_finds_a_broken_guard(guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, fault, seed, lease_h, deaths, found = FAULTS[guard]
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises(AssertionError, match=found):
        run(seed, EAGER, tags=False, lease_h=lease_h, deaths=deaths)
