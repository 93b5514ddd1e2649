"""What a run of a plant that recovers components came to: from the store, and from the floor that keeps count itself.

recovered = recovered_of(files, plant, carbon, orders, seconds=41.0)
recovered.good, recovered.failures
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cloud.stores import Store
from messages.circular import Circular, number_of
from messages.contracts import Interrupted, OrderedJob, PartIdentified, Record, Signal, Started
from messages.inventory import Balance, Inventory
from messages.negotiation import Workpiece
from messages.plant import Plant
from shoal.audit import Audit, audit
from shoal.outcome import Files, actual_span_h, energy_and_carbon, executed_violations, floor_of

_IN_ONE_INSTANT = (PartIdentified, Started, Interrupted)
"""Order of what is said of one moment: work may be interrupted as soon as it begins."""
Books = Mapping[str, Mapping[str, int]]
"""`in_stock`, `recovered`, `consumed` → component → pieces"""


@dataclass(frozen=True)
class Recovered:
    """The figures of a run."""

    audit: Audit
    jobs: int
    jobs_done: int
    excused: Mapping[str, str]
    """ordered jobs that were not done → what was reported"""
    missing: tuple[str, ...]
    """ordered jobs that were not done, and nobody says why"""
    own: int
    """jobs the plant began itself"""
    own_given_up: int
    rerouted: int
    """operations that were done elsewhere than where the part had been brought first"""
    interrupted: int
    balance: Balance
    """by the records in the store"""
    floor: Books
    """by the floor itself"""
    makespan_h: float
    energy_kwh: float
    carbon_kg: float
    faults: tuple[str, ...]
    """what the executed work violates"""
    terms: tuple[str, ...]
    """who judged, in order"""
    seconds: float
    given_up: str = ""

    @property
    def conserved(self) -> bool:
        """No component came from nowhere, none went nowhere, and records and floor agree."""
        one = self.balance
        names = {*one.first, *one.recovered, *one.consumed, *one.in_stock}
        books = {"in_stock": one.in_stock, "recovered": one.recovered, "consumed": one.consumed}
        return all(
            one.first.get(name, 0) + one.recovered.get(name, 0) == one.consumed.get(name, 0) + one.in_stock.get(name, 0)
            for name in names
        ) and all(_same(books[name], self.floor.get(name, {})) for name in books)

    @property
    def good(self) -> bool:
        """Something was built and measured; nothing lost, nothing twice, every ordered job done or reported."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """Everything that speaks against the run, in words for people."""
        audit = self.audit
        found = [self.given_up] if self.given_up else []
        if not self.jobs_done:
            found.append("nothing was built")
        found += [f"{job} was not done, and nobody says why" for job in self.missing]
        found += audit.failures
        if not self.conserved:
            found.append(f"components do not add up: records {self.balance}, the floor {dict(self.floor)}")
        if self.faults:
            found.append(f"the executed work breaks {len(self.faults)} rules, the first: {self.faults[0]}")
        return tuple(found)

    def as_json(self) -> dict[str, Any]:
        """The last line of `shoal demo --json`; the same names as for any plant where they mean the same."""
        return {
            **self.audit.as_json(),
            "batches_done": self.jobs_done,
            "not_done": dict(self.excused),
            "own_jobs": self.own,
            "own_jobs_given_up": self.own_given_up,
            "rerouted": self.rerouted,
            "interrupted": self.interrupted,
            "recovered": self.balance.recovered,
            "consumed": self.balance.consumed,
            "in_stock": self.balance.in_stock,
            "not_good": self.balance.not_good,
            "conserved": self.conserved,
            "recovered_worth": round(self.balance.worth, 2),
            "recycled_kg": self.balance.recycled_kg,
            "makespan_actual_h": round(self.makespan_h, 3),
            "energy_kwh": round(self.energy_kwh, 1),
            "carbon_kg": round(self.carbon_kg, 1),
            "judges": list(self.terms),
            "violations": list(self.faults),
            "failures": list(self.failures),
            "seconds": round(self.seconds, 1),
        }

    def table(self) -> list[tuple[str, str]]:
        """The same for people."""
        one = self.balance
        return [
            *self.audit.table(),
            ("ordered jobs done", f"{self.jobs_done} of {self.jobs}"),
            *((f"{job} was not done", why) for job, why in self.excused.items()),
            ("jobs the plant began itself", f"{self.own}, given up {self.own_given_up}"),
            ("work done elsewhere than its part was brought first", str(self.rerouted)),
            ("work interrupted by breakdowns", str(self.interrupted)),
            ("components recovered", f"{_pieces(one.recovered)}; worth {one.worth:,.0f} (invented prices)"),
            ("found not good", _pieces(one.not_good)),
            ("built in", _pieces(one.consumed)),
            ("in stock", _pieces(one.in_stock)),
            ("components add up", "yes, by records and by the floor" if self.conserved else "NO"),
            ("to recycling", ", ".join(f"{kg:.1f} kg {name}" for name, kg in one.recycled_kg.items()) or "nothing"),
            ("makespan", f"{self.makespan_h:.1f} h"),
            ("energy metered", f"{self.energy_kwh:,.0f} kWh"),
            ("carbon (simulated grid)", f"{self.carbon_kg:,.0f} kg CO2e"),
            ("who judged", "; ".join(self.terms)),
            ("rules the executed work breaks", str(len(self.faults))),
            ("real time", f"{self.seconds:.0f} s"),
        ]

    def show(self, console: Console) -> None:
        """The report in the terminal."""
        show("what it came to", self.table(), console)
        for fault in self.faults[:5]:
            console.print(fault, style="red", markup=False)


def show(title: str, rows: Sequence[tuple[str, str]], console: Console) -> None:
    """A table of two columns."""
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column()
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    console.print(table)


def recovered_of(
    files: Files,
    plant: Plant,
    carbon: Signal,
    orders: Mapping[str, OrderedJob],
    *,
    batons: Mapping[str, Workpiece],
    terms: Sequence[str],
    seconds: float,
    stopped: str = "",
) -> Recovered:
    """Measure a run that has stopped; `stopped`: why it was ended before all was done."""
    summary = files.truth.with_suffix(".summary.json")
    counted = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else {}
    with files.store.open(read_only=True) as store:
        found = audit(files.truth, store)
        floor = floor_of(store, plant.site)
        records = list(_records(store, plant.site))
        energy, kilograms = energy_and_carbon(store, plant, carbon)
    own = {one.job: _own(one.job) for one in floor.segments if number_of(one.job)}
    jobs = dict(orders) | own
    given_up = [job for job, one in batons.items() if number_of(job) and one.state == "cancelled"]
    done = {(one.job, one.op) for one in floor.segments if not one.interrupted}
    finished = [name for name, job in orders.items() if all((name, op) in done for op in _ops(plant, job))]
    excused = {
        job: f"{batons[job].state}: {batons[job].why or 'as was asked'}"
        for job in orders
        if job not in finished and job in batons and batons[job].state in ("cancelled", "unknown")
    }
    return Recovered(
        audit=found,
        jobs=len(orders),
        jobs_done=len(finished),
        excused=excused,
        missing=tuple(job for job in orders if job not in finished and job not in excused),
        own=len(own.keys() | set(given_up)),
        own_given_up=len(given_up),
        rerouted=rerouted(records),
        interrupted=sum(isinstance(record, Interrupted) for record in records),
        balance=balance_of(plant, jobs.values(), records),
        floor=counted.get("components", {}),
        makespan_h=actual_span_h(floor.segments),
        energy_kwh=energy,
        carbon_kg=kilograms,
        faults=tuple(executed_violations(plant, {job: jobs[job] for job in jobs if job not in excused}, floor)),
        terms=tuple(terms),
        seconds=seconds,
        given_up=stopped,
    )


def balance_of(plant: Plant, jobs: Iterable[OrderedJob], records: Iterable[Record]) -> Balance:
    """The components by what machines did."""
    last = {product: len(plant.route(product)) - 1 for product in plant.products}
    inventory = Inventory(plant.circular or Circular(), last)
    for job in jobs:
        inventory.add(job)
    for record in records:
        inventory.on_record(record)
    return inventory.balance()


def rerouted(records: Iterable[Record]) -> int:
    """Operations whose part was brought to one machine, or begun there, and which were done on another."""
    seen: dict[str, list[tuple[int, int, str]]] = {}
    for record in records:
        if isinstance(record, PartIdentified | Started | Interrupted):
            seen.setdefault(record.job, []).append((record.at, _IN_ONE_INSTANT.index(type(record)), record.machine))
    moved = 0
    for events in seen.values():
        for (_, kind, before), (_, _, after) in pairwise(sorted(events)):
            moved += before != after and _IN_ONE_INSTANT[kind] is not Started
    return moved


def _records(store: Store, site: str) -> Iterable[Record]:
    cursor = 0
    while rows := store.records(after=cursor, limit=1_000, kinds=["part", "started", "finished", "interrupted"]):
        yield from (row.record for row in rows if row.site == site)
        cursor = rows[-1].cursor


def _own(job: str) -> OrderedJob:
    made = number_of(job)
    return OrderedJob(job=job, product=made[0] if made else job)


def _ops(plant: Plant, job: OrderedJob) -> range:
    return range(len(plant.route(job.product)))


def _same(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return {name: count for name, count in one.items() if count} == {
        name: count for name, count in other.items() if count
    }


def _pieces(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(counts).most_common() if count) or "nothing"
