"""The node's part of the plan: which machine does what next, decided from plan, parts and machine events.

Pure: `on_plan`, `on_events` and `on_time` return an `Out` of actions to send, records to keep and perhaps an
acknowledgement; the shell commits the records with `snapshot()` in one transaction, then sends. Promises:

- An operation starts when the plan gives it to this machine, its turn and hour have come, its part was read at the
  machine and the machine is warm; never twice, never after the plan's lease (`valid_until`) has ended.
- Started work stays: a plan that moves it elsewhere is answered with the fact. So is one that moves an operation whose
  `start` the machine has not answered yet: it may have begun.
- What a machine says again (it repeats answers) is no news. Events are told apart by what they say, not by clocks.
- An operation held by another node waits for the planner's release or for the end of that node's lease.
- An action is repeated until an event answers it. Restored from a snapshot, all goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydantic import BaseModel, Field

from messages.clock import SECOND
from messages.contracts import (
    MAX_AHEAD,
    Action,
    Envelope,
    Finished,
    Interrupted,
    MachineEvent,
    PartIdentified,
    PlanAck,
    PlanInForce,
    Record,
    Refused,
    Started,
    StateChanged,
)
from messages.errors import BrokenInvariant
from messages.plan import Assignment
from messages.plant import Plant

REPEAT_S = 300
"""An unanswered action is sent again after this much plant time, and at every reconnect."""
ACTION_LIFE_S = 3600
"""An action nobody answered is given up (and recorded) after this much plant time, or when the lease ends."""
RETRY_S = 300
"""Pause after a refusal before the machine is asked again."""
HEARD = 64
"""Events remembered per machine, to know a repetition."""
BOOTS = 4
"""Boots remembered per machine: a burst of an earlier one that comes late is no restart."""
REMEMBERED = 10_000
"""Finished operations remembered; older ones are known from the plan's `started`."""

InForce = Envelope[PlanInForce]
Key = tuple[str, int]


@dataclass(frozen=True)
class Out:
    """What a decision sends and keeps."""

    actions: tuple[tuple[str, Action], ...] = ()
    records: tuple[Record, ...] = ()
    ack: PlanAck | None = None

    def __add__(self, other: Out) -> Out:
        return Out(self.actions + other.actions, self.records + other.records, other.ack or self.ack)


class _Pending(BaseModel):
    action: Action
    sent_at: int
    given_up_at: int


class _Machine(BaseModel):
    """What the node knows of one machine."""

    state: str = "off"
    part: str | None = Field(None, description="tag of the part at its input")
    running: tuple[str, int, int] | None = Field(None, description="job, op, started at")
    pending: _Pending | None = None
    not_before: int = 0
    boots: list[str] = Field([], description="the last boots heard of")
    heard: list[str] = Field([], description="the last events, as what tells them apart")


class _State(BaseModel):
    envelope: InForce | None = None
    machines: dict[str, _Machine]
    begun: list[Key] = []
    interrupted: list[Key] = Field([], description="since the plan in force was made: they wait for the next one")
    attempts: int = 0


