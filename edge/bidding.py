"""What a node's machines promise for a task: when they would have done it, with how much energy, carbon and money.

Pure: `bid` reads the executor and awards nothing, so the same offer again gets the bid of that moment. A machine that
is down or in a state unknown here, or a node that holds as much as it may, declines and says why; a judge that needs
it anyway may ask again. Machines of other nodes are none of its business: an offer may name those of a whole site.

A machine works in the order of its queue, so a bid begins when the queue is done, the part is there and the machine
warm. It is charged with its work and with what keeps or makes the machine warm since the work before: idling or, where
the gap is long enough for that to be less, switching off and heating again. Wear is not known here and not in a bid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from edge.executor import Executor
from messages.clock import SECOND
from messages.contracts import STATE_CODES, Signal
from messages.negotiation import MAX_HELD, MAX_MACHINES, Agenda, Bid, MachineBid, Offer, Output

WARM = ("idle", "work", "setup")


@dataclass
class Bidding:
    """Bids of one node's machines. `signals`: forecasts by name, `carbon` and `tariff` among them."""

    executor: Executor
    signals: dict[str, Signal] = field(default_factory=dict)

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
            if reason:
                declined[name] = reason
            else:
                bids.append(self._promise(name, offer, now))
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
        queue, running = self.executor.queue(name), self.executor.machines[name].running
        at = self._ready_at(name, now) if queue or running else now
        for order in queue:
            at = max(at, order.start) + round(order.seconds * SECOND)
        return at

    def is_warm(self, name: str) -> bool:
        """Whether it could begin at once, if it has nothing else to do."""
        state, preheat_h = self.executor.machines[name].state, self.executor.plant.machines[name][1].preheat_h
        return state in WARM or (state != "down" and not preheat_h)

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

    def _promise(self, name: str, offer: Offer, now: int) -> MachineBid:
        machine, spec = self.executor.machines[name], self.executor.plant.machines[name][1]
        work_us = round(offer.seconds[name] * SECOND)
        heating_us = round(spec.preheat_h * 3600 * SECOND)
        waiting = len(self.executor.queue(name))
        free_at = self.free_at(name, now) if waiting else self._ready_at(name, now)
        start_at = max(free_at, offer.arrives_at.get(name, now))
        legs = [(start_at, start_at + work_us, spec.work_kw)]
        heating = (start_at - heating_us, start_at, spec.preheat_kw)
        gap_us = start_at - free_at
        off = (gap_us - heating_us) * spec.off_kw + heating_us * spec.preheat_kw
        if not waiting and not machine.running and machine.state != "preheat" and not self.is_warm(name):
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
            cost=self._priced("tariff", carrier, legs),
            waiting=waiting,
            load_s=machine.worked_s + sum(order.seconds for order in self.executor.queue(name)) + offer.seconds[name],
        )

    def _priced(self, name: str, carrier: str, legs: list[tuple[int, int, float]]) -> float | None:
        """Energy by the forecast of its hours; None where there is no forecast for this carrier."""
        signal = self.signals.get(name) if carrier == "electricity" else None
        if signal is None:
            return None
        return round(sum(kw * integral(signal, begin, end) for begin, end, kw in legs), 6)


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
