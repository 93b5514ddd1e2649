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

from pydantic import BaseModel, Field, ValidationError

from edge.awards import Awarded, Awards
from edge.orders import InForce, Key, Order, economic_state, next_change, plan_orders, planned_state
from edge.parts import Parts, Pending
from edge.wear import Wear
from messages.clock import SECOND
from messages.contracts import (
    MAX_AHEAD,
    Action,
    Finished,
    Interrupted,
    MachineEvent,
    PartIdentified,
    PlanAck,
    Record,
    Refused,
    Serviced,
    Started,
    StateChanged,
)
from messages.errors import ConfigError
from messages.negotiation import AwardAck
from messages.pace import pace_of
from messages.plant import Plant

ANSWERS = {"preheat": ("preheat", "idle"), "idle": ("idle",), "off": ("off",)}
"""States that show that an action was obeyed, whatever event tells of them."""
HEARD = 64
"""Events remembered per machine, to know a repetition."""
BOOTS = 4
"""Boots remembered per machine: a burst of an earlier one that comes late is no restart."""
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


class _Machine(BaseModel):
    """What the node knows of one machine."""

    state: str = "off"
    since: int = Field(0, description="when it entered that state, as it says")
    repair_at: int | None = Field(None, description="of a breakdown: when it should run again, if anybody knows")
    parts: Parts = Parts()
    running: tuple[str, int, int] | None = Field(None, description="job, op, started at")
    ends_at: int = Field(0, description="of what runs: when it should end")
    worked_s: float = Field(0.0, description="working time done and begun here")
    wear: Wear = Wear()
    pending: Pending | None = Field(None, description="the command that is out; calls for parts are apart")
    not_before: int = 0
    no_call_before: int = 0
    boots: list[str] = Field([], description="the last boots heard of")
    heard: list[str] = Field([], description="the last events, as what tells them apart")


class _State(BaseModel):
    envelope: InForce | None = None
    machines: dict[str, _Machine]
    begun: list[Key] = []
    interrupted: list[Key] = Field([], description="since the plan in force was made: they wait for the next one")
    awards: Awards = Awards()
    attempts: int = 0