@dataclass
class Executor:
    """One node's machines and the plan for them. `state` is what `snapshot` returned before a restart."""

    plant: Plant
    node: str
    state: bytes | None = None
    _: _State = field(init=False, repr=False)

    def __post_init__(self) -> None:
        mine = [machine for machine in self.plant.machines if self.plant.node_of(machine) == self.node]
        kept = _State.model_validate_json(self.state) if self.state else _State(machines={})
        kept.machines = {machine: kept.machines.get(machine, _Machine()) for machine in mine}
        self._ = kept
        self._queues = self._sort_out()

    def snapshot(self) -> bytes:
        """All of it, for the disk."""
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
            self._queues = self._sort_out()
            self._forget_overtaken()
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
        machine.part, machine.pending, machine.not_before = None, None, 0
        return Out(records=(*records, *self._enter(device, machine, "off", now)))

    def on_time(self, now: int) -> Out:
        """What is due now."""
        out = Out()
        for name, machine in self._.machines.items():
            out += self._repeat(name, machine, now) if machine.pending else self._decide(name, machine, now)
        return out

    def on_connect(self, now: int) -> Out:
        """After a reconnect: every unanswered action once more."""
        actions = []
        for name, machine in self._.machines.items():
            if machine.pending:
                machine.pending.sent_at = now
                actions.append((name, machine.pending.action))
        return Out(actions=tuple(actions))

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
        return tuple(key for key in (*self._.begun, *self._in_doubt(envelope)) if key in wanted)

    def _in_doubt(self, envelope: InForce) -> Iterator[Key]:
        """Operations whose `start` is out and unanswered, where the plan gives them to another machine."""
        for name, machine in self._.machines.items():
            action = machine.pending.action if machine.pending else None
            if action and action.kind == "start" and action.job is not None and action.op is not None:
                place = (action.job, action.op, name)
                if all((one.job, one.op, one.machine) != place for one in envelope.body.plan.assignments):
                    yield action.job, action.op

    def _sort_out(self) -> dict[str, list[Assignment]]:
        """Per machine of this node, what the plan still wants, by start."""
        queues: dict[str, list[Assignment]] = {machine: [] for machine in self._.machines}
        if self._.envelope is None:
            return queues
        body = self._.envelope.body
        gone = {(job, op) for job, op in body.started} | set(self._.begun) | set(self._.interrupted)
        for one in sorted(body.plan.assignments, key=lambda one: (one.start, one.end)):
            if one.machine in queues and not one.interrupted and (one.job, one.op) not in gone:
                queues[one.machine].append(one)
        return queues

    def _forget_overtaken(self) -> None:
        """A call the new plan no longer wants from this machine is not repeated. A start stays until it is answered."""
        for name, machine in self._.machines.items():
            action = machine.pending.action if machine.pending else None
            if action and action.kind == "call":
                wanted = self._queues[name][0] if self._queues[name] else None
                if wanted is None or (wanted.job, wanted.op) != (action.job, action.op):
                    machine.pending = None

    def _at(self, tick: int) -> int:
        body = self._envelope().body
        return (body.plan.t0 or 0) + round(tick * body.tick_s * SECOND)

    def _envelope(self) -> InForce:
        if self._.envelope is None:
            raise BrokenInvariant("no plan in force")
        return self._.envelope

    # --- deciding -------------------------------------------------------------------------------

    def _decide(self, name: str, machine: _Machine, now: int) -> Out:
        queue = self._queues[name]
        if self._.envelope is None or now >= self._.envelope.valid_until or now < machine.not_before:
            return Out()
        if machine.state == "down":
            return Out()
        due = queue[0] if queue else None
        if due and self._held(due, now):
            return Out()
        start = self._at(due.start) if due else 0
        if due and machine.part != due.job and now >= start - self._call_lead_us():
            return self._ask(name, machine, "call", now, due)  # while it still works, too: the part waits at its input
        if machine.running or machine.state in ("work", "setup", "preheat"):
            return Out()
        if due is None:
            return self._ask(name, machine, "off", now) if machine.state == "idle" else Out()
        spec = self.plant.machines[name][1]
        warm = machine.state == "idle" or spec.preheat_h == 0
        if machine.part == due.job and warm and now >= start:
            return self._ask(name, machine, "start", now, due)
        wanted = self._planned_state(name, now)
        # Late work finds its hour in the plan gone by: then the machine is wanted warm.
        if machine.state == "off" and spec.preheat_h and (now >= start or wanted in ("preheat", "idle", "work")):
            return self._ask(name, machine, "preheat", now)
        if machine.state == "idle" and wanted == "off" and now + spec.preheat_h * 3600 * SECOND < start:
            return self._ask(name, machine, "off", now)
        return Out()

    def _held(self, due: Assignment, now: int) -> bool:
        return any(
            hold.job == due.job and hold.op == due.op and hold.owner != self.node and now < hold.until
            for hold in self._envelope().body.holds
        )

    def _call_lead_us(self) -> int:
        return round(2 * self.plant.transport_s * SECOND)

    def _planned_state(self, machine: str, now: int) -> str:
        """What the plan says the machine does now; where it says nothing, the machine is off."""
        for one in self._envelope().body.plan.machine_states:
            if one.machine == machine and self._at(one.start) <= now < self._at(one.end):
                return one.state
        return "off"

    def _ask(self, name: str, machine: _Machine, kind: str, now: int, due: Assignment | None = None) -> Out:
        envelope = self._envelope()
        self._.attempts += 1
        until = min(envelope.valid_until, now + ACTION_LIFE_S * SECOND)
        action = Action.model_validate(
            {
                "id": f"{self.node}.{envelope.body.plan.revision}.{self._.attempts}",
                "kind": kind,
                "job": due.job if due else None,
                "op": due.op if due else None,
                "duration_s": (due.end - due.start) * envelope.body.tick_s if due and kind == "start" else None,
                "valid_until": until,
            }
        )
        machine.pending = _Pending(action=action, sent_at=now, given_up_at=until)
        return Out(actions=((name, action),))

    def _repeat(self, name: str, machine: _Machine, now: int) -> Out:
        pending = machine.pending
        if pending is None:
            return Out()
        if now >= pending.given_up_at:
            machine.pending = None
            machine.not_before = now + RETRY_S * SECOND
            if pending.action.kind == "call":  # the part is late, not the machine at fault: call again
                return Out()
            return Out(records=(Refused(at=now, machine=name, action=pending.action.id, detail="not answered"),))
        out = Out()
        if now - pending.sent_at >= REPEAT_S * SECOND:
            pending.sent_at = now
            out = Out(actions=((name, pending.action),))
        if pending.action.kind == "call":
            # While the part is on its way the machine may be warmed as planned.
            out += self._warm_while_waiting(name, machine, now)
        return out

    def _warm_while_waiting(self, name: str, machine: _Machine, now: int) -> Out:
        """Preheating needs no answer of its own here: the machine's `state` event shows it."""
        preheat_h = self.plant.machines[name][1].preheat_h
        if machine.state != "off" or not preheat_h or now < machine.not_before or not self._queues[name]:
            return Out()
        envelope = self._envelope()
        wanted = self._planned_state(name, now)
        if now >= envelope.valid_until or not (
            now >= self._at(self._queues[name][0].start) or wanted in ("preheat", "idle", "work")
        ):
            return Out()
        self._.attempts += 1
        machine.not_before = now + RETRY_S * SECOND
        until = min(envelope.valid_until, now + ACTION_LIFE_S * SECOND)
        identity = f"{self.node}.{envelope.body.plan.revision}.{self._.attempts}"
        return Out(actions=((name, Action(id=identity, kind="preheat", valid_until=until)),))

    # --- events ---------------------------------------------------------------------------------

    def _take_in(self, name: str, machine: _Machine, event: MachineEvent, now: int) -> list[Record]:
        self._answer(machine, event)
        told = f"{event.kind} {event.at} {event.op} {event.state} {event.job}"
        repeated = told in machine.heard
        if repeated and event.kind not in ("refused", "part_identified"):
            return []
        if not repeated:
            machine.heard = [*machine.heard, told][-HEARD:]
        match event.kind:
            case "part_identified":
                machine.part = event.job
                # Said again in answer to a call, it is still there; that is no second arrival.
                news = event.job is not None and not repeated
                return [PartIdentified(at=event.at, machine=name, job=event.job)] if news and event.job else []
            case "part_removed":
                machine.part = None
            case "started":
                return self._on_started(name, machine, event)
            case "finished" | "interrupted":
                return self._on_ended(name, machine, event)
            case "breakdown":
                machine.state, machine.pending = "down", None
                return [StateChanged(at=event.at, machine=name, state="down", repair_at=event.repair_at)]
            case "repaired":
                return self._enter(name, machine, event.state or "off", event.at)
            case "state":
                return self._enter(name, machine, event.state, event.at) if event.state else []
            case "refused":
                # Perhaps what we believe of the machine is wrong; the part at least is called for again.
                machine.part = None
                machine.not_before = now + RETRY_S * SECOND
                return [Refused(at=event.at, machine=name, action=event.action or "unknown", detail=event.detail)]
        return []

    def _answer(self, machine: _Machine, event: MachineEvent) -> None:
        pending = machine.pending
        if pending is None:
            return
        action = pending.action
        answered = event.action == action.id or (
            (action.kind == "call" and event.kind == "part_identified" and event.job == action.job)
            or (action.kind == "start" and event.kind == "started" and event.job == action.job)
            or (action.kind in ("preheat", "idle", "off") and event.kind == "state" and event.state == action.kind)
        )
        if answered:
            machine.pending = None

    def _on_started(self, name: str, machine: _Machine, event: MachineEvent) -> list[Record]:
        if event.job is None or event.op is None:
            return []
        key = (event.job, event.op)
        machine.running, machine.state = (event.job, event.op, event.at), "work"
        machine.part = None if machine.part == event.job else machine.part
        if key not in self._.begun:
            self._.begun = [*self._.begun, key][-REMEMBERED:]
        self._queues = self._sort_out()
        revision = self.revision or 0
        state = StateChanged(at=event.at, machine=name, state="work")
        return [
            Started(at=event.at, machine=name, job=event.job, op=event.op, plan_revision=revision),
            state,
        ]

    def _on_ended(self, name: str, machine: _Machine, event: MachineEvent) -> list[Record]:
        if event.job is None or event.op is None:
            return []
        key = (event.job, event.op)
        running = machine.running
        started_at = running[2] if running and running[:2] == key else event.at
        machine.running = None
        if event.kind == "finished":
            if key not in self._.begun:
                self._.begun = [*self._.begun, key][-REMEMBERED:]
            self._queues = self._sort_out()
            finished = Finished(
                at=event.at,
                machine=name,
                job=event.job,
                op=event.op,
                started_at=started_at,
                energy_kwh=event.energy_kwh,
            )
            # The machine idles from here on whether or not its own word of that has arrived.
            return [finished, *self._enter(name, machine, "idle", event.at)]
        # Whoever the next plan gives it to may begin it again, this machine included; until then it waits.
        self._.begun = [one for one in self._.begun if one != key]
        self._.interrupted = [*self._.interrupted, key][-REMEMBERED:]
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
        machine.state = state
        return [StateChanged(at=at, machine=name, state=state)]
