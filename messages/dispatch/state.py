"""The state of a shop, and what an award does to it: the one place where times come from.

    state = begin(shop)
    bid = state.bid("T1", "lathe")        # looks, changes nothing
    state.take(bid)                       # awarded: at the end of the lathe's queue and of its vehicle's

An award takes a job's next step to the end of a machine's queue, with the vehicle that brings it earliest (ties: the
lowest number). Nothing is slipped in before what was awarded. A part arrives at a machine with b places in its
in-buffer no earlier than the b-th last work of its queue begins. A machine that keeps finished parts in k places begins
its next work when no more than k (k - 1 where it holds) are still there; a part is gone when it is loaded.

Where more parts than that lie there whose way on nobody has decided, the next award to the machine is `blocked`: its
begin is unknown until somebody does. Taken all the same, it is a fault, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from messages.dispatch.shop import Shop, Shut, Station, shop_from
from messages.openjobs import IN_TURN
from messages.problem import Problem


@dataclass(frozen=True, slots=True)
class Bid:
    """What an award of a job's next step to a machine would come to."""

    job: str
    op: int
    machine: str
    came_from: str  # where the part lies; "": nowhere
    vehicle: int  # -1: none
    since: int  # the part is free from then on: its release, or the end of its step before, and the lag
    departs: int  # the vehicle leaves for the part; without one as `loads`
    loads: int
    leaves: int  # loaded: gone from where it was
    arrives: int
    start: int
    end: int
    must_begin: int  # awarded later than this, its times will not hold
    blocked: bool = False

    @property
    def carried(self) -> int:
        """Ticks from the begin of loading to the end of unloading."""
        return self.arrives - self.loads

    @property
    def waits(self) -> int:
        """Ticks in which nothing happens to the part."""
        return self.start - self.since - self.carried


@dataclass(slots=True)
class Machine:
    """What a machine is committed to."""

    free: int = 0  # end of its queue
    ended: int | None = None  # warm since the end of its last work; None: cold
    starts: tuple[int, ...] = ()  # of the last works of its queue, as many as its in-buffer has places
    kept: int = 0  # finished parts (or parts that will be) whose way on is not decided
    leaves: tuple[int, ...] = ()  # when the last of the others leave, latest first
    worked: int = 0  # ticks of work


@dataclass(slots=True)
class Part:
    """Where a job has got to."""

    next: int = 0  # its next step
    at: str = ""
    ready: int = 0  # end of the step before, or release
    holds: bool = False  # it is one of those its machine keeps
    waited: int = 0  # ticks so far


@dataclass(slots=True)
class Vehicle:
    """Where a vehicle is when it has done what it was told."""

    at: str = ""
    free: int = 0


