"""What a node's machines promise for a task: when they would have done it, with how much energy, carbon and money.

Pure: `bid` reads the executor and awards nothing, so the same offer again gets the bid of that moment. A machine that
is down, or a node that holds as much as it may, declines and says why; a judge that needs it anyway may ask again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edge.executor import Executor
from messages.clock import SECOND
from messages.contracts import Signal
from messages.negotiation import MAX_HELD, Agenda, Bid, MachineBid, Offer

BID_LIFE_S = 600
"""A bid is void after this much plant time: machines break, queues change."""


@dataclass
class Bidding:
    """Bids of one node's machines. `signals`: forecasts by name, `carbon` and `tariff` among them."""

    executor: Executor
    signals: dict[str, Signal] = field(default_factory=dict)

    def bid(self, offer: Offer, now: int) -> Bid | None:
        """The answer; None to an offer of a judge that is not obeyed here, or whose time is over."""
        awards = self.executor.awards
        if now >= offer.deadline or not awards.obey(offer.authority):
            return None
        bids, declined = [], {}
        full = len(awards.held) >= MAX_HELD
        for name in offer.seconds:
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
            valid_until=now + BID_LIFE_S * SECOND,
            bids=bids,
            declined=declined,
        )

    def free_at(self, name: str, now: int) -> int:
        """When a machine will have done all it holds, as far as it knows."""
        machine = self.executor.machines[name]
        at = max(now, machine.ends_at) if machine.running else now
        for order in self.executor.queue(name):
            at = max(at, order.start) + round(order.seconds * SECOND)
        return at

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
        )

    def _unable(self, name: str) -> str | None:
        machine = self.executor.machines.get(name)
        if machine is None:
            return "no machine of this node"
        return "down" if machine.state == "down" else None

    def _promise(self, name: str, offer: Offer, now: int) -> MachineBid:
        machine, spec = self.executor.machines[name], self.executor.plant.machines[name][1]
        work_us = round(offer.seconds[name] * SECOND)
        heating_us = round(spec.preheat_h * 3600 * SECOND)
        free_at = self.free_at(name, now)
        waiting = len(self.executor.queue(name))
        cold = not waiting and not machine.running and machine.state not in ("idle", "work", "preheat", "setup")
        ready_at = now + heating_us if cold else free_at
        start_at = max(free_at, ready_at, offer.arrives_at.get(name, now))
        legs = [(start_at, start_at + work_us, spec.work_kw)]
        gap_us = start_at - free_at
        if cold or gap_us * spec.idle_kw > heating_us * spec.preheat_kw + (gap_us - heating_us) * spec.off_kw:
            legs.append((start_at - heating_us, start_at, spec.preheat_kw))
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
