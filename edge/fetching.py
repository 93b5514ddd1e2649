"""Parts are called to their machines, as places and turn allow; what lies in the way is put aside.

    actions = fetch(duties, "press-4", machine, now)

Calls that are out are repeated after `Pace.answer_s`; one that nobody answered is made again.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge.duties import Duties, Out
from edge.machines import Machine
from edge.parts import Parts, Pending
from messages.contracts import Action


def fetch(duties: Duties, name: str, machine: Machine, now: int) -> Out:
    """Calls for parts: those that are out are repeated, others made as places and turn allow."""
    actions = []
    parts, places = machine.parts, duties.places[name]
    for tag, one in list(parts.called.items()):
        if now >= one.given_up_at:  # the part is late, not the machine at fault: it is called for again
            del parts.called[tag]
        elif now - one.sent_at >= duties.answer_us:
            one.sent_at = now
            actions.append((name, one.action))
    if machine.state == "down" or now < machine.no_call_before or not duties.is_told(now):
        return Out(actions=tuple(actions))
    for tag, op in parts.unwanted.items():
        if tag not in parts.called:
            drop = duties.action("drop", now, job=tag, op=op)
            parts.called[tag] = Pending(action=drop, sent_at=now, given_up_at=drop.valid_until)
            actions.append((name, drop))
    actions += _make_room(duties, name, parts, places, now)
    first = parts.wanted(duties.queues[name], places)
    further = {order.job: order for order in parts.sent_for(duties.queues[name], first, now)}
    for due in (*first, *further.values()):
        there = due.job in parts.waiting or due.job in parts.called
        full = due.job not in further and parts.is_full(places, further)
        if there or full or not due.after <= now < due.until:
            continue
        if now >= due.start - duties.lead_us[name]:  # while it still works, too: the part waits at its input
            call = duties.action("call", now, due)
            parts.called[due.job] = Pending(action=call, sent_at=now, given_up_at=call.valid_until)
            actions.append((name, call))
    return Out(actions=tuple(actions))


def forget_overtaken(duties: Duties, now: int) -> None:
    """A call that nobody here wants any more is not repeated. A start stays until it is answered.

    Where places are counted the call is taken back, else the part may come and lie in somebody's way.
    """
    for name, machine in duties.kept.machines.items():
        if not machine.parts.called:
            continue
        places, queue = duties.places[name], duties.queues[name]
        first = machine.parts.wanted(queue, places)
        wanted = {order.key for order in (*first, *machine.parts.sent_for(queue, first, now))}
        for tag in machine.parts.overtaken(wanted):
            call = machine.parts.called.pop(tag).action
            if places is not None:
                drop = duties.action("drop", now, job=tag, op=call.op)
                machine.parts.called[tag] = Pending(action=drop, sent_at=0, given_up_at=drop.valid_until)


def _make_room(duties: Duties, name: str, parts: Parts, places: int | None, now: int) -> Iterator[tuple[str, Action]]:
    """Where parts for later, or for nobody here, are in the way of the next one, one of them is put aside."""
    queue = duties.queues[name]
    if not queue or not parts.is_full(places) or queue[0].job in parts.waiting:
        return
    stands_still = len(parts.waiting) >= (places or 0) and not duties.kept.machines[name].running
    if queue[0].job in parts.called and not stands_still:
        return
    tag = parts.in_the_way(queue)
    if tag is not None:
        drop = duties.action("drop", now, job=tag, op=parts.put_aside(tag))
        parts.called[tag] = Pending(action=drop, sent_at=now, given_up_at=drop.valid_until)
        yield name, drop