@dataclass(slots=True)
class State:
    """A shop at `now`: nothing that is not awarded yet begins earlier."""

    shop: Shop
    now: int = 0
    machines: dict[str, Machine] = field(default_factory=dict)
    jobs: dict[str, Part] = field(default_factory=dict)
    vehicles: list[Vehicle] = field(default_factory=list)
    last: int = 0  # when everything awarded so far is done
    faults: int = 0

    def copy(self) -> State:
        """Another one, that may be changed."""
        return replace(
            self,
            machines={name: replace(one) for name, one in self.machines.items()},
            jobs={name: replace(one) for name, one in self.jobs.items()},
            vehicles=[replace(one) for one in self.vehicles],
        )

    def open(self) -> Iterator[str]:
        """Jobs with a step that is not awarded."""
        return (name for name, part in self.jobs.items() if part.next < len(self.shop.route[name]))

    def since(self, job: str) -> int:
        """From when on its part can be carried or worked on."""
        part = self.jobs[job]
        return part.ready + self.shop.route[job][part.next].lag

    def bids(self, job: str) -> list[Bid]:
        """One of every machine that can do the next step of `job`."""
        return [self.bid(job, machine) for machine in self.shop.route[job][self.jobs[job].next].ticks]

    def bid(self, job: str, machine: str, vehicle: int | None = None) -> Bid:
        """What an award would come to; `vehicle`: by this one, else by that which brings the part earliest."""
        shop, part = self.shop, self.jobs[job]
        step = shop.route[job][part.next]
        ticks = step.ticks[machine]
        floor = self._place_from(machine) if ticks else 0
        since = self.since(job)
        ready = max(since, self.now)
        carry = shop.carried(part.at, machine)
        number, empty = -1, 0
        if carry is None:
            loads = leaves = arrives = max(ready, floor)
        else:
            ready = max(ready, floor - carry)
            if shop.vehicles is None:
                loads = ready
            else:
                able = range(shop.vehicles) if vehicle is None else (vehicle,)
                loads, number = min((max(ready, self._free_at(one, part.at)), one) for one in able)
                empty = shop.empty(self.vehicles[number].at, part.at)
            leaves, arrives = loads + shop.loading, loads + carry
        start, end, blocked = arrives, arrives, False
        if ticks:
            own = part.holds and part.at == machine
            freed, blocked = self._freed(machine, own)
            start, end = fit(shop.machines[machine], max(arrives, self._earliest(machine), freed), ticks)
        if number >= 0:
            must = loads - empty
        elif carry is not None:
            must = loads if part.holds else start - carry  # a place in an out-buffer is made free early
        else:
            must = arrives if part.holds else start
        if ticks:
            must = min(must, start - self._cold(machine))
        return Bid(
            job=job, op=part.next, machine=machine, came_from=part.at, vehicle=number, since=since,
            departs=loads - empty, loads=loads, leaves=leaves, arrives=arrives, start=start, end=end,
            must_begin=must, blocked=blocked,
        )  # fmt: skip

    def take(self, bid: Bid) -> None:
        """Commit to `bid`, which must be of this very state."""
        shop, part = self.shop, self.jobs[bid.job]
        if part.holds:
            before = self.machines[part.at]
            before.kept -= 1
            most = (shop.machines[part.at].limit or 0) + 1
            before.leaves = tuple(sorted((*before.leaves, bid.leaves), reverse=True)[:most])
        if bid.vehicle >= 0:
            self.vehicles[bid.vehicle] = Vehicle(bid.machine, bid.arrives)
        ticks = shop.route[bid.job][part.next].ticks[bid.machine]
        part.next, part.at, part.ready, part.holds = part.next + 1, bid.machine, bid.end, False
        part.waited += bid.waits
        if ticks:
            station, machine = shop.machines[bid.machine], self.machines[bid.machine]
            machine.free = machine.ended = bid.end
            machine.starts = (*machine.starts, bid.start)[-(station.buffer_in or 1) :]
            machine.worked += ticks
            if station.limit is not None and part.next < len(shop.route[bid.job]):
                part.holds = True
                machine.kept += 1
        self.last = max(self.last, bid.end)
        self.faults += bid.blocked

    def _place_from(self, machine: str) -> int:
        """When its in-buffer has a place for one more."""
        places, starts = self.shop.machines[machine].buffer_in, self.machines[machine].starts
        return 0 if places is None or len(starts) < places else starts[-places]

    def _free_at(self, vehicle: int, place: str) -> int:
        """When it can begin to load there."""
        one = self.vehicles[vehicle]
        return max(one.free, self.now) + self.shop.empty(one.at, place)

    def _earliest(self, machine: str) -> int:
        """When it could begin with its queue done, were a part there."""
        return max(self.machines[machine].free, self.now + self._cold(machine))

    def _cold(self, machine: str) -> int:
        """Ticks of preheating it needs first."""
        return self.shop.machines[machine].preheat if self.machines[machine].ended is None else 0

    def _freed(self, machine: str, own: bool) -> tuple[int, bool]:
        """When so few finished parts are left that it may begin; and whether that is not decided yet."""
        limit, one = self.shop.machines[machine].limit, self.machines[machine]
        if limit is None:
            return 0, False
        spare = limit - one.kept + own
        place = max(spare, 0)
        return (one.leaves[place] if place < len(one.leaves) else 0), spare < 0


def begin(shop: Shop, now: int = 0) -> State:
    """Nothing awarded, all machines cold, parts and vehicles where they begin."""
    return State(
        shop,
        now,
        {name: Machine() for name in shop.machines},
        {name: Part(at=work.at, ready=work.release) for name, work in shop.jobs.items()},
        [Vehicle(shop.home) for _ in range(shop.vehicles or 0)],
    )


def state_from(problem: Problem) -> State:
    """What is left to do of `problem`, at its `now`: machines that run are busy and warm, others warm where the problem
    says so; finished parts take their places behind machines; vehicles stand at home."""
    shop = shop_from(problem)
    state = begin(shop, problem.start_floor)
    for name, past in problem.past.items():
        machine, station = state.machines[name], shop.machines[name]
        latest = max((one.end for one in past if one.end > one.start and not one.interrupted), default=-1)
        if latest >= state.now:
            machine.free = machine.ended = latest
        machine.starts = tuple(sorted(one.start for one in past))[-(station.buffer_in or 1) :]
        machine.worked = sum(one.end - one.start for one in past)
        state.last = max(state.last, *(one.end for one in past))
    for spec in problem.machines:
        machine = state.machines[spec.id]
        if spec.warm_from is not None and machine.ended is None:
            machine.ended = max(spec.warm_from, state.now)
            machine.free = max(machine.free, spec.warm_from)
    for job, part in state.jobs.items():
        if job in problem.past_of:
            last = max(problem.past_of[job], key=IN_TURN)
            kept = last.machine == part.at and last.end > last.start and not last.interrupted
            part.holds = kept and shop.machines[part.at].limit is not None
            state.machines[last.machine].kept += part.holds
    return state


def fit(station: Station, earliest: int, ticks: int) -> tuple[int, int]:
    """Begin and end of work of so many ticks that its machine can do, no earlier than `earliest`."""
    start, end = earliest, earliest + ticks
    for shut in station.shut:
        if shut.end <= start:
            continue
        if shut.start >= end:
            break
        start, end = _past(shut, start, end, ticks)
    return start, end


def _past(shut: Shut, start: int, end: int, ticks: int) -> tuple[int, int]:
    if shut.start <= start or not shut.broken:
        return shut.end, shut.end + ticks
    return start, end + shut.end - shut.start
