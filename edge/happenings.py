"""What machines say happened: what it answers, what it changes, and the records to keep of it.

    records = take_in(duties, "press-4", machine, event, now)

What a machine says again (it repeats answers) is no news. Events are told apart by what they say, not by clocks.
"""

from __future__ import annotations

from edge.duties import REMEMBERED, Duties
from edge.machines import Machine
from messages.clock import SECOND
from messages.contracts import (
    Action,
    Finished,
    Interrupted,
    MachineEvent,
    PartIdentified,
    Record,
    Refused,
    Serviced,
    Started,
    StateChanged,
)

ANSWERS = {"preheat": ("preheat", "idle"), "idle": ("idle",), "off": ("off",)}
"""States that show that an action was obeyed, whatever event tells of them."""
LONGEST = 20
"""Work is worn by for no longer than so many times as it should have taken: a clock may be set right in between."""
HEARD = 64
"""Events remembered per machine, to know a repetition."""


def take_in(duties: Duties, name: str, machine: Machine, event: MachineEvent, now: int) -> list[Record]:
    """One event of a machine."""
    answered = _answer(machine, event)
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
            if event.job is None or (event.op is not None and (event.job, event.op) in duties.begun):
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
                duties.kept.awards.revision += 1  # it lies there still, but takes no place: the judge must know
        case "started":
            return _on_started(duties, name, machine, event)
        case "finished" | "interrupted":
            return on_ended(duties, name, machine, event)
        case "breakdown":
            machine.state, machine.since, machine.pending = "down", event.at, None
            machine.repair_at = event.repair_at
            return [StateChanged(at=event.at, machine=name, state="down", repair_at=event.repair_at)]
        case "serviced":
            return [Serviced(at=event.at, machine=name, worked_s=machine.wear.serviced())]
        case "repaired":
            return enter(name, machine, event.state or "off", event.at)
        case "state":
            return enter(name, machine, event.state, event.at) if event.state else []
        case "refused":
            return _on_refused(duties, name, machine, event, answered, now)
    return []


def on_ended(duties: Duties, name: str, machine: Machine, event: MachineEvent) -> list[Record]:
    """Work was finished or interrupted."""
    if event.job is None or event.op is None:
        return []
    key = (event.job, event.op)
    running = machine.running
    started_at = running[2] if running and running[:2] == key else event.at
    machine.running = None
    machine.wear.worked(started_at, _worked_until(machine, started_at, event))
    if event.kind == "finished":
        duties.kept.awards.ended(key, event.at, event.recovered)
        duties.take_out(key)
        if duties.plant.machines[name][1].buffer.out is not None:
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
        return [finished, *enter(name, machine, "idle", event.at)]
    # Whoever the next plan gives it to may begin it again, this machine included; until then it waits.
    duties.begun.pop(key, None)
    duties.kept.interrupted = [*duties.kept.interrupted, key][-REMEMBERED:]
    duties.kept.awards.lost(key, event.at)
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


def _worked_until(machine: Machine, started_at: int, event: MachineEvent) -> int:
    """Of what was cut off nobody may know when it was: it counts for no longer than it should have taken."""
    if event.kind != "finished":
        return min(event.at, machine.ends_at)
    nominal_us = machine.ends_at - started_at
    return min(event.at, started_at + LONGEST * nominal_us) if nominal_us > 0 else event.at


def enter(name: str, machine: Machine, state: str, at: int) -> list[Record]:
    """A machine is in this state from then on."""
    if machine.state == state:
        return []
    machine.state, machine.since = state, at
    return [StateChanged(at=at, machine=name, state=state)]


def _answer(machine: Machine, event: MachineEvent) -> Action | None:
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


def _on_started(duties: Duties, name: str, machine: Machine, event: MachineEvent) -> list[Record]:
    if event.job is None or event.op is None:
        return []
    key = (event.job, event.op)
    order = next((one for one in duties.queues[name] if one.key == key), None)
    seconds = order.seconds if order else 0.0
    machine.running, machine.state, machine.since = (event.job, event.op, event.at), "work", event.at
    machine.ends_at = event.at + round(seconds * SECOND)
    machine.worked_s += seconds
    machine.parts.waiting.pop(event.job, None)
    machine.parts.called.pop(event.job, None)
    award = duties.kept.awards.began(key, event.at)
    duties.take_out(key)
    revision = duties.revision or 0
    state = StateChanged(at=event.at, machine=name, state="work")
    return [
        Started(at=event.at, machine=name, job=event.job, op=event.op, plan_revision=revision, award=award),
        state,
    ]


def _on_refused(
    duties: Duties, name: str, machine: Machine, event: MachineEvent, asked: Action | None, now: int
) -> list[Record]:
    """Perhaps what we believe of the machine is wrong; the part at least is called for again."""
    if asked is not None and asked.kind in ("call", "drop"):
        machine.no_call_before = now + duties.answer_us
    else:
        machine.not_before = now + duties.answer_us
        if asked is not None and asked.kind == "start":
            machine.parts.waiting.pop(asked.job or "", None)
        else:
            machine.parts.waiting = {}
    return [Refused(at=event.at, machine=name, action=event.action or "unknown", detail=event.detail)]
