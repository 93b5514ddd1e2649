"""What is wanted of a node's machines, by whoever says so, and what is begun already; actions to ask for it.

    duties = Duties(plant, node, kept)
    duties.queues["press-4"]                # orders of the plan in force by start, then awards as they came
    duties.take_out(("b01", 2))             # it is begun or done: nobody here is to do it any more

The one object that what decides (`edge.fetching`, `edge.deciding`) and what takes events in (`edge.happenings`) share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge.machines import Kept, Machine
from edge.orders import Key, Order, plan_orders
from messages.clock import SECOND
from messages.contracts import Action, PlanAck, Record
from messages.negotiation import AwardAck
from messages.pace import pace_of
from messages.plant import Plant

REMEMBERED = 1_000
"""Operations begun here that are remembered beside those of the plan in force. Of older ones the part's tag tells, and
the plan's `started`."""


@dataclass(frozen=True)
class Out:
    """What a decision sends and keeps."""

    actions: tuple[tuple[str, Action], ...] = ()
    records: tuple[Record, ...] = ()
    ack: PlanAck | None = None
    award_acks: tuple[AwardAck, ...] = ()

    def __add__(self, other: Out) -> Out:
        return Out(
            self.actions + other.actions,
            self.records + other.records,
            other.ack or self.ack,
            self.award_acks + other.award_acks,
        )


class Duties:
    """Of one node's machines."""

    def __init__(self, plant: Plant, node: str, kept: Kept) -> None:
        self.plant, self.node, self.kept = plant, node, kept
        mine = [machine for machine in plant.machines if plant.node_of(machine) == node]
        kept.machines = {machine: kept.machines.get(machine, Machine()) for machine in mine}
        self.begun = dict.fromkeys(kept.begun)
        self.places = {name: plant.machines[name][1].buffer.in_ for name in mine}
        self.lead_us = {name: _lead_us(plant, name) for name in mine}
        self.pace = pace_of(plant)
        self.answer_us, self.action_us = round(self.pace.answer_s * SECOND), round(self.pace.action_s * SECOND)
        self.queues: dict[str, list[Order]] = {}
        self.planned: set[Key] = set()
        self.sort_out()

    def snapshot(self) -> bytes:
        """All of it, for the disk."""
        self.kept.begun = list(self.begun)
        return self.kept.model_dump_json().encode()

    @property
    def revision(self) -> int | None:
        """Revision of the plan obeyed, if any."""
        return self.kept.envelope.body.plan.revision if self.kept.envelope else None

    def is_told(self, now: int) -> bool:
        """Whether anybody has authority here: a plan whose lease runs, or a judge that was heard of."""
        envelope = self.kept.envelope
        return bool(self.kept.awards.session) or (envelope is not None and now < envelope.valid_until)

    def starting(self) -> Iterator[tuple[Key, str]]:
        """Operations whose `start` is out and unanswered, and the machine it went to."""
        for name, machine in self.kept.machines.items():
            action = machine.pending.action if machine.pending else None
            if action and action.kind == "start" and action.job is not None and action.op is not None:
                yield (action.job, action.op), name

    def sort_out(self) -> None:
        """Per machine of this node, what is still wanted of it: of the plan by start, then awards as they came."""
        self.queues = {machine: [] for machine in self.kept.machines}
        self.planned = set()
        if self.kept.envelope is not None:
            assignments = self.kept.envelope.body.plan.assignments
            self.planned = {(one.job, one.op) for one in assignments if one.machine in self.kept.machines}
            told = {(job, op) for job, op in self.kept.envelope.body.started}
            known = told.union(self.begun, self.kept.interrupted)
            self.queues = plan_orders(self.kept.envelope, self.kept.machines, self.node, known)
        for order in self.kept.awards.orders():
            if order.machine in self.queues and order.key not in self.begun:
                self.queues[order.machine].append(order)

    def take_out(self, key: Key) -> None:
        """It is begun or done: nobody here is to do it any more."""
        self.begun[key] = None
        self.forget_begun()
        for name, queue in self.queues.items():
            if any(order.key == key for order in queue):
                self.queues[name] = [order for order in queue if order.key != key]

    def forget_begun(self) -> None:
        """Of operations begun, those remembered longest that the plan in force does not name."""
        while len(self.begun) > REMEMBERED + len(self.planned):
            del self.begun[next(key for key in self.begun if key not in self.planned)]

    def action(
        self, kind: str, now: int, due: Order | None = None, *, job: str | None = None, op: int | None = None
    ) -> Action:
        """The next one: good for as long as what asks for it, and no longer than machines are given."""
        self.kept.attempts += 1
        life = now + self.action_us
        envelope = self.kept.envelope
        lease = due.until if due else envelope.valid_until if envelope and now < envelope.valid_until else life
        by = due.by if due else str(self.revision or 0)
        return Action.model_validate(
            {
                "id": f"{self.node}.{by}.{self.kept.attempts}",
                "kind": kind,
                "job": due.job if due else job,
                "op": due.op if due else op,
                "duration_s": due.seconds if due and kind == "start" else None,
                "last": due.last if due and kind == "start" else False,
                "valid_until": min(lease, life),
            }
        )


def _lead_us(plant: Plant, machine: str) -> int:
    """So long before its work a part is called: twice the longest way to the machine."""
    longest_s = plant.transport_s
    if plant.layout is not None:
        ways = (plant.layout.carried_s(place, machine) for place in plant.layout.ways_s)
        longest_s = max((way for way in ways if way is not None), default=0.0)
    return round(2 * longest_s * SECOND)