@dataclass
class Executor:
    """One node's machines and what they are told to do. `state` is what `snapshot` returned before a restart."""

    plant: Plant
    node: str
    state: bytes | None = None
    _: _State = field(init=False, repr=False)

    def __post_init__(self) -> None:
        mine = [machine for machine in self.plant.machines if self.plant.node_of(machine) == self.node]
        kept = _restored(self.state) if self.state else _State(machines={})
        kept.machines = {machine: kept.machines.get(machine, _Machine()) for machine in mine}
        self._ = kept
        self._begun = dict.fromkeys(kept.begun)
        self._places = {name: self.plant.machines[name][1].buffer.in_ for name in mine}
        self._lead_us = {name: _lead_us(self.plant, name) for name in mine}
        self.pace = pace_of(self.plant)
        self._answer_us, self._action_us = round(self.pace.answer_s * SECOND), round(self.pace.action_s * SECOND)
        self._sort_out()

    def snapshot(self) -> bytes:
        """All of it, for the disk."""
        self._.begun = list(self._begun)
        return self._.model_dump_json().encode()

    @property
    def revision(self) -> int | None:
        """Revision of the plan obeyed, if any."""
        return self._.envelope.body.plan.revision if self._.envelope else None

    def on_plan(self, envelope: InForce, now: int) -> Out:
        """Take a plan over, or say why not. The one in force again changes nothing and is not answered."""
        held = self._.envelope
        if held and envelope.counter == held.counter:
            return Out()
        refusal = self._refusal(envelope, now)
        conflicts = () if refusal else self._conflicts(envelope)
        if not refusal:
            if held is None or held.body.plan.revision != envelope.body.plan.revision:
                self._.interrupted = []
            self._.envelope = envelope
            self._sort_out()
            self._forget_begun()
            self._forget_overtaken(now)
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
        machine = self._.machines.get(device)
        if machine is None:
            return Out()
        records: list[Record] = []
        for event in events:
            records += self._take_in(device, machine, event, now)
        return Out(records=tuple(records)) + self.on_time(now)

    def on_boot(self, device: str, boot: str, now: int) -> Out:
        """A burst of this boot came. A machine that started anew is off, has no part and has dropped its work."""
        machine = self._.machines.get(device)
        if machine is None or boot in machine.boots:
            return Out()
        known, machine.boots = bool(machine.boots), [*machine.boots, boot][-BOOTS:]
        if not known:
            return Out()
        records: list[Record] = []
        if machine.running:
            job, op, _ = machine.running
            gone = MachineEvent(at=now, kind="interrupted", job=job, op=op, detail="the machine started anew")
            records += self._on_ended(device, machine, gone)
        machine.parts.forget()
        machine.pending, machine.not_before, machine.no_call_before = None, 0, 0
        return Out(records=(*records, *self._enter(device, machine, "off", now)))

    def on_time(self, now: int) -> Out:
        """What is due now; awards that should have begun by now are given up."""
        if self._.awards.expire(now, (key for key, _ in self._starting())):
            self._sort_out()
            self._forget_overtaken(now)
        actions: list[tuple[str, Action]] = []
        records: list[Record] = []
        for name, machine in self._.machines.items():
            decide = self._repeat if machine.pending else self._decide
            for out in (self._fetch(name, machine, now), decide(name, machine, now)):
                actions += out.actions
                records += out.records
        return Out(actions=tuple(actions), records=tuple(records))

    def next_due(self, now: int) -> int | None:
        """When `on_time` must be called again if nothing comes before; earlier does no harm. None: never."""
        times = [task.valid_until for _, task in self._.awards.held]
        envelope = self._.envelope
        for name, machine in self._.machines.items():
            times += [machine.not_before, machine.no_call_before]
            for pending in (machine.pending, *machine.parts.called.values()):
                if pending is not None:
                    times += [pending.sent_at + self._answer_us, pending.given_up_at]
            spec, queue = self.plant.machines[name][1], self._queues[name]
            heating_us = round(spec.preheat_h * 3600 * SECOND)
            times += [order.fetch_at for order in queue if order.fetch_at is not None]
            for due in machine.parts.wanted(queue, self._places[name]):
                times += [due.start - self._lead_us[name], due.start - heating_us, due.start, due.after, due.until]
            if envelope is not None:
                times += [envelope.valid_until, *next_change(envelope, name, now)]
            if machine.state == "idle" and not queue and spec.idle_kw > spec.off_kw:
                waits = heating_us * (spec.preheat_kw - spec.off_kw) / (spec.idle_kw - spec.off_kw)
                times.append(machine.since + max(0, int(waits)) + 1)
        return min((at for at in times if at > now), default=None)

    def on_connect(self, now: int) -> Out:
        """After a reconnect: every unanswered action once more."""
        actions = []
        for name, machine in self._.machines.items():
            for pending in (machine.pending, *machine.parts.called.values()):
                if pending is not None:
                    pending.sent_at = now
                    actions.append((name, pending.action))
        return Out(actions=tuple(actions))

    # --- awards ---------------------------------------------------------------------------------

    @property
    def awards(self) -> Awards:
        """What was awarded to this node, and whom it obeys."""
        return self._.awards

    @property
    def machines(self) -> Mapping[str, _Machine]:
        """The machines of this node as it knows them."""
        return self._.machines

    def queue(self, machine: str) -> list[Order]:
        """What a machine is to do yet, in order."""
        return self._queues[machine]

    def is_mine(self, envelope: Awarded) -> bool:
        """Whether an award or its withdrawal is addressed to this node; others are none of its business."""
        return envelope.target == f"{self.plant.site}/{self.node}"

    def on_award(self, envelope: Awarded, now: int) -> Out:
        """Take an award or its withdrawal, or say why not; the one in force again is answered as before."""
        able = [name for name, machine in self._.machines.items() if machine.state != "down"]
        target = (f"{self.plant.site}/{self.node}",)
        ack = self._.awards.take(envelope, now, target, self._fact, able)
        if ack.accepted and envelope.body.cancelled:
            for machine in self._.machines.values():
                machine.parts.cancelled(envelope.body.job, envelope.body.op)
        self._sort_out()
        self._forget_overtaken(now)
        return Out(award_acks=(ack,)) + self.on_time(now)

    def _fact(self, key: Key) -> str | None:
        if key in self._begun:
            return "it is running or done here"
        return "its start is out and unanswered: it may have begun" if key in dict(self._starting()) else None

    # --- the plan -------------------------------------------------------------------------------

    def _refusal(self, envelope: InForce, now: int) -> str | None:
        held = self._.envelope
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
        return tuple(key for key in (*self._begun, *self._in_doubt(envelope)) if key in wanted)

    def _starting(self) -> Iterator[tuple[Key, str]]:
        """Operations whose `start` is out and unanswered, and the machine it went to."""
        for name, machine in self._.machines.items():
            action = machine.pending.action if machine.pending else None
            if action and action.kind == "start" and action.job is not None and action.op is not None:
                yield (action.job, action.op), name

    def _in_doubt(self, envelope: InForce) -> Iterator[Key]:
        """Those of them that the plan gives to another machine."""
        for key, name in self._starting():
            if all((one.job, one.op, one.machine) != (*key, name) for one in envelope.body.plan.assignments):
                yield key

    def _sort_out(self) -> None:
        """Per machine of this node, what is still wanted of it: of the plan by start, then awards as they came."""
        self._queues: dict[str, list[Order]] = {machine: [] for machine in self._.machines}
        self._planned: set[Key] = set()
        if self._.envelope is not None:
            assignments = self._.envelope.body.plan.assignments
            self._planned = {(one.job, one.op) for one in assignments if one.machine in self._.machines}
            told = {(job, op) for job, op in self._.envelope.body.started}
            known = told.union(self._begun, self._.interrupted)
            self._queues = plan_orders(self._.envelope, self._.machines, self.node, known)
        for order in self._.awards.orders():
            if order.machine in self._queues and order.key not in self._begun:
                self._queues[order.machine].append(order)

    def _take_out(self, key: Key) -> None:
        """It is begun or done: nobody here is to do it any more."""
        self._begun[key] = None
        self._forget_begun()
        for name, queue in self._queues.items():
            if any(order.key == key for order in queue):
                self._queues[name] = [order for order in queue if order.key != key]

    def _forget_begun(self) -> None:
        while len(self._begun) > REMEMBERED + len(self._planned):
            del self._begun[next(key for key in self._begun if key not in self._planned)]

    def _forget_overtaken(self, now: int) -> None:
        """A call that nobody here wants any more is not repeated. A start stays until it is answered.

        Where places are counted the call is taken back, else the part may come and lie in somebody's way.
        """
        for name, machine in self._.machines.items():
            if not machine.parts.called:
                continue
            places, queue = self._places[name], self._queues[name]
            first = machine.parts.wanted(queue, places)
            wanted = {order.key for order in (*first, *machine.parts.sent_for(queue, first, now))}
            for tag in machine.parts.overtaken(wanted):
                call = machine.parts.called.pop(tag).action
                if places is not None:
                    drop = self._action("drop", now, job=tag, op=call.op)
                    machine.parts.called[tag] = Pending(action=drop, sent_at=0, given_up_at=drop.valid_until)

    # --- deciding -------------------------------------------------------------------------------

    def _fetch(self, name: str, machine: _Machine, now: int) -> Out:
        """Calls for parts: those that are out are repeated, others made as places and turn allow."""
        actions = []
        parts, places = machine.parts, self._places[name]
        for tag, one in list(parts.called.items()):
            if now >= one.given_up_at:  # the part is late, not the machine at fault: it is called for again
                del parts.called[tag]
            elif now - one.sent_at >= self._answer_us:
                one.sent_at = now
                actions.append((name, one.action))
        if machine.state == "down" or now < machine.no_call_before or not self._is_told(now):
            return Out(actions=tuple(actions))
        for tag, op in parts.unwanted.items():
            if tag not in parts.called:
                drop = self._action("drop", now, job=tag, op=op)
                parts.called[tag] = Pending(action=drop, sent_at=now, given_up_at=drop.valid_until)
                actions.append((name, drop))
        actions += self._make_room(name, parts, places, now)
        first = parts.wanted(self._queues[name], places)
        further = {order.job: order for order in parts.sent_for(self._queues[name], first, now)}
        for due in (*first, *further.values()):
            there = due.job in parts.waiting or due.job in parts.called
            full = due.job not in further and parts.is_full(places, further)
            if there or full or not due.after <= now < due.until:
                continue
            if now >= due.start - self._lead_us[name]:  # while it still works, too: the part waits at its input
                call = self._action("call", now, due)
                parts.called[due.job] = Pending(action=call, sent_at=now, given_up_at=call.valid_until)
                actions.append((name, call))
        return Out(actions=tuple(actions))

    def _make_room(self, name: str, parts: Parts, places: int | None, now: int) -> Iterator[tuple[str, Action]]:
        """Where parts for later, or for nobody here, are in the way of the next one, one of them is put aside."""
        queue = self._queues[name]
        if not queue or not parts.is_full(places) or queue[0].job in parts.waiting:
            return
        stands_still = len(parts.waiting) >= (places or 0) and not self._.machines[name].running
        if queue[0].job in parts.called and not stands_still:
            return
        tag = parts.in_the_way(queue)
        if tag is not None:
            drop = self._action("drop", now, job=tag, op=parts.put_aside(tag))
            parts.called[tag] = Pending(action=drop, sent_at=now, given_up_at=drop.valid_until)
            yield name, drop

    def _decide(self, name: str, machine: _Machine, now: int) -> Out:
        if now < machine.not_before or machine.state == "down" or not self._is_told(now):
            return Out()
        parts = machine.parts
        due = self._queues[name][0] if self._queues[name] else None
        if due and not due.after <= now < due.until:
            return Out()
        is_there = due is not None and due.job in parts.waiting
        if due and due.award is not None and is_there and (parts.waiting[due.job] or 0) > due.op:
            return self._already_done(name, parts.waiting[due.job], due, now)
        if due and is_there and due.ahead and (known := parts.waiting[due.job]) is not None and known < due.op:
            return Out()  # it waits here for an operation before, which may be another machine's now
        if machine.running or machine.state in ("work", "setup", "preheat"):
            return Out()
        wanted = self._wanted(name, machine, due, now)
        if due is None:
            off = machine.state == "idle" and wanted == "off"
            return self._ask(name, machine, "off", now) if off else Out()
        spec = self.plant.machines[name][1]
        warm = machine.state == "idle" or spec.preheat_h == 0
        if is_there and warm and now >= due.start:
            places = spec.buffer.out
            is_blocked = places is not None and len(parts.finished) > places
            return Out() if is_blocked else self._ask(name, machine, "start", now, due)
        # Late work finds its hour in the plan gone by: then the machine is wanted warm.
        if machine.state == "off" and spec.preheat_h and (now >= due.start or wanted in ("preheat", "idle", "work")):
            return self._ask(name, machine, "preheat", now)
        if machine.state == "idle" and wanted == "off" and now + spec.preheat_h * 3600 * SECOND < due.start:
            return self._ask(name, machine, "off", now)
        return Out()

    def _already_done(self, name: str, done: int | None, due: Order, now: int) -> Out:
        """The part itself is the last to know: what its tag says was done is not done again."""
        self._.awards.lost(due.key, now)
        self._sort_out()
        detail = f"the part says that op {due.op} was done; it waits for op {done}"
        return Out(records=(Refused(at=now, machine=name, action=f"{self.node}.{due.by}", detail=detail),))

    def _is_told(self, now: int) -> bool:
        """Whether anybody has authority here: a plan whose lease runs, or a judge that was heard of."""
        envelope = self._.envelope
        return bool(self._.awards.session) or (envelope is not None and now < envelope.valid_until)

    def _wanted(self, name: str, machine: _Machine, due: Order | None, now: int) -> str:
        """The state in which the machine should wait: the plan's, else the one that costs less energy."""
        envelope = self._.envelope
        if envelope is not None and now < envelope.valid_until and (due is None or due.award is None):
            return "off" if due is None else planned_state(envelope, name, now)
        spec = self.plant.machines[name][1]
        return economic_state(spec, machine.state, now, machine.since, self._queues[name])

    def _ask(self, name: str, machine: _Machine, kind: str, now: int, due: Order | None = None) -> Out:
        action = self._action(kind, now, due)
        machine.pending = Pending(action=action, sent_at=now, given_up_at=action.valid_until)
        return Out(actions=((name, action),))

    def _action(
        self, kind: str, now: int, due: Order | None = None, *, job: str | None = None, op: int | None = None
    ) -> Action:
        self._.attempts += 1
        life = now + self._action_us
        envelope = self._.envelope
        lease = due.until if due else envelope.valid_until if envelope and now < envelope.valid_until else life
        by = due.by if due else str(self.revision or 0)
        return Action.model_validate(
            {
                "id": f"{self.node}.{by}.{self._.attempts}",
                "kind": kind,
                "job": due.job if due else job,
                "op": due.op if due else op,
                "duration_s": due.seconds if due and kind == "start" else None,
                "last": due.last if due and kind == "start" else False,
                "valid_until": min(lease, life),
            }
        )

    def _repeat(self, name: str, machine: _Machine, now: int) -> Out:
        pending = machine.pending
        if pending is None:
            return Out()
        if now >= pending.given_up_at:
            action = pending.action
            if action.kind == "start" and any(key == (action.job, action.op) for key, _ in self._.awards.held):
                pending.given_up_at = (
                    now + self._action_us
                )  # it may have begun: nobody else's before the machine answers
            else:
                machine.pending = None
                machine.not_before = now + self._answer_us
            return Out(records=(Refused(at=now, machine=name, action=action.id, detail="not answered"),))
        if now - pending.sent_at >= self._answer_us:
            pending.sent_at = now
            return Out(actions=((name, pending.action),))
        return Out()

    # --- events ---------------------------------------------------------------------------------

    def _take_in(self, name: str, machine: _Machine, event: MachineEvent, now: int) -> list[Record]:
        answered = self._answer(machine, event)
        told = f"{event.kind} {event.at} {event.op} {event.state} {event.job}"
        if event.kind == "refused":
            told += f" {event.action}"
        repeated = told in machine.heard
        if repeated and event.kind != "part_identified":
            return []
        if not repeated:
            machine.heard = [*machine.heard, told][-HEARD:]
        match event.kind:
            case "part_identified":
                if event.job is None or (event.op is not None and (event.job, event.op) in self._begun):
                    return []  # of before that work: what followed was heard first
                machine.parts.identified(event.job, event.op)
                # Said again in answer to a call, it is still there; that is no second arrival.
                return [] if repeated else [PartIdentified(at=event.at, machine=name, job=event.job)]
            case "part_removed":
                machine.parts.waiting.pop(event.job or "", None)
                if answered is not None and answered.kind == "drop":
                    machine.parts.left(event.job or "")
            case "part_left":
                machine.parts.left(event.job or "")
                if answered is not None and answered.kind == "drop":
                    self._.awards.revision += 1  # it lies there still, but takes no place: the judge must know
            case "started":
                return self._on_started(name, machine, event)
            case "finished" | "interrupted":
                return self._on_ended(name, machine, event)
            case "breakdown":
                machine.state, machine.since, machine.pending = "down", event.at, None
                machine.repair_at = event.repair_at
                return [StateChanged(at=event.at, machine=name, state="down", repair_at=event.repair_at)]
            case "serviced":
                return [Serviced(at=event.at, machine=name, worked_s=machine.wear.serviced())]
            case "repaired":
                return self._enter(name, machine, event.state or "off", event.at)
            case "state":
                return self._enter(name, machine, event.state, event.at) if event.state else []
            case "refused":
                return self._on_refused(name, machine, event, answered, now)
        return []

    def _answer(self, machine: _Machine, event: MachineEvent) -> Action | None:
        """What this event answers, if anything is open."""
        pending = machine.pending
        if pending is None:
            return machine.parts.answered(event.action)
        action = pending.action
        answered = event.action == action.id or (
            (action.kind == "start" and event.kind == "started" and event.job == action.job)
            or (event.kind == "state" and event.state in ANSWERS.get(action.kind, ()))
        )
        if not answered:
            return machine.parts.answered(event.action)
        machine.pending = None
        return action

    def _on_refused(
        self, name: str, machine: _Machine, event: MachineEvent, asked: Action | None, now: int
    ) -> list[Record]:
        """Perhaps what we believe of the machine is wrong; the part at least is called for again."""
        if asked is not None and asked.kind in ("call", "drop"):
            machine.no_call_before = now + self._answer_us
        else:
            machine.not_before = now + self._answer_us
            if asked is not None and asked.kind == "start":
                machine.parts.waiting.pop(asked.job or "", None)
            else:
                machine.parts.waiting = {}
        return [Refused(at=event.at, machine=name, action=event.action or "unknown", detail=event.detail)]

    def _on_started(self, name: str, machine: _Machine, event: MachineEvent) -> list[Record]:
        if event.job is None or event.op is None:
            return []
        key = (event.job, event.op)
        order = next((one for one in self._queues[name] if one.key == key), None)
        seconds = order.seconds if order else 0.0
        machine.running, machine.state, machine.since = (event.job, event.op, event.at), "work", event.at
        machine.ends_at = event.at + round(seconds * SECOND)
        machine.worked_s += seconds
        machine.parts.waiting.pop(event.job, None)
        machine.parts.called.pop(event.job, None)
        award = self._.awards.began(key, event.at)
        self._take_out(key)
        revision = self.revision or 0
        state = StateChanged(at=event.at, machine=name, state="work")
        return [
            Started(at=event.at, machine=name, job=event.job, op=event.op, plan_revision=revision, award=award),
            state,
        ]

    def _on_ended(self, name: str, machine: _Machine, event: MachineEvent) -> list[Record]:
        if event.job is None or event.op is None:
            return []
        key = (event.job, event.op)
        running = machine.running
        started_at = running[2] if running and running[:2] == key else event.at
        machine.running = None
        # Of what was cut off nobody may know when it was: it counts for no longer than it should have taken.
        machine.wear.worked(started_at, event.at if event.kind == "finished" else min(event.at, machine.ends_at))
        if event.kind == "finished":
            self._.awards.ended(key, event.at, event.recovered)
            self._take_out(key)
            if self.plant.machines[name][1].buffer.out is not None:
                machine.parts.ended(event.job, event.at)
            finished = Finished(
                at=event.at,
                machine=name,
                job=event.job,
                op=event.op,
                started_at=started_at,
                energy_kwh=event.energy_kwh,
                recovered=event.recovered,
            )
            # The machine idles from here on whether or not its own word of that has arrived.
            return [finished, *self._enter(name, machine, "idle", event.at)]
        # Whoever the next plan gives it to may begin it again, this machine included; until then it waits.
        self._begun.pop(key, None)
        self._.interrupted = [*self._.interrupted, key][-REMEMBERED:]
        self._.awards.lost(key, event.at)
        return [
            Interrupted(
                at=event.at,
                machine=name,
                job=event.job,
                op=event.op,
                started_at=started_at,
                energy_kwh=event.energy_kwh,
                detail=event.detail,
            )
        ]

    def _enter(self, name: str, machine: _Machine, state: str, at: int) -> list[Record]:
        if machine.state == state:
            return []
        machine.state, machine.since = state, at
        return [StateChanged(at=at, machine=name, state=state)]


def _restored(state: bytes) -> _State:
    try:
        kept = _State.model_validate_json(state)
    except ValidationError as error:
        raise ConfigError(
            "what this node kept of its machines is of another version and cannot be read "
            f"({error.error_count()} errors, the first at {'.'.join(map(str, error.errors()[0]['loc']))}); "
            "go back to that version, or let its machines end their work and start with an empty data folder"
        ) from None
    for machine in kept.machines.values():
        if machine.pending is not None and machine.pending.action.kind == "call":
            machine.pending = None  # calls are kept apart; this one is made again
    return kept


def _lead_us(plant: Plant, machine: str) -> int:
    """So long before its work a part is called: twice the longest way to the machine."""
    longest_s = plant.transport_s
    if plant.layout is not None:
        ways = (plant.layout.carried_s(place, machine) for place in plant.layout.ways_s)
        longest_s = max((way for way in ways if way is not None), default=0.0)
    return round(2 * longest_s * SECOND)
