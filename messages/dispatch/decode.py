"""From a sequence of decisions to times and measures: the readable reference of `cloud.dispatch`.

    schedule = decode(state, [("T1", "lathe-1"), ("T2", "centre-1"), …])
    measures(schedule).makespan

Each decision takes the job's next step to the end of the machine's queue (`State.take`). One whose machine is blocked
is put off: the first in the list that is not goes before it; when all are, the first is taken, and a fault counted.
Faults depend on the order alone, never on times.

Makespan: when all is done. Waiting: of a job, the ticks from its release (or the end of its step before), after the
lag, to the begin of each step in which its part is not carried; the mean over the jobs of the shop. Utilisation: work
time of a machine over the makespan, the mean over machines. Tardiness: the mean over jobs. Energy and carbon: of what
is decoded, work, carrying and the gaps between; a machine is preheated before its first work when cold, and in a gap
it idles, or is off and preheated again, whichever needs less energy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from messages.dispatch.shop import Shop
from messages.dispatch.state import Bid, State

Choice = tuple[str, str]
"""(job, machine): the job's next step goes there."""
FAULT = 1e12
"""What a fault costs: more than any schedule."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What is minimised: the weighted sum of measures; times in ticks, energy in kWh, carbon in kg CO2e."""

    makespan: float = 1.0
    waiting: float = 0.0
    tardiness: float = 0.0
    energy: float = 0.0
    carbon: float = 0.0

    @property
    def rated(self) -> bool:
        """Whether energy or carbon counts."""
        return bool(self.energy or self.carbon)


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a sequence came to: awards in the order in which they were taken."""

    begin: State
    end: State
    bids: tuple[Bid, ...]

    @property
    def sequence(self) -> tuple[Choice, ...]:
        """The order that decodes to the same without putting anything off."""
        return tuple((bid.job, bid.machine) for bid in self.bids)

    @property
    def faults(self) -> int:
        """How many of its awards have no begin that anybody could keep."""
        return self.end.faults - self.begin.faults


@dataclass(frozen=True, slots=True)
class Measures:
    """See the module."""

    makespan: int
    waiting: float
    tardiness: float
    utilisation: float
    energy_kwh: float
    carbon_kg: float
    faults: int

    def value(self, weights: Weights) -> float:
        """Smaller is better."""
        timed = weights.makespan * self.makespan + weights.waiting * self.waiting + weights.tardiness * self.tardiness
        rated = weights.energy * self.energy_kwh + weights.carbon * self.carbon_kg if weights.rated else 0.0
        return timed + rated + FAULT * self.faults


def decode(state: State, sequence: Iterable[Choice]) -> Schedule:
    """The schedule of `sequence` from `state` on, which is not changed."""
    order, wish = split(state, sequence)
    return decode_order(state, order, wish)


def split(state: State, sequence: Iterable[Choice]) -> tuple[list[str], dict[tuple[str, int], str]]:
    """The order of jobs, and the machine of each step (job, op)."""
    following = {job: part.next for job, part in state.jobs.items()}
    order, wish = list[str](), dict[tuple[str, int], str]()
    for job, machine in sequence:
        order.append(job)
        wish[job, following[job]] = machine
        following[job] += 1
    return order, wish


def decode_order(state: State, order: Iterable[str], wish: Mapping[tuple[str, int], str]) -> Schedule:
    """The schedule of an order of jobs; a step without a wish goes to the machine that is done with it earliest."""
    board, bids, left = state.copy(), list[Bid](), list(order)
    while left:
        bid = first = _bid(board, left[0], wish)
        if first.blocked:
            others = (_bid(board, job, wish) for job in dict.fromkeys(left))
            bid = next((other for other in others if not other.blocked), first)
        board.take(bid)
        bids.append(bid)
        left.remove(bid.job)
    return Schedule(state, board, tuple(bids))


def measures(schedule: Schedule) -> Measures:
    """What a schedule is worth."""
    shop, end = schedule.begin.shop, schedule.end
    jobs = max(1, len(end.jobs))
    dues = {name: work.due for name, work in shop.jobs.items()}
    late = sum(max(0, part.ready - due) for name, part in end.jobs.items() if (due := dues[name]) is not None)
    kwh, kg = _rated(schedule)
    worked = [one.worked / end.last for one in end.machines.values()] if end.last else []
    return Measures(
        makespan=end.last,
        waiting=sum(part.waited for part in end.jobs.values()) / jobs,
        tardiness=late / jobs,
        utilisation=sum(worked) / len(worked) if worked else 0.0,
        energy_kwh=kwh,
        carbon_kg=kg,
        faults=schedule.faults,
    )


def _bid(board: State, job: str, wish: Mapping[tuple[str, int], str]) -> Bid:
    machine = wish.get((job, board.jobs[job].next))
    if machine is not None:
        return board.bid(job, machine)
    return min(board.bids(job), key=lambda bid: (bid.blocked, bid.end))


def _rated(schedule: Schedule) -> tuple[float, float]:
    """kWh and kg CO2e."""
    shop = schedule.begin.shop
    ended = {name: machine.ended for name, machine in schedule.begin.machines.items()}
    kw_ticks, kg = 0.0, 0.0
    for bid in schedule.bids:
        if bid.carried:
            kw_ticks += shop.carry_kw * bid.carried
            kg += shop.kg(shop.carry_carrier, shop.carry_kw, bid.loads, bid.arrives)
        step = shop.route[bid.job][bid.op]
        if not step.ticks[bid.machine]:
            continue
        station = shop.machines[bid.machine]
        draws = [(step.draws_kw(bid.machine), bid.start, bid.end), *_gap(shop, bid, ended[bid.machine])]
        ended[bid.machine] = bid.end
        kw_ticks += sum(kw * (end - start) for kw, start, end in draws)
        kg += sum(shop.kg(station.carrier, kw, start, end) for kw, start, end in draws)
    return kw_ticks / shop.hour_ticks, kg


def _gap(shop: Shop, bid: Bid, ended: int | None) -> list[tuple[float, int, int]]:
    """kW, from, until before a piece of work."""
    station = shop.machines[bid.machine]
    hot = bid.start - station.preheat
    heating = (station.preheat_kw, hot, bid.start)
    if ended is None:
        return [heating]
    gap = bid.start - ended
    off = station.off_kw * (gap - station.preheat) + station.preheat_kw * station.preheat
    if gap > station.preheat and off < station.idle_kw * gap:
        return [(station.off_kw, ended, hot), heating]
    return [(station.idle_kw, ended, bid.start)]
