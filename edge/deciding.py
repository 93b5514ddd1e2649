"""What a machine is asked to do now: to begin, to heat, to wait or to go off; and again, until it has answered.

    out = repeat(duties, name, machine, now) if machine.pending else decide(duties, name, machine, now)

One thing at a time: what is out and unanswered is repeated, and given up in the end, before anything else is asked.
"""

from __future__ import annotations

from edge.duties import Duties, Out
from edge.machines import Machine
from edge.orders import Order, economic_state, planned_state
from edge.parts import Pending
from messages.clock import SECOND
from messages.contracts import Refused


def decide(duties: Duties, name: str, machine: Machine, now: int) -> Out:
    """What to ask of a machine that owes no answer."""
    if now < machine.not_before or machine.state == "down" or not duties.is_told(now):
        return Out()
    parts = machine.parts
    due = duties.queues[name][0] if duties.queues[name] else None
    if due and not due.after <= now < due.until:
        return Out()
    is_there = due is not None and due.job in parts.waiting
    if due and due.award is not None and is_there and (parts.waiting[due.job] or 0) > due.op:
        return _already_done(duties, name, parts.waiting[due.job], due, now)
    if due and is_there and due.ahead and (known := parts.waiting[due.job]) is not None and known < due.op:
        return Out()  # it waits here for an operation before, which may be another machine's now
    if machine.running or machine.state in ("work", "setup", "preheat"):
        return Out()
    wanted = _wanted(duties, name, machine, due, now)
    if due is None:
        off = machine.state == "idle" and wanted == "off"
        return _ask(duties, name, machine, "off", now) if off else Out()
    spec = duties.plant.machines[name][1]
    warm = machine.state == "idle" or spec.preheat_h == 0
    if is_there and warm and now >= due.start:
        places = spec.buffer.out
        is_blocked = places is not None and len(parts.finished) > places
        return Out() if is_blocked else _ask(duties, name, machine, "start", now, due)
    # Late work finds its hour in the plan gone by: then the machine is wanted warm.
    if machine.state == "off" and spec.preheat_h and (now >= due.start or wanted in ("preheat", "idle", "work")):
        return _ask(duties, name, machine, "preheat", now)
    if machine.state == "idle" and wanted == "off" and now + spec.preheat_h * 3600 * SECOND < due.start:
        return _ask(duties, name, machine, "off", now)
    return Out()


def repeat(duties: Duties, name: str, machine: Machine, now: int) -> Out:
    """The same again, where it is time; what nobody answered is recorded."""
    pending = machine.pending
    if pending is None:
        return Out()
    if now >= pending.given_up_at:
        action = pending.action
        if action.kind == "start" and any(key == (action.job, action.op) for key, _ in duties.kept.awards.held):
            pending.given_up_at = now + duties.action_us  # it may have begun: nobody else's before the machine answers
        else:
            machine.pending = None
            machine.not_before = now + duties.answer_us
        return Out(records=(Refused(at=now, machine=name, action=action.id, detail="not answered"),))
    if now - pending.sent_at >= duties.answer_us:
        pending.sent_at = now
        return Out(actions=((name, pending.action),))
    return Out()


def _already_done(duties: Duties, name: str, done: int | None, due: Order, now: int) -> Out:
    """The part itself is the last to know: what its tag says was done is not done again."""
    duties.kept.awards.lost(due.key, now)
    duties.sort_out()
    detail = f"the part says that op {due.op} was done; it waits for op {done}"
    return Out(records=(Refused(at=now, machine=name, action=f"{duties.node}.{due.by}", detail=detail),))


def _wanted(duties: Duties, name: str, machine: Machine, due: Order | None, now: int) -> str:
    """The state in which the machine should wait: the plan's, else the one that costs less energy."""
    envelope = duties.kept.envelope
    if envelope is not None and now < envelope.valid_until and (due is None or due.award is None):
        return "off" if due is None else planned_state(envelope, name, now)
    spec = duties.plant.machines[name][1]
    return economic_state(spec, machine.state, now, machine.since, duties.queues[name])


def _ask(duties: Duties, name: str, machine: Machine, kind: str, now: int, due: Order | None = None) -> Out:
    action = duties.action(kind, now, due)
    machine.pending = Pending(action=action, sent_at=now, given_up_at=action.valid_until)
    return Out(actions=((name, action),))
