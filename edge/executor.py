"""What a node's machines do next, decided from the plan in force or from awards, from parts and machine events.

Pure: `on_plan`, `on_award`, `on_events` and `on_time` return an `Out` of actions to send, records to keep and perhaps
acknowledgements; the shell commits the records with `snapshot()` in one transaction, then sends. Promises:

- An operation starts when the plan or an award gives it to this machine, its turn and hour have come, its part was read
  at the machine, the machine is warm and has a place for what it finished before; never twice, never after the lease
  (`valid_until`) of what gives it has ended.
- Parts are called in the order of the queue, as many as the machine has places before it, and worked on in that order.
  Beyond that one is called when its award says so: who judges foresees that it finds a place.
- Started work stays: a plan or award that moves it elsewhere is answered with the fact. So is one that moves an
  operation whose `start` the machine has not answered yet: it may have begun.
- What a machine says again (it repeats answers) is no news. Events are told apart by what they say, not by clocks.
- An operation held by another node waits for the planner's release or for the end of that node's lease.
- An action is repeated (`Pace.answer_s`, and at every reconnect) until an event answers it; after `Pace.action_s`, or
  when its lease ends, it is given up and recorded. A machine that refused is asked again after `Pace.answer_s`.
- The start of awarded work is not given up: it may have begun. The award stays here until the machine has answered.
- Restored from a snapshot, all goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from edge.awards import Awarded, Awards
from edge.deciding import decide, repeat
from edge.duties import Duties, Out
from edge.fetching import fetch, forget_overtaken
from edge.happenings import enter, on_ended, take_in
from edge.machines import Kept, Machine, restored
from edge.orders import InForce, Key, Order, next_change
from messages.clock import SECOND
from messages.contracts import MAX_AHEAD, Action, MachineEvent, PlanAck, Record
from messages.plant import Plant

__all__ = ["Executor", "Out"]

BOOTS = 4
"""Boots remembered per machine: a burst of an earlier one that comes late is no restart."""


@dataclass
class Executor:
    """One node's machines and what they are told to do. `state` is what `snapshot` returned before a restart."""

    plant: Plant
    node: str
    state: bytes | None = None
    _duties: Duties = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._duties = Duties(self.plant, self.node, restored(self.state) if self.state else Kept(machines={}))
        self.pace = self._duties.pace

    def snapshot(self) -> bytes:
        """All of it, for the disk."""
        return self._duties.snapshot()

    @property
    def revision(self) -> int | None:
        """Revision of the plan obeyed, if any."""
        return self._duties.revision

    def on_plan(self, envelope: InForce, now: int) -> Out:
        """Take a plan over, or say why not. The one in force again changes nothing and is not answered."""
        held = self._duties.kept.envelope
        if held and envelope.counter == held.counter:
            return Out()
        refusal = self._refusal(envelope, now)
        conflicts = () if refusal else self._conflicts(envelope)
        if not refusal:
            if held is None or held.body.plan.revision != envelope.body.plan.revision:
                self._duties.kept.interrupted = []
            self._duties.kept.envelope = envelope
            self._duties.sort_out()
            self._duties.forget_begun()
            forget_overtaken(self._duties, now)
        ack = PlanAck(
            revision=envelope.body.plan.revision,
            counter=envelope.counter,
            accepted=not refusal,
            at=now,
            started=list(conflicts),
            reason=refusal,
            held=held.counter if refusal and held else None,
        )
        return Out(ack=ack) + (Out() if refusal else self.on_time(now))

    def on_events(self, device: str, events: Iterable[MachineEvent], now: int) -> Out:
        """What happened at a machine, each event once and in order."""
        machine = self._duties.kept.machines.get(device)
        if machine is None:
            return Out()
        records: list[Record] = []
        for event in events:
            records += take_in(self._duties, device, machine, event, now)
        return Out(records=tuple(records)) + self.on_time(now)

    def on_boot(self, device: str, boot: str, now: int) -> Out:
        """A burst of this boot came. A machine that started anew is off, has no part and has dropped its work."""
        machine = self._duties.kept.machines.get(device)
        if machine is None or boot in machine.boots:
            return Out()
        known, machine.boots = bool(machine.boots), [*machine.boots, boot][-BOOTS:]
        if not known:
            return Out()
        records: list[Record] = []
        if machine.running:
            job, op, _ = machine.running
            gone = MachineEvent(at=now, kind="interrupted", job=job, op=op, detail="the machine started anew")
            records += on_ended(self._duties, device, machine, gone)
        machine.parts.forget()
        machine.pending, machine.not_before, machine.no_call_before = None, 0, 0
        return Out(records=(*records, *enter(device, machine, "off", now)))

    def on_time(self, now: int) -> Out:
        """What is due now; awards that should have begun by now are given up."""
        if self._duties.kept.awards.expire(now, (key for key, _ in self._duties.starting())):
            self._duties.sort_out()
            forget_overtaken(self._duties, now)
        actions: list[tuple[str, Action]] = []
        records: list[Record] = []
        for name, machine in self._duties.kept.machines.items():
            ask = repeat if machine.pending else decide
            for out in (fetch(self._duties, name, machine, now), ask(self._duties, name, machine, now)):
                actions += out.actions
                records += out.records
        return Out(actions=tuple(actions), records=tuple(records))

    def next_due(self, now: int) -> int | None:
        """When `on_time` must be called again if nothing comes before; earlier does no harm. None: never."""
        times = [task.valid_until for _, task in self._duties.kept.awards.held]
        envelope = self._duties.kept.envelope
        for name, machine in self._duties.kept.machines.items():
            times += [machine.not_before, machine.no_call_before]
            for pending in (machine.pending, *machine.parts.called.values()):
                if pending is not None:
                    times += [pending.sent_at + self._duties.answer_us, pending.given_up_at]
            spec, queue = self.plant.machines[name][1], self._duties.queues[name]
            heating_us = round(spec.preheat_h * 3600 * SECOND)
            times += [order.fetch_at for order in queue if order.fetch_at is not None]
            for due in machine.parts.wanted(queue, self._duties.places[name]):
                times += [
                    due.start - self._duties.lead_us[name],
                    due.start - heating_us,
                    due.start,
                    due.after,
                    due.until,
                ]
            if envelope is not None:
                times += [envelope.valid_until, *next_change(envelope, name, now)]
            if machine.state == "idle" and not queue and spec.idle_kw > spec.off_kw:
                waits = heating_us * (spec.preheat_kw - spec.off_kw) / (spec.idle_kw - spec.off_kw)
                times.append(machine.since + max(0, int(waits)) + 1)
        return min((at for at in times if at > now), default=None)

    def on_connect(self, now: int) -> Out:
        """After a reconnect: every unanswered action once more."""
        actions = []
        for name, machine in self._duties.kept.machines.items():
            for pending in (machine.pending, *machine.parts.called.values()):
                if pending is not None:
                    pending.sent_at = now
                    actions.append((name, pending.action))
        return Out(actions=tuple(actions))

    # --- awards ---------------------------------------------------------------------------------

    @property
    def awards(self) -> Awards:
        """What was awarded to this node, and whom it obeys."""
        return self._duties.kept.awards

    @property
    def machines(self) -> Mapping[str, Machine]:
        """The machines of this node as it knows them."""
        return self._duties.kept.machines

    def queue(self, machine: str) -> list[Order]:
        """What a machine is to do yet, in order."""
        return self._duties.queues[machine]

    def is_mine(self, envelope: Awarded) -> bool:
        """Whether an award or its withdrawal is addressed to this node; others are none of its business."""
        return envelope.target == f"{self.plant.site}/{self.node}"

    def on_award(self, envelope: Awarded, now: int) -> Out:
        """Take an award or its withdrawal, or say why not; the one in force again is answered as before."""
        able = [name for name, machine in self._duties.kept.machines.items() if machine.state != "down"]
        target = (f"{self.plant.site}/{self.node}",)
        ack = self._duties.kept.awards.take(envelope, now, target, self._fact, able)
        if ack.accepted and envelope.body.cancelled:
            for machine in self._duties.kept.machines.values():
                machine.parts.cancelled(envelope.body.job, envelope.body.op)
        self._duties.sort_out()
        forget_overtaken(self._duties, now)
        return Out(award_acks=(ack,)) + self.on_time(now)

    def _fact(self, key: Key) -> str | None:
        if key in self._duties.begun:
            return "it is running or done here"
        return "its start is out and unanswered: it may have begun" if key in dict(self._duties.starting()) else None

    # --- the plan -------------------------------------------------------------------------------

    def _refusal(self, envelope: InForce, now: int) -> str | None:
        held = self._duties.kept.envelope
        if held and envelope.counter < held.counter:
            return f"counter {held.counter} is in force here; publish with a higher one"
        if envelope.counter > now + MAX_AHEAD:
            return "its counter is years ahead of this node's clock; correct one of the two"
        if envelope.target not in (f"{self.plant.site}/all", f"{self.plant.site}/{self.node}"):
            return f"addressed to {envelope.target}, this is {self.plant.site}/{self.node}"
        if envelope.valid_until <= now:
            return "its authority had ended when it arrived; publish it anew"
        if envelope.body.plan.t0 is None:
            return "it does not say when its tick 0 is (plan.t0)"
        return None

    def _conflicts(self, envelope: InForce) -> tuple[Key, ...]:
        """Operations begun here, or perhaps begun, that the plan believes still to come."""
        known = {(job, op) for job, op in envelope.body.started}
        wanted = {(one.job, one.op) for one in envelope.body.plan.assignments if not one.interrupted} - known
        return tuple(key for key in (*self._duties.begun, *self._in_doubt(envelope)) if key in wanted)

    def _in_doubt(self, envelope: InForce) -> Iterator[Key]:
        """Those of them that the plan gives to another machine."""
        for key, name in self._duties.starting():
            if all((one.job, one.op, one.machine) != (*key, name) for one in envelope.body.plan.assignments):
                yield key
