"""What a node's machines are to do, whoever says so: an operation of the plan in force, or an award.

Pure. `plan_orders` reads a plan, `edge.awards` keeps awards; the executor asks only for orders and for the state in
which a machine should wait for its next one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from messages.clock import SECOND
from messages.contracts import Envelope, PlanInForce
from messages.plant import Machine

InForce = Envelope[PlanInForce]
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Order:
    """One operation for one machine. Times in µs."""

    job: str
    op: int
    machine: str
    start: int
    """Not begun earlier."""
    seconds: float
    """Nominal working time."""
    until: int
    """Begun by then or not at all."""
    by: str
    """Who says so, in the ids of actions: a plan's revision, or an award."""
    after: int = 0
    """Another node's authority over it ends then."""
    award: int | None = None
    last: bool = False
    """The job is done with it: its part leaves the floor."""
    ahead: bool = False
    """Awarded before its part was ready for it."""
    fetch_at: int | None = None
    """Its part is called for then, whatever places are taken."""

    @property
    def key(self) -> Key:
        """Job and operation."""
        return self.job, self.op


def plan_orders(
    envelope: InForce, machines: Collection[str], node: str, gone: Collection[Key]
) -> dict[str, list[Order]]:
    """Per machine what the plan still wants of it, by start; `gone`: begun, done or interrupted."""
    body = envelope.body
    by = str(body.plan.revision)
    after = {(hold.job, hold.op): hold.until for hold in body.holds if hold.owner != node}
    queues: dict[str, list[Order]] = {machine: [] for machine in machines}
    for one in sorted(body.plan.assignments, key=lambda one: (one.start, one.end)):
        if one.machine in queues and not one.interrupted and (one.job, one.op) not in gone:
            queues[one.machine].append(
                Order(
                    job=one.job,
                    op=one.op,
                    machine=one.machine,
                    start=plan_time(envelope, one.start),
                    seconds=(one.end - one.start) * body.tick_s,
                    until=envelope.valid_until,
                    by=by,
                    after=after.get((one.job, one.op), 0),
                )
            )
    return queues


def plan_time(envelope: InForce, tick: int) -> int:
    """A tick of the plan in µs."""
    body = envelope.body
    return (body.plan.t0 or 0) + round(tick * body.tick_s * SECOND)


def planned_state(envelope: InForce, machine: str, now: int) -> str:
    """What the plan says the machine does now; where it says nothing, the machine is off."""
    for one in envelope.body.plan.machine_states:
        if one.machine == machine and plan_time(envelope, one.start) <= now < plan_time(envelope, one.end):
            return one.state
    return "off"


def next_change(envelope: InForce, machine: str, now: int) -> Iterator[int]:
    """When the plan says something else of a machine than it does now."""
    for one in envelope.body.plan.machine_states:
        if one.machine == machine and plan_time(envelope, one.end) > now:
            yield max(plan_time(envelope, one.start), now)
            yield plan_time(envelope, one.end)


def economic_state(machine: Machine, state: str, now: int, since: int, orders: Iterable[Order]) -> str:
    """How a machine without a plan waits: warm in time for its next order, else whatever costs less energy.

    With an order known, idling until it is compared with switching off and heating again; with none, the machine
    idles for as long as that has cost less than heating (who does not know the future pays at most twice the least so).
    """
    heating_us = round(machine.preheat_h * 3600 * SECOND)
    heating = (machine.preheat_kw - machine.off_kw) * heating_us
    idling = machine.idle_kw - machine.off_kw
    due = next(iter(orders), None)
    if due is None:
        return "off" if state == "idle" and idling * (now - since) > heating else state
    if now >= due.start - heating_us:
        return "preheat" if heating_us else "idle"
    if state == "idle" and idling * (due.start - now) <= heating:
        return "idle"
    return "off"
