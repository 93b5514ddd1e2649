"""Rounds: a task is offered to every able node that is there, bids are taken in, and somebody may choose among them.

    tendering.open(("T1", 0)); sends = tendering.offer(("T1", 0), now)
    tendering.on_bid("cell-1", bid)             # once; of another round, judge or node it changes nothing
    tendering.ready(now)                        # bids are in, or the time for them is over

Of a task it writes what belongs to its round: `round`, `deadline`, `asked`, `bids`, `good_until`, `declined`, and how
long it rests after a round without bids (`not_sooner`, `why`). A round ends with an award, with its bids grown old, or
with none.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from messages.clock import SECOND
from messages.dispatch.awaiting import Awaiting
from messages.dispatch.ledger import Ledger
from messages.dispatch.nodes import Nodes
from messages.dispatch.out import offer_to
from messages.dispatch.task import GIVEN, Key, Send, Task
from messages.dispatch.term import Term
from messages.negotiation import Bid
from messages.pace import Pace


class Tendering:
    """Of one book."""

    def __init__(self, ledger: Ledger, nodes: Nodes, term: Term, awaiting: Awaiting, pace: Pace) -> None:
        self._ledger, self._nodes, self._term, self._awaiting, self._pace = ledger, nodes, term, awaiting, pace
        self._retry_us = round(pace.retry_s * SECOND)

    def open(self, key: Key) -> None:
        """Its part is ready for it."""
        task = self._ledger.tasks[key]
        if task.state == "waiting":
            self._ledger.enter(task, "open")

    def open_ahead(self, key: Key) -> bool:
        """Its part is not ready, but somebody is at it, or will soon be; False: it is not so, or it is open already.

        Without tags a node could begin it on a part that lies before its machine for the operation before.
        """
        task = self._ledger.tasks.get(key)
        if task is None or task.state != "waiting" or not self._term.tags or task.cancelled:
            return False
        before = self._ledger.before(task)
        if before is None or before.state not in ("tendered", "awarded", "held", "working"):
            return False
        self._ledger.enter(task, "open", rouse=False)
        return True

    def offer(self, key: Key, now: int, arrives_at: Mapping[str, int] | None = None) -> list[Send]:
        """Ask every able node that is there."""
        task = self._ledger.tasks[key]
        if task.state not in ("open", "tendered") or self._term.fenced or now < task.not_sooner:
            return []
        by_node: dict[str, dict[str, float]] = {}
        for machine, seconds in task.seconds.items():
            if self._nodes.is_there(machine):
                by_node.setdefault(self._nodes.of(machine), {})[machine] = seconds
        if not by_node:
            task.not_sooner, task.why = now + self._retry_us, "no able node is there"
            self._ledger.rest(key, task.not_sooner)
            self._ledger.touch(key)
            return []
        self._awaiting.asked(task)
        task.round += 1
        task.deadline, task.asked = now + self._awaiting.us(self._pace.offer_s), sorted(by_node)
        task.bids, task.declined, task.good_until = {}, {}, {}
        self._ledger.enter(task, "tendered", rouse=False)
        there, authority = arrives_at or {}, self._term.authority
        return [offer_to(node, task, seconds, authority, there) for node, seconds in by_node.items()]

    def on_bid(self, node: str, bid: Bid) -> None:
        """Take a bid of this round in, once; of another round, judge or node it changes nothing."""
        task = self._ledger.tasks.get((bid.job, bid.op))
        if task is None or bid.authority != self._term.authority:
            return
        if bid.round < task.round:  # it was tendered again before its answer could be there
            self._awaiting.late(node, bid, task.round)
        if task.state != "tendered" or bid.round != task.round or node not in task.asked:
            return
        task.asked.remove(node)
        task.declined.update({name: why for name, why in bid.declined.items() if self._nodes.of(name) == node})
        for one in bid.bids:
            if self._nodes.of(one.machine) != node or one.machine not in task.seconds:
                continue
            if bid.valid_until <= self._term.now:
                task.declined[one.machine] = f"its bid was old when it came: is the clock of {node} right?"
                continue
            task.bids[one.machine], task.good_until[one.machine] = one, bid.valid_until
        self._ledger.touch(task.key)
        if not task.asked:
            self._awaiting.in_time(task.key)
        if not task.asked or task.key in self._ledger.ready:
            self._ledger.enter(task, "tendered", rouse=bool(task.bids))

    def ready(self, now: int) -> list[Task]:
        """Tasks that can be awarded now: bids are in, or the time for them is over."""
        return [self._ledger.tasks[key] for key in self._ledger.ready if self.is_ready(key, now)]

    def is_ready(self, key: Key, now: int) -> bool:
        """Whether it can be awarded now."""
        task = self._ledger.tasks.get(key)
        if task is None or key not in self._ledger.ready or now >= max(task.good_until.values(), default=0):
            return False
        return self._term.established and not self.may_be_held(task, now)

    def is_coming(self, key: Key, now: int, *, unasked: bool) -> bool:
        """Whether it is soon known if it can be awarded: bids are awaited, or (`unasked`) its part is at work or will
        be."""
        task = self._ledger.tasks.get(key)
        if task is None or self.may_be_held(task, now):
            return False
        if task.state == "waiting" and unasked:
            before = self._ledger.before(task)
            return before is not None and (before.state == "working" or before.state in GIVEN)
        return task.state == "tendered" and bool(task.asked) and now < task.deadline

    def is_good(self, task: Task, machine: str, now: int) -> bool:
        """Whether it may be awarded to this machine by its bid."""
        return task.state == "tendered" and now < task.good_until.get(machine, 0) and self._term.established

    def may_be_held(self, task: Task, now: int) -> bool:
        """Whether an able node that never answered this judge may hold it by an earlier judge's award."""
        return self._term.may_be_held(task, (self._nodes.node_of.get(machine) for machine in task.seconds), now)

    def at_due(self, task: Task, now: int) -> None:
        """An open task has rested, or the time for bids is over, or bids have grown old."""
        if task.state == "open" and now >= task.not_sooner:
            self._ledger.offerable[task.key] = None
        elif task.state == "tendered" and (not task.asked or now >= task.deadline):
            self._at_deadline(task, now)

    def keep_bids(self, task: Task, machines: Container[str]) -> None:
        """Those of other machines fall away, as do those of which nobody knows how long they are good."""
        for name in [name for name in task.bids if name not in machines or name not in task.good_until]:
            del task.bids[name]
        task.good_until = {name: task.good_until[name] for name in task.bids}

    def _at_deadline(self, task: Task, now: int) -> None:
        old = [name for name, until in task.good_until.items() if until <= now]
        for name in old:
            del task.bids[name], task.good_until[name]
        if task.bids:
            if task.key not in self._ledger.ready or old:
                self._ledger.ready[task.key] = None
                self._ledger.touch(task.key)
                self._ledger.rouse()
            return
        declined = "; ".join(f"{name}: {text}" for name, text in sorted(task.declined.items()))
        task.why = declined or ("bids grew old before an award" if old else "nobody bid")
        began = min(now, task.deadline) if old else now  # bids that were good for long need no rest
        task.not_sooner = max(now, began + self._retry_us)
        self._ledger.enter(task, "open")
        if task.not_sooner <= now:
            self._ledger.offerable[task.key] = None
