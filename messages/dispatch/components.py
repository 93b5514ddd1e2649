"""Between a site's inventory and its scheduling agent: which jobs wait for components, which the plant begins itself.

    components = Components(plant, book)
    gone, begun, supplied = components.look(now)     # to cancel; to add; whose components are there now
    components.may_begin("a7")                       # what the judge may look at

Pure. Facts are the records the agent is told and the agendas of its book. What may have been awarded is what the book
does not list as waiting. Nothing is allotted and nothing begun before every node that is there has said what it holds,
so jobs that another judge began are known by their names. What a node that is away was awarded by another judge is not
known: there the floor itself refuses what is not in stock, and the award comes back.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from messages.circular import Circular, number_of
from messages.contracts import OrderedJob
from messages.dispatch.tenders import Tenders
from messages.inventory import Inventory
from messages.negotiation import Agenda
from messages.plant import Plant


class Look(NamedTuple):
    """What has become of jobs since the last look."""

    gone: list[str]
    """begun by the plant itself, and what they need can no longer come"""
    begun: list[OrderedJob]
    """by the plant itself, for a component that is short"""
    supplied: list[str]
    """their components are there now"""


NOTHING = Look([], [], [])


class Components:
    """One scheduling agent's view of the components of its site."""

    def __init__(self, plant: Plant, book: Tenders) -> None:
        last = {product: len(plant.route(product)) - 1 for product in plant.products}
        self.inventory = Inventory(plant.circular or Circular(), last)
        self.book = book
        self._may: set[str] = set()
        self._agendas: dict[str, Agenda] = {}
        self._looked: tuple[int, int] | None = None

    def own_jobs(self) -> list[OrderedJob]:
        """Jobs in the book that the plant began itself, as far as their names tell."""
        names = {job: own[0] for job, _ in self.book.tasks if (own := number_of(job)) and own[0] in self.inventory.last}
        return [OrderedJob(job=job, product=product) for job, product in names.items()]

    def may_begin(self, job: str) -> bool:
        """Whether its components are there, or in it."""
        return job in self._may

    def waiting(self) -> dict[str, str]:
        """Jobs that wait for components, and for which."""
        stock, short = self.inventory.stock(), self.inventory.short()
        return {
            name: ", ".join(
                f"{pieces} {component} needed, {stock[component]} in stock"
                + (", and nothing brings it: add to `stock`" if component in short else "")
                for component, pieces in self.inventory.needs(name).items()
                if stock[component] < pieces
            )
            or "its components are kept for jobs due before it"
            for name in self.inventory.live()
            if name not in self._may and self.inventory.needs(name)
        }

    def is_due(self, now: int) -> bool:
        """Whether something has happened since the last look."""
        return self._looked != (self.inventory.version, self.book.version) and self.book.established

    def look(self, now: int) -> Look:
        """What follows from what has happened since the last look."""
        for node, agenda in self.book.nodes.agendas.items():
            if self._agendas.get(node) is not agenda:
                self._agendas[node] = agenda
                self.inventory.on_agenda(agenda)
        if not self.is_due(now):
            return NOTHING
        held = self._held()
        gone = self.inventory.give_up(held)
        begun = self.inventory.spawn()
        before, self._may = self._may, self.inventory.may_begin(held)
        self._looked = (self.inventory.version, self.book.version)
        return Look(gone, begun, sorted(self._may - before))

    def _held(self) -> Collection[str]:
        """Jobs whose first step may have been awarded."""
        return {job for job, op in self.book.tasks if op == 0 and self.book.tasks[job, 0].state != "waiting"}
