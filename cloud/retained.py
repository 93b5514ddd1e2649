"""Which awards the broker retains for which node, and which of them nobody needs any more. Pure.

    retained = Retained(book.told())
    told = retained.tell(send)                  # about to be said: to the disk first
    retained.on_ack("cell-1", ("b07", 0), 17)
    for one in retained.over(tenders, now, keys=tenders.changed): …     # clear its topic, then retained.gone(one)

An award stays while it is in force and its work is not known to be done, a withdrawal until its node has acknowledged
it or its time is over. Bound: one per node and task of the book.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from cloud.swarmbook import Told
from messages.clock import SECOND
from messages.contracts import Envelope
from messages.dispatch.task import Key, Send
from messages.dispatch.tenders import Tenders
from messages.negotiation import Award

IN_FORCE = ("awarded", "held", "unknown", "working")

Place = tuple[str, Key]
"""Node and task."""


class Retained:
    """What was said last of each task to each node."""

    def __init__(self, told: Iterable[Told] = ()) -> None:
        self._told: dict[Key, dict[str, Told]] = {}  # task → node → what was said
        self._acked: dict[Place, int] = {}
        self._asked: set[Told] = set()
        self._look: dict[Key, None] = {}
        for one in told:
            self._told.setdefault(one.key, {})[one.node] = one

    def __len__(self) -> int:
        return sum(len(there) for there in self._told.values())

    def has(self, node: str, key: Key) -> bool:
        """Whether the broker retains anything of this task for this node, as far as known."""
        return node in self._told.get(key, {})

    def tell(self, send: Send) -> Told:
        """An award, or its withdrawal, that is about to be said."""
        envelope = cast(Envelope[Award], send.message)
        body = envelope.body
        told = Told(
            send.node, send.task, body.job, body.op, envelope.counter, envelope.valid_until, body.machine is None
        )
        self._told.setdefault(told.key, {})[told.node] = told
        return told

    def on_ack(self, node: str, key: Key, counter: int) -> None:
        """The node has heard this one."""
        if node in self._told.get(key, {}):
            self._acked[node, key] = max(counter, self._acked.get((node, key), -1))
            self._look[key] = None

    def over(self, book: Tenders, now: int, keys: Iterable[Key] | None) -> list[Told]:
        """To be cleared, each once: among those of tasks that changed; None: among all, as time passes too."""
        look = list(self._told) if keys is None else [*self._look, *keys]
        self._look = {}
        found = [
            one
            for key in dict.fromkeys(look)
            for one in self._told.get(key, {}).values()
            if one not in self._asked and not self._is_needed(one, book, now)
        ]
        self._asked.update(found)
        return found

    def again(self) -> None:
        """What was asked for may have been lost."""
        self._asked.clear()

    def gone(self, told: Told) -> None:
        """The broker has it no more."""
        self._asked.discard(told)
        there = self._told.get(told.key, {})
        if there.get(told.node) == told:
            del there[told.node]
            self._acked.pop((told.node, told.key), None)
            if not there:
                del self._told[told.key]

    def _is_needed(self, told: Told, book: Tenders, now: int) -> bool:
        task = book.tasks.get(told.key)
        if told.withdrawn:
            acked = self._acked.get((told.node, told.key), -1) >= told.counter
            return not acked and now < told.until + book.pace.skew_s * SECOND
        if task is None or task.state not in IN_FORCE or task.machine is None:
            return False
        return book.nodes.node_of.get(task.machine) == told.node and task.counter == told.counter
