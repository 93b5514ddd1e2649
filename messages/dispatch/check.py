"""Whether a schedule can be carried out: found out from its times alone, apart from everything that makes schedules.

    faults(shop, schedule.bids) == []

Looks at a shop from its beginning on: every step done once, in order, on a machine that can do it, for as long as it
takes; no two works on a machine at a time; none while it is shut; parts carried for as long as the way takes, by one
vehicle at a time that was there; never more parts before or behind a machine than places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from messages.dispatch.shop import Shop, Station
from messages.dispatch.state import Bid


def faults(shop: Shop, bids: Sequence[Bid]) -> list[str]:
    """What is wrong, in words; empty: nothing."""
    return [*_routes(shop, bids), *_machines(shop, bids), *_vehicles(shop, bids), *_buffers(shop, bids)]


def _routes(shop: Shop, bids: Sequence[Bid]) -> Iterator[str]:
    for name, route in shop.route.items():
        own = sorted((bid for bid in bids if bid.job == name), key=lambda bid: bid.op)
        if [bid.op for bid in own] != list(range(len(route))):
            yield f"{name}: steps {[bid.op for bid in own]}, not each of {len(route)} once"
            continue
        place, free = shop.jobs[name].at, shop.jobs[name].release
        for bid, step in zip(own, route, strict=True):
            if bid.machine not in step.ticks:
                yield f"{name} {bid.op}: {bid.machine} cannot do it"
            if bid.loads < free + step.lag:
                yield f"{name} {bid.op}: leaves at {bid.loads}, is free at {free + step.lag}"
            way = shop.ticks.get(place, {}).get(bid.machine)
            if place in ("", bid.machine) or way is None:
                if (bid.arrives, bid.vehicle) != (bid.loads, -1):
                    yield f"{name} {bid.op}: carried without need"
            elif bid.arrives != bid.loads + shop.loading + way + shop.unloading:
                yield f"{name} {bid.op}: carried from {bid.loads} to {bid.arrives}"
            elif (bid.vehicle < 0) != (shop.vehicles is None):
                yield f"{name} {bid.op}: carried by nothing"
            if bid.start < bid.arrives:
                yield f"{name} {bid.op}: begins at {bid.start}, arrives at {bid.arrives}"
            place, free = bid.machine, bid.end


def _machines(shop: Shop, bids: Sequence[Bid]) -> Iterator[str]:
    for name, station in shop.machines.items():
        free = station.preheat
        for bid in sorted(_works(shop, bids, name), key=lambda bid: bid.start):
            if bid.start < free:
                yield f"{name}: {bid.job} {bid.op} begins at {bid.start}, it is free at {free}"
            free = bid.end
            ticks = shop.route[bid.job][bid.op].ticks[name]
            if bid.end - bid.start - _broken(station, bid) != ticks:
                yield f"{name}: {bid.job} {bid.op} takes {bid.end - bid.start}, not {ticks}"
            for shut in station.shut:
                closed = not shut.broken and bid.start < shut.end and shut.start < bid.end
                if closed or shut.start <= bid.start < shut.end:
                    yield f"{name}: {bid.job} {bid.op} at {bid.start} while it is shut"


def _broken(station: Station, bid: Bid) -> int:
    return sum(shut.end - shut.start for shut in station.shut if shut.broken and bid.start < shut.start < bid.end)


def _vehicles(shop: Shop, bids: Sequence[Bid]) -> Iterator[str]:
    for number in range(shop.vehicles or 0):
        place, free = shop.home, 0
        for bid in sorted((bid for bid in bids if bid.vehicle == number), key=lambda bid: bid.loads):
            empty = 0 if place == bid.came_from else shop.ticks.get(place, {}).get(bid.came_from, 0)
            if bid.loads - empty < free:
                yield f"vehicle {number}: loads {bid.job} at {bid.loads}, can be there at {free + empty}"
            place, free = bid.machine, bid.arrives


def _buffers(shop: Shop, bids: Sequence[Bid]) -> Iterator[str]:
    after = {(bid.job, bid.op): bid for bid in bids}
    for name, station in shop.machines.items():
        works = list(_works(shop, bids, name))
        if station.buffer_in is not None:
            most = _most((bid.arrives, bid.start) for bid in works)
            if most > station.buffer_in:
                yield f"{name}: {most} parts wait before it, there are {station.buffer_in} places"
        if station.buffer_out is None:
            continue
        for bid in works:
            kept = 0
            for other in works:
                onward = after.get((other.job, other.op + 1))
                if other.end <= bid.start and other is not bid and onward is not None and onward.leaves > bid.start:
                    kept += onward is not bid
            if kept > station.buffer_out - station.hold:
                yield f"{name}: {bid.job} {bid.op} begins at {bid.start} when {kept} finished parts are there"


def _works(shop: Shop, bids: Iterable[Bid], machine: str) -> Iterator[Bid]:
    return (bid for bid in bids if bid.machine == machine and shop.route[bid.job][bid.op].ticks.get(machine))


def _most(stays: Iterable[tuple[int, int]]) -> int:
    """Most stays [from, until) at one time."""
    count = most = 0
    for _, change in sorted(change for come, go in stays if come < go for change in ((come, 1), (go, -1))):
        count += change
        most = max(most, count)
    return most
