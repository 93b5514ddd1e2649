"""What a node's machines promise for a task: when they would have done it, with how much energy, carbon and money.

Pure: `bid` reads the executor and awards nothing, so the same offer again gets the bid of that moment. A machine that
is down or in a state unknown here, or a node that holds as much as it may, declines and says why; a judge that needs
it anyway may ask again. Machines of other nodes are none of its business: an offer may name those of a whole site.

A machine works in the order of its queue, so a bid begins when the queue is done, the part is there and the machine
warm. A part that is not there yet is called when a place before the machine is free for it, and comes no sooner than
by the shortest way of its route. When finished parts will be fetched is not known here: a bid says how many more have
a place behind the machine, and reckons that one is free by then.

It is charged with its work and with what keeps or makes the machine warm since the work before: idling or, where
the gap is long enough for that to be less, switching off and heating again; and its cost with the share of a service
that the work uses up, where the plant states that. How worn the machine is, the bid says; it is no reason to decline.

Bounds: what would end after `LATEST` is declined; of working time no more than `MOST_LOAD_S` is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice

from edge.executor import Executor
from edge.orders import Key
from edge.wear import worn_cost
from messages.clock import SECOND
from messages.contracts import STATE_CODES, Signal
from messages.negotiation import MAX_HELD, MAX_MACHINES, Agenda, Bid, MachineBid, Offer, Output
from messages.plant import Layout, Plant

WARM = ("idle", "work", "setup")
LATEST = 2**53 - 1
"""The last time that messages can tell, µs."""
MOST_LOAD_S = 1e9


@dataclass
class Bidding:
    """Bids of one node's machines. `signals`: forecasts by name, `carbon` and `tariff` among them."""

    executor: Executor
    signals: dict[str, Signal] = field(default_factory=dict)
    _ways_us: dict[tuple[str, int], int] = field(default_factory=dict)

    def bid(self, offer: Offer, now: int) -> Bid | None:
        """The answer; None to an offer of a judge not obeyed here, of a time that is over, or for others' machines."""
        awards = self.executor.awards
        mine = [name for name in offer.seconds if name in self.executor.machines]
        if now >= offer.deadline or not awards.obey(offer.authority) or not mine:
            return None
        bids, declined = [], {}
        full = len(awards.held) >= MAX_HELD
        for name in mine:
            reason = f"{MAX_HELD} awards are held here" if full else self._unable(name)
            promise = None if reason else self._promise(name, offer, now)
            if promise is not None:
                bids.append(promise)
            else:
                declined[name] = reason or "it would be done later than any time that can be told"
        return Bid(
            term=offer.term,
            session=offer.session,
            job=offer.job,
            op=offer.op,
            round=offer.round,
            at=now,
            valid_until=now + round(self.executor.pace.bid_s * SECOND),
            bids=bids,
            declined=declined,
        )

    def free_at(self, name: str, now: int) -> int:
        """When a machine will have done all it holds, as far as it knows."""
        is_free = not self.executor.queue(name) and not self.executor.machines[name].running
        return now if is_free else min(LATEST, self._course(name, now)[1])

    def is_warm(self, name: str) -> bool:
        """Whether it could begin at once, if it has nothing else to do."""
        state, preheat_h = self.executor.machines[name].state, self.executor.plant.machines[name][1].preheat_h
        return state in WARM or (state != "down" and not preheat_h)

    def wear(self, name: str) -> float | None:
        """Working time since the machine's last service, as a share of the interval its plant states, if it does."""
        return self.executor.machines[name].wear.share(self.executor.plant.machines[name][1])

    def agenda(self, now: int) -> Agenda | None:
        """Everything that is held here; None as long as no judge was ever heard of."""
        awards, machines = self.executor.awards, self.executor.machines
        if not awards.session:
            return None
        return Agenda(
            term=awards.term,
            session=awards.session,
            revision=awards.revision,
            at=now,
            awards=awards.agenda(),
            free_at={name: self.free_at(name, now) for name, machine in machines.items() if machine.state != "down"},
            down={name: machine.repair_at for name, machine in machines.items() if machine.state == "down"},
            warm=[name for name in machines if self.is_warm(name)][:MAX_MACHINES],
            outputs=dict(islice(self._outputs(), MAX_MACHINES)),
            wear={name: share for name in machines if (share := self.wear(name)) is not None},
        )

    def _outputs(self) -> Iterator[tuple[str, Output]]:
        for name, machine in self.executor.machines.items():
            if self.executor.plant.machines[name][1].buffer.out is not None:
                yield name, Output(at=machine.parts.ended_at, jobs=machine.parts.finished)

    def _unable(self, name: str) -> str | None:
        state = self.executor.machines[name].state
        if state == "down":
            return "down"
        return None if state in STATE_CODES else f"its state {state!r} is not known here"

    def _ready_at(self, name: str, now: int) -> int:
        """When it will be warm and done with what it works on."""
        machine = self.executor.machines[name]
        if machine.running:
            return max(now, machine.ends_at)
        heating_us = round(self.executor.plant.machines[name][1].preheat_h * 3600 * SECOND)
        if machine.state == "preheat":
            return max(now, machine.since + heating_us)
        return now if self.is_warm(name) else now + heating_us

    def _course(self, name: str, now: int) -> tuple[dict[str, int], int]:
        """Job → when its part is first worked on, in the order of the queue; and when all of that will be done."""
        begins: dict[str, int] = {}
        at = self._ready_at(name, now)
        for order in self.executor.queue(name):
            at = max(at, order.start, self._there_at(name, order.key, begins, now))
            begins.setdefault(order.job, at)
            at += round(order.seconds * SECOND)
        return begins, at

    def _there_at(self, name: str, key: Key, begins: dict[str, int], now: int) -> int:
        """When a part can be there that is worked on after those in `begins`."""
        parts, (job, op) = self.executor.machines[name].parts, key
        if job in parts.waiting or job in parts.called:  # that may come at any moment
            return now
        places = self.executor.plant.machines[name][1].buffer.in_ or 1
        before = next(islice(reversed(begins), places - 1, None), None)  # its part's place is the next that is free
        gone_at, way_us = now if before is None else begins[before], self._way_us(name, op)
        layout = self.executor.plant.layout
        if layout is not None and layout.vehicles is not None:  # one may set out before the place is free
            return max(gone_at, now + way_us)
        return gone_at + way_us

    def _way_us(self, machine: str, op: int) -> int:
        """No part is brought to the machine for this operation in less."""
        plant = self.executor.plant
        if plant.layout is None:
            return round(plant.transport_s * SECOND)
        if not self._ways_us:
            self._ways_us = _shortest_us(plant, plant.layout, self.executor.machines)
        return self._ways_us.get((machine, op), 0)

    def _promise(self, name: str, offer: Offer, now: int) -> MachineBid | None:
        """None: it would end after `LATEST`."""
        machine, spec = self.executor.machines[name], self.executor.plant.machines[name][1]
        work_us = round(offer.seconds[name] * SECOND)
        heating_us = round(spec.preheat_h * 3600 * SECOND)
        queue, parts, buffer = self.executor.queue(name), machine.parts, spec.buffer
        begins, free_at = self._course(name, now)
        there_at = self._there_at(name, (offer.job, offer.op), begins, now)
        start_at = max(free_at, there_at, offer.arrives_at.get(name, now))
        if start_at + work_us > LATEST:
            return None
        legs = [(start_at, start_at + work_us, spec.work_kw)]
        heating = (start_at - heating_us, start_at, spec.preheat_kw)
        gap_us = start_at - free_at
        off = (gap_us - heating_us) * spec.off_kw + heating_us * spec.preheat_kw
        if not queue and not machine.running and machine.state != "preheat" and not self.is_warm(name):
            legs.append(heating)
        elif gap_us > heating_us and off < gap_us * spec.idle_kw:
            legs += [(free_at, start_at - heating_us, spec.off_kw), heating]
        else:
            legs.append((free_at, start_at, spec.idle_kw))
        carrier = self.executor.plant.machines[name][0].carrier
        return MachineBid(
            machine=name,
            start_at=start_at,
            end_at=start_at + work_us,
            energy_kwh=round(sum((end - begin) * kw for begin, end, kw in legs) / (3600 * SECOND), 6),
            carbon_kg=self._priced("carbon", carrier, legs),
            cost=self._cost(worn_cost(spec, offer.seconds[name]), self._priced("tariff", carrier, legs)),
            waiting=len(queue),
            load_s=min(MOST_LOAD_S, machine.worked_s + sum(order.seconds for order in queue) + offer.seconds[name]),
            wear=self.wear(name),
            places_in=None if buffer.in_ is None else max(0, buffer.in_ - parts.coming()),
            places_out=None if buffer.out is None else max(0, buffer.out + 1 - len(parts.finished)),
        )

    def _cost(self, worn: float | None, energy: float | None) -> float | None:
        """Of both; None where one of them is not known. Where nobody told a tariff, energy is priced for nobody."""
        if "tariff" not in self.signals:
            return worn
        return None if energy is None else round(energy + (worn or 0.0), 6)

    def _priced(self, name: str, carrier: str, legs: list[tuple[int, int, float]]) -> float | None:
        """Energy by the forecast of its hours; None where there is no forecast for this carrier."""
        signal = self.signals.get(name) if carrier == "electricity" else None
        if signal is None:
            return None
        return round(sum(kw * integral(signal, begin, end) for begin, end, kw in legs), 6)


def _shortest_us(plant: Plant, layout: Layout, mine: Collection[str]) -> dict[tuple[str, int], int]:
    """(machine, operation) → the shortest way of any part on its route; of one that was interrupted nearby it may be
    longer than it need be."""
    found: dict[tuple[str, int], int] = {}
    for product in plant.products:
        places: Collection[str | None] = (layout.at.get(product),)
        for op, (_, able) in enumerate(plant.route(product)):
            for name in able:
                if name in mine:
                    way_us = round(min(layout.carried_s(place, name) or 0.0 for place in places) * SECOND)
                    found[name, op] = min(way_us, found.get((name, op), way_us))
            places = tuple(able)
    return found


def integral(signal: Signal, begin: int, end: int) -> float:
    """∫ signal dt in hours over [begin, end) µs; before its first value counts that one, after its last that one."""
    step_us = round(signal.step_s * SECOND)
    total, at = 0.0, begin
    while at < end:
        place = min(max((at - signal.start) // step_us, 0), len(signal.values) - 1)
        border = signal.start + (place + 1) * step_us if place < len(signal.values) - 1 else end
        until = min(end, max(border, at + 1))
        total += signal.values[place] * (until - at)
        at = until
    return total / (3600 * SECOND)
