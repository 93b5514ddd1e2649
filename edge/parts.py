"""The parts of one machine: which were called for, lie at its input, or wait at its output.

Pure; a part of the executor's state. A machine with b places before it has at most b parts there or called for: those
of its first b orders (of orders whose parts were not ready, only of the first), and those that must set out by now to
find a place when they come. Without that statement only the first order's part is called. A call that is no longer
wanted is taken back (`drop`) and keeps its place until the machine has answered. A finished part of a cancelled order
is put aside by the same action, or it would lie in its place for ever. Bound: `MAX_PARTS` tags remembered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pydantic import BaseModel, Field

from edge.orders import Key, Order
from messages.contracts import Action
from messages.negotiation import MAX_HELD

MAX_PARTS = MAX_HELD


class Pending(BaseModel):
    """An action that is out and unanswered."""

    action: Action
    sent_at: int
    given_up_at: int


class Parts(BaseModel):
    """What the node knows of them."""

    waiting: dict[str, int | None] = Field({}, description="at the input: tag → operations done, if the tag can tell")
    called: dict[str, Pending] = Field({}, description="tag → the call, or its taking back, that is not answered")
    finished: list[str] = Field([], description="tags at the output, where its places are stated")
    unwanted: dict[str, int] = Field({}, description="of these, what nobody wants any more: tag → its next operation")
    aside: list[str] = Field([], description="put aside to make room: not called again before their turn")
    ended_at: int = Field(0, description="when the last work ended here; 0: unknown")

    def coming(self, but: Collection[str] = ()) -> int:
        """Places at the input that are taken, or kept for parts called for; `but`: those that find one as they come."""
        return len(self.waiting) + sum(tag not in self.unwanted and tag not in but for tag in self.called)

    def is_full(self, places: int | None, but: Collection[str] = ()) -> bool:
        """Whether no other part may be called for."""
        return places is not None and self.coming(but) >= places

    def wanted(self, queue: Iterable[Order], places: int | None) -> list[Order]:
        """Orders whose parts may be here or on their way, in order; of one part only its first, and of parts that were
        not ready when they were awarded only one: others may come in places meanwhile."""
        found: dict[str, Order] = {}
        awaits = False
        for order in queue:
            if order.job in found or (awaits and order.ahead):
                continue
            found[order.job] = order
            awaits |= order.ahead
            if len(found) >= (places or 1):
                break
        return list(found.values())

    def sent_for(self, queue: Iterable[Order], wanted: Iterable[Order], now: int) -> list[Order]:
        """Further orders whose parts must set out by now to be here in time."""
        found = {order.job: order for order in wanted}
        first = set(found)
        for order in queue:
            if order.fetch_at is not None and order.fetch_at <= now and order.job not in self.aside:
                found.setdefault(order.job, order)
        return [order for job, order in found.items() if job not in first]

    def in_the_way(self, queue: Iterable[Order]) -> str | None:
        """Of the parts at the input the one that is wanted last, or not at all: withdrawn, or cancelled."""
        turn: dict[str, int] = {}
        for place, order in enumerate(queue):
            turn.setdefault(order.job, place)
        return max(self.waiting, key=lambda tag: turn.get(tag, MAX_HELD), default=None)

    def put_aside(self, tag: str) -> int:
        """It makes room; how many of its operations are done, as far as is known."""
        self.aside = [*self.aside, tag][-MAX_PARTS:]
        return self.waiting.pop(tag) or 0

    def overtaken(self, wanted: Collection[Key]) -> list[str]:
        """Tags called for without need."""
        return [
            tag for tag, one in self.called.items() if one.action.kind == "call" and (tag, one.action.op) not in wanted
        ]

    def identified(self, tag: str, done: int | None) -> None:
        """A part is at the input."""
        self.called.pop(tag, None)
        self.waiting.pop(tag, None)
        self.aside = [one for one in self.aside if one != tag]
        self.waiting[tag] = done
        if len(self.waiting) > MAX_PARTS:
            del self.waiting[next(iter(self.waiting))]

    def answered(self, action: str | None) -> Action | None:
        """The call or taking back of this id got its answer."""
        for tag, one in self.called.items():
            if one.action.id == action:
                del self.called[tag]
                return one.action
        return None

    def left(self, tag: str) -> None:
        """A finished part was fetched."""
        self.finished = [one for one in self.finished if one != tag]
        self.unwanted.pop(tag, None)

    def cancelled(self, tag: str, op: int) -> None:
        """Nobody will fetch this part: if it lies at the output, it is to be put aside."""
        if tag in self.finished:
            self.unwanted[tag] = op

    def ended(self, tag: str, at: int) -> None:
        """A part was finished, and lies at the output."""
        self.ended_at = max(self.ended_at, at)
        self.finished = [*(one for one in self.finished if one != tag), tag][-MAX_PARTS:]

    def forget(self) -> None:
        """Nothing is known any more."""
        self.waiting, self.called, self.finished, self.unwanted, self.ended_at = {}, {}, [], {}, 0
        self.aside = []
