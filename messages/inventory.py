"""Components of a site: what is in stock, which jobs may take from it, which jobs to begin because something is short.

    inventory = Inventory(plant.circular, last={"strip": 0, "refurbish": 1, …})      # product → its last operation
    inventory.add(job); inventory.on_record(record); inventory.on_agenda(agenda)      # in any order, however often
    inventory.give_up(held); inventory.spawn()      # jobs the plant begins itself
    inventory.may_begin(held)            # jobs whose components are there; `held`: those that may have been awarded

Pure. What is known of a job is the most that anybody has said of it, so facts may come twice and in any order, and the
first stock plus what was recovered is what was consumed plus what is in stock. Components are reserved for a job from
when its first step is tendered until it begins. Of the others the one due first, then the one that came first, has what
it needs kept for it, so nobody starves. A job that lacks what nothing brings keeps nothing from others.

What is under way counts by the chance that it comes. Where a component would be short by half a piece or more, another
job of a source is begun, at most `spawn_max` of a product at a time; one that waits for what nothing brings any more is
given up, and the next source has its turn. Their names are the product and its next number, so a judge that begins
again, or another one, gives the same work the same name.

What it has learned is on the disk when something is forgotten that it was learned from (`kept`, `restore`).

Bounds: `REMEMBERED` jobs that are done or dropped; of older ones only the sums stay, and a fact about them that is said
once more counts once more (an agenda says a thousand).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from messages.circular import Circular, number_of, spawned
from messages.contracts import Finished, Interrupted, OrderedJob, Record, Started
from messages.negotiation import Agenda
from messages.outlook import SHORT, Outlook

REMEMBERED = 10_000

Pieces = Counter[str]


class _Job(BaseModel):
    """The most that is known of a job. `place`: in the order of coming."""

    name: str
    place: int
    product: str | None = None
    due_at: int | None = None
    wanted: bool | None = None
    """it is to be done; False: no more; None: nobody has said so yet"""
    begun: bool = False
    ended: int = -1
    """the furthest operation known to be done"""
    recovered: dict[str, int] | None = None
    counted: tuple[bool, dict[str, int] | None, bool] = (False, None, False)
    """begun, recovered and done as they are in the sums"""


class Kept(BaseModel):
    """All of it, for the disk."""

    recovered: dict[str, int] = {}
    consumed: dict[str, int] = {}
    not_good: dict[str, int] = {}
    done: dict[str, int] = {}
    highest: dict[str, int] = {}
    jobs: list[_Job] = []


@dataclass(frozen=True)
class Balance:
    """Where all components are: first + recovered = consumed + in stock."""

    first: dict[str, int]
    recovered: dict[str, int]
    consumed: dict[str, int]
    in_stock: dict[str, int]
    not_good: dict[str, int]
    """pieces that were found not good"""
    worth: float
    """of what was recovered"""
    recycled_kg: dict[str, float]
    """material → kg"""


class Inventory:
    """One site's components, folded from facts."""

    def __init__(self, circular: Circular, last: Mapping[str, int]) -> None:
        self.circular, self.last = circular, dict(last)
        self.jobs: dict[str, _Job] = {}
        self.version = 0
        """Rises with every fact."""
        self._live: dict[str, _Job] = {}
        self._past: dict[str, None] = {}
        self._recovered, self._consumed, self._not_good = Pieces(), Pieces(), Pieces()
        self._done: Counter[str] = Counter()
        self._highest: Counter[str] = Counter()
        self._places = 0
        self._told: Mapping[str, int] = {}
        """of jobs with these numbers and below only those count that are added"""

    def begin_at(self, stock: Mapping[str, int], begun: Mapping[str, int]) -> None:
        """Begin where another judge was: what is in stock, but for the jobs that are to be added, and which of its own
        jobs the plant has begun."""
        self.circular = self.circular.model_copy(update={"stock": dict(stock)})
        self._told = dict(begun)
        self._highest |= Counter(begun)
        self.version += 1

    def left_by_others(self) -> dict[str, int]:
        """Component → in stock, had no job that is not over taken or brought anything: what `begin_at` takes."""
        stock = Pieces(self.stock())
        for one in self._live.values():
            begun, recovered, _ = one.counted
            stock.update(self.circular.needs.get(one.product or "", {}) if begun else {})
            stock.subtract(recovered or {})
        return dict(stock)

    def begun(self) -> dict[str, int]:
        """Product → the highest number of the jobs the plant began itself."""
        return dict(self._highest)

    def kept(self) -> Kept:
        """What another one begins with."""
        return Kept(
            recovered=self._recovered,
            consumed=self._consumed,
            not_good=self._not_good,
            done=self._done,
            highest=self._highest,
            jobs=[one.model_copy() for one in self.jobs.values()],
        )

    def restore(self, kept: Kept) -> None:
        """Begin with that, and with the jobs that were added already; whoever wants others still adds them again."""
        added = [
            OrderedJob(job=one.name, product=one.product, due_at=one.due_at)
            for one in self.jobs.values()
            if one.wanted and one.product is not None
        ]
        self._recovered, self._consumed = Pieces(kept.recovered), Pieces(kept.consumed)
        self._not_good, self._done, self._highest = Pieces(kept.not_good), Pieces(kept.done), Pieces(kept.highest)
        self.jobs = {one.name: one.model_copy() for one in kept.jobs}
        self._past = {one.name: None for one in self.jobs.values() if one.counted[2] or one.wanted is False}
        self._live = {name: one for name, one in self.jobs.items() if name not in self._past}
        for one in self._live.values():
            one.wanted = None
        self._places = max((one.place for one in kept.jobs), default=0)
        self.version += 1
        for job in added:
            self.add(job)

    # --- facts -----------------------------------------------------------------------------------------

    def add(self, job: OrderedJob) -> None:
        """A job there is to do; one that is known, or was dropped, stays as it is."""
        one = self._job(job.job)
        if one.wanted is None:
            one.product, one.due_at, one.wanted = job.product, job.due_at, True
            self._settle(one)

    def is_supplied(self, job: str) -> bool:
        """Whether its components are in it."""
        one = self.jobs.get(job)
        return one is not None and one.begun

    def learn(self, job: str, *, done: int, supplied: bool) -> None:
        """What another judge knew of a job: operations done, and whether its components are in it."""
        if done or supplied:
            self._learn(job, done - 1)

    def drop(self, job: str) -> None:
        """It will not be done. What it has consumed stays in it."""
        one = self._job(job)
        one.wanted = False
        self._settle(one)

    def on_record(self, record: Record) -> None:
        """What a machine did."""
        match record:
            case Started() | Interrupted():
                self._learn(record.job)
            case Finished():
                self._learn(record.job, record.op, record.recovered)

    def on_agenda(self, agenda: Agenda) -> None:
        """What a node holds, runs and did."""
        for one in agenda.awards:
            if one.state != "finished":
                self._is_mine(self._job(one.job))  # whoever began it: it is not over
            if one.state != "held":
                self._learn(one.job, one.op if one.state == "finished" else -1, one.recovered)

    # --- what is there ---------------------------------------------------------------------------------

    def stock(self) -> dict[str, int]:
        """Component → pieces in stock, reserved ones included."""
        first = self.circular.stock
        return {
            name: first.get(name, 0) + self._recovered[name] - self._consumed[name]
            for name in sorted(self.circular.components)
        }

    def live(self) -> list[str]:
        """Jobs that are neither done nor dropped."""
        return list(self._live)

    def needs(self, job: str) -> Pieces:
        """Component → pieces that a job is going to consume."""
        one = self._live.get(job)
        return Pieces() if one is None else self._needs(one)

    def reserved(self, held: Collection[str]) -> Pieces:
        """Component → pieces for jobs that have not begun and may have been awarded."""
        return sum((self._needs(one) for name in held if (one := self._live.get(name))), Pieces())

    def expected(self) -> dict[str, float]:
        """Component → pieces that jobs not yet done will bring, by their chances."""
        found: dict[str, float] = {}
        for one in self._live.values():
            if one.wanted:
                for component, pieces, chance in self.circular.pieces(one.product or ""):
                    found[component] = found.get(component, 0.0) + pieces * chance
        return found

    def may_begin(self, held: Collection[str]) -> set[str]:
        """Jobs that are not done and whose components are there or need none, `held` and begun ones among them."""
        free, outlook = Pieces(self.stock()), self._outlook()
        free.subtract(self.reserved(held))
        found = set()
        for one in sorted(self._live.values(), key=lambda one: (one.due_at is None, one.due_at or 0, one.place)):
            needs = self._needs(one)
            lacking = [name for name, pieces in needs.items() if free[name] < pieces]
            if one.name in held or not lacking:
                found.add(one.name)
                if one.name not in held:
                    free.subtract(needs)
            elif one.wanted and all(outlook.comes(name) for name in lacking):
                free.subtract({name: min(pieces, max(0, free[name])) for name, pieces in needs.items()})
        return found

    def short(self) -> dict[str, int]:
        """Component → pieces that jobs wait for and that nothing brings: somebody must."""
        outlook = self._outlook()
        return {name: math.ceil(-net) for name, net in sorted(outlook.net.items()) if outlook.is_lost(name)}

    def give_up(self, held: Collection[str]) -> list[str]:
        """Jobs the plant began itself that wait for what nothing brings any more, the last first: drop them."""
        outlook, found = self._outlook(), []
        for one in reversed(self._live.values()):
            needs = self._needs(one)
            own = one.wanted and number_of(one.name) and one.name not in held
            if own and any(outlook.is_lost(name) for name in needs):
                outlook.count(needs, one.product or "", -1)
                found.append(one.name)
        for name in found:
            self.drop(name)
        return found

    def spawn(self) -> list[OrderedJob]:
        """Jobs the plant begins itself and that were not told before: those others have begun, those wanted now."""
        found = [
            OrderedJob(job=one.name, product=one.product)
            for one in self._live.values()
            if one.wanted is None and one.product is not None
        ]
        for job in found:
            self.add(job)
        outlook = self._outlook()
        begun = Counter(one.product for one in self._live.values() if one.wanted and number_of(one.name))
        while (product := self._next_source(outlook, begun)) is not None:
            job = OrderedJob(
                job=spawned(product, self._highest[product] + 1), product=product, due_at=self._due(product)
            )
            self.add(job)
            outlook.count(self._needs(self.jobs[job.job]), product)
            begun[product] += 1
            found.append(job)
        return found

    def balance(self) -> Balance:
        """Everything that came and went."""
        kilograms: dict[str, float] = {}
        weights = ((self._not_good, self.circular.scrap_kg), (self._done, self.circular.residue_kg))
        for counted, weighed in weights:
            for name, count in (+counted).items():
                for material, kg in weighed.get(name, {}).items():
                    kilograms[material] = kilograms.get(material, 0.0) + count * kg
        return Balance(
            first=dict(self.circular.stock),
            recovered=dict(+self._recovered),
            consumed=dict(+self._consumed),
            in_stock=self.stock(),
            not_good=dict(+self._not_good),
            worth=sum(count * self.circular.worth.get(name, 0.0) for name, count in self._recovered.items()),
            recycled_kg={name: round(kg, 6) for name, kg in sorted(kilograms.items())},
        )

    # --- private: facts --------------------------------------------------------------------------------

    def _job(self, name: str) -> _Job:
        one = self.jobs.get(name)
        if one is None:
            self._places += 1
            one = self.jobs[name] = self._live[name] = _Job(name=name, place=self._places)
            own = number_of(name)
            if own and own[1] > self._told.get(own[0], -1):
                self._is_mine(one)
            self.version += 1
        return one

    def _is_mine(self, one: _Job) -> None:
        """What a job that nobody ordered makes is in its name."""
        own = number_of(one.name)
        if one.product is None and own and own[0] in self.last:
            one.product = own[0]
            self._highest[own[0]] = max(self._highest[own[0]], own[1])
            self.version += 1

    def _learn(self, name: str, ended: int = -1, recovered: Mapping[str, int] | None = None) -> None:
        one = self._job(name)
        one.begun = True
        one.ended = max(one.ended, ended)
        if recovered is not None:
            known = one.recovered
            # Two that differ are no two yields: no more than both say is there.
            one.recovered = {
                part: max(0, min(count, count if known is None else known.get(part, 0)))
                for part, count in recovered.items()
            }
        self._settle(one)

    def _settle(self, one: _Job) -> None:
        """Bring the sums in line with what is known of a job."""
        done = one.product is not None and one.ended >= self.last.get(one.product, 0)
        now = (one.begun, one.recovered, done) if one.product is not None else one.counted
        if now == one.counted and one.wanted is not False:
            return
        self.version += 1
        was, one.counted = one.counted, now
        if now[0] and not was[0]:
            self._consumed.update(self.circular.needs.get(one.product or "", {}))
        self._recovered.subtract(was[1] or {})
        self._recovered.update(now[1] or {})
        for sign, (_, recovered, was_done) in ((-1, was), (1, now)):
            if was_done and recovered is not None:
                for name, pieces, _ in self.circular.pieces(one.product or ""):
                    self._not_good[name] += sign * max(0, pieces - recovered.get(name, 0))
        self._done[one.product or ""] += done - was[2]
        if done or one.wanted is False:
            self._live.pop(one.name, None)
            self._past[one.name] = None
            if len(self._past) > REMEMBERED:
                oldest = next(iter(self._past))
                del self._past[oldest], self.jobs[oldest]

    # --- private: what is wanted -----------------------------------------------------------------------

    def _needs(self, one: _Job) -> Pieces:
        """What it is going to consume."""
        return Pieces() if one.begun or not one.wanted else Pieces(self.circular.needs.get(one.product or "", {}))

    def _outlook(self) -> Outlook:
        outlook = Outlook(self.circular, {name: float(pieces) for name, pieces in self.stock().items()}, set())
        for one in self._live.values():
            if one.wanted:
                outlook.count(self._needs(one), one.product or "")
        return outlook

    def _next_source(self, outlook: Outlook, begun: Mapping[str | None, int]) -> str | None:
        """A product to begin a job of."""
        for component in sorted(self.circular.sources):
            if -outlook.net[component] >= SHORT:
                product = outlook.source(component)
                if product is not None and begun.get(product, 0) < self.circular.spawn_max:
                    return product
        return None

    def _due(self, product: str) -> int | None:
        """As soon as the first job that waits for what it brings."""
        brought = self.circular.recovers.get(product, {})
        due = [
            one.due_at
            for one in self._live.values()
            if one.due_at is not None and any(name in brought for name in self._needs(one))
        ]
        return min(due, default=None)
