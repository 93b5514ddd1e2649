"""A shop and its state as flat arrays behind one pointer each, for compiled kernels.

    floor, names = floor_of(shop)
    board = board_of(floor, names, state)

Dimensions: J jobs, O steps (job after job), A alternatives (step after step), M machines, V vehicles, P places: the
machines first, then stores, the last one stands for nowhere. Times are ticks (int64).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.experimental import structref

from cloud.scheduling.compiled import compiled
from messages.curve import Curve
from messages.dispatch.decode import Choice, Weights
from messages.dispatch.shop import Shop, Step, Work
from messages.dispatch.state import State

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FAR = 2**60
"""A time after all times."""
MACHINE, TICKS = range(2)
"""Columns of `alternative`."""
PLACES, LIMIT, PREHEAT = range(3)
"""Columns of `station`."""
IDLE_KW, HEAT_KW, OFF_KW, CARRIER = range(4)
"""Columns of `power`."""
FREE, ENDED, KEPT, QUEUED, TAIL = range(5)
"""Columns of `machine`; from TAIL on: begins of its last works (a ring), then when the last parts leave."""
NEXT, AT, READY, HOLDS, WAITED, SEEN = range(6)
"""Columns of `part`; SEEN is room for `advance`."""
NOW, LAST, FAULTS = range(3)
"""Places of `clock`."""
START, END, LOADS, ARRIVES, CHOSEN = range(5)
"""Columns of what was made."""


class Floor(NamedTuple):
    """What does not change. Never written to."""

    step_first: Ints  # (J + 1,)
    due: Ints  # (J,) FAR: none
    lag: Ints  # (O,)
    alt_first: Ints  # (O + 1,)
    alternative: Ints  # (A, 2) place, ticks
    alt_kw: Floats  # (A,)
    station: Ints  # (M, 3) places of its in-buffer (0: any number), limit of finished parts (-1: none), preheating
    power: Floats  # (M, 4)
    shut_first: Ints  # (M + 1,)
    shut: Ints  # (W, 3) from, until, whether work goes on afterwards
    carried: Ints  # (P, P) ticks with loading and unloading, -1: not carried
    empty: Ints  # (P, P) ticks of an empty vehicle
    loading: int
    vehicles: int  # -1: any number
    limited: bool  # some machine has an out-buffer
    ring: int  # begins remembered per machine
    hour_ticks: float
    carry_kw: float
    carry_carrier: int
    curve: Ints  # (K, 4) place of its first value, values, begin, step; negative begin of nothing: no values
    periodic: Ints  # (K,)
    curve_value: Floats
    curve_sum: Floats  # of each value: the integral of its curve up to where it begins


class Board(NamedTuple):
    """What changes. All integers share `all`, so that a copy is one."""

    all: Ints
    machine: Ints  # (M, TAIL + ring + leaves)
    part: Ints  # (J, 6)
    vehicle: Ints  # (V, 2) place, free at
    clock: Ints  # (3,)


@structref.register
class FloorType(types.StructRef):
    """Of a packed floor."""


@structref.register
class BoardType(types.StructRef):
    """Of a packed board."""


class PackedFloor(structref.StructRefProxy):
    """A `Floor` as kernels take it."""


class PackedBoard(structref.StructRefProxy):
    """A `Board` as kernels take it."""


structref.define_proxy(PackedFloor, FloorType, list(Floor._fields))  # type: ignore[no-untyped-call]
structref.define_proxy(PackedBoard, BoardType, list(Board._fields))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Names:
    """What the numbers of a floor stand for."""

    shop: Shop
    jobs: tuple[str, ...]
    places: tuple[str, ...]  # the machines first; the last, "", is nowhere
    job: dict[str, int]
    place: dict[str, int]


def floor_of(shop: Shop) -> tuple[Floor, Names]:
    """The arrays of `shop`."""
    site = _site(shop)
    lengths, lag, able, alternative, alt_kw = list[int](), list[int](), list[int](), list[int](), list[float]()
    for name, route in shop.route.items():
        rows = site.rows(shop.jobs[name], route)
        lengths.append(len(route))
        lag += rows.lag
        able += rows.able
        alternative += rows.alternative
        alt_kw += rows.alt_kw
    return (
        Floor(
            step_first=_bounds(lengths),
            due=_ints(FAR if work.due is None else work.due for work in shop.jobs.values()),
            lag=np.array(lag, np.int64),
            alt_first=_bounds(able),
            alternative=np.array(alternative, np.int64).reshape(-1, 2),
            alt_kw=np.array(alt_kw, np.float64),
            **site.arrays,
        ),
        Names(shop, tuple(shop.jobs), site.places, {name: j for j, name in enumerate(shop.jobs)}, site.place),
    )


def board_of(floor: Floor, names: Names, state: State) -> Board:
    """The arrays of `state`."""
    leaves = max(floor.station[:, LIMIT].max(initial=-1) + 1, 0)
    board = _board(len(floor.station), int(TAIL + floor.ring + leaves), len(names.jobs), len(state.vehicles))
    for m, one in enumerate(state.machines.values()):
        places = len(one.starts)
        board.machine[m, :TAIL] = (one.free, -1 if one.ended is None else one.ended, one.kept, places)
        board.machine[m, TAIL : TAIL + min(places, floor.ring)] = one.starts[: floor.ring]
        board.machine[m, TAIL + floor.ring :][: len(one.leaves)] = one.leaves[:leaves]
    place = names.place
    if state.jobs:
        board.part[:] = [
            (part.next, place[part.at], part.ready, part.holds, part.waited, 0)
            for part in map(state.jobs.__getitem__, names.jobs)
        ]
    for v, vehicle in enumerate(state.vehicles):
        board.vehicle[v] = (names.place[vehicle.at], vehicle.free)
    board.clock[:] = (state.now, state.last, state.faults)
    return board


def copied(board: Board) -> Board:
    """Another one, that may be changed."""
    found = _board(len(board.machine), board.machine.shape[1], len(board.part), len(board.vehicle))
    found.all[:] = board.all
    return found


def draft_of(floor: Floor, names: Names, state: State, sequence: Iterable[Choice]) -> tuple[Ints, Ints]:
    """Order (N,) of jobs, and the alternative (O,) of each step; steps that `sequence` lacks have their first."""
    order, alt = [], floor.alt_first[:-1].copy()
    following = {job: part.next for job, part in state.jobs.items()}
    for job, machine in sequence:
        j = names.job[job]
        o = int(floor.step_first[j]) + following[job]
        following[job] += 1
        able = list(names.shop.route[job][following[job] - 1].ticks)
        alt[o] = floor.alt_first[o] + able.index(machine)
        order.append(j)
    return np.array(order, np.int64), alt


def sequence_of(floor: Floor, names: Names, state: State, order: Ints, alt: Ints) -> list[Choice]:
    """The other way round."""
    steps = zip(names.jobs, floor.step_first.tolist(), strict=False)
    following = [first + state.jobs[job].next for job, first in steps]
    machines, chosen, found = floor.alternative[:, MACHINE].tolist(), alt.tolist(), []
    for j in order.tolist():
        found.append((names.jobs[j], names.places[machines[chosen[following[j]]]]))
        following[j] += 1
    return found


def weights_of(weights: Weights) -> Floats:
    """(5,) makespan, waiting, tardiness, energy, carbon."""
    return np.array([weights.makespan, weights.waiting, weights.tardiness, weights.energy, weights.carbon])


def packed_floor(floor: Floor) -> Floor:
    """Behind one pointer; for type checkers a `Floor`."""
    return cast(Floor, _pack_floor(floor))


def packed_board(board: Board) -> Board:
    """Behind one pointer; the arrays are shared, for type checkers a `Board`."""
    return cast(Board, _pack_board(board))


@compiled
def _pack_floor(floor: Floor) -> PackedFloor:
    return PackedFloor(*floor)  # type: ignore[no-untyped-call]


@compiled
def _pack_board(board: Board) -> PackedBoard:
    return PackedBoard(*board)  # type: ignore[no-untyped-call]


def _board(machines: int, columns: int, jobs: int, vehicles: int) -> Board:
    ends = (machines * columns, machines * columns + 6 * jobs, machines * columns + 6 * jobs + 2 * vehicles)
    every = np.zeros(ends[2] + 3, np.int64)
    return Board(
        every,
        every[: ends[0]].reshape(machines, columns),
        every[ends[0] : ends[1]].reshape(jobs, 6),
        every[ends[1] : ends[2]].reshape(vehicles, 2),
        every[ends[2] :],
    )


class _Rows(NamedTuple):
    """One job's part of the arrays."""

    work: Work  # kept, so that no other gets its identity
    lag: list[int]
    able: list[int]  # machines of each step
    alternative: list[int]
    alt_kw: list[float]


KNOWN = 4_000
"""Jobs whose rows are remembered; then all are forgotten."""


@dataclass(frozen=True)
class _Site:
    """What shops have in common that differ in their jobs alone; and rows of jobs that were in the last of them."""

    of: Shop
    places: tuple[str, ...]
    place: dict[str, int]
    arrays: dict[str, Any]
    known: dict[int, _Rows] = field(default_factory=dict)

    def rows(self, work: Work, route: tuple[Step, ...]) -> _Rows:
        """Of a job with this route."""
        found = self.known.get(id(work))
        if found is None or found.work is not work:
            if len(self.known) >= KNOWN:
                self.known.clear()
            place = self.place
            found = self.known[id(work)] = _Rows(
                work,
                [step.lag for step in route],
                [len(step.ticks) for step in route],
                [number for step in route for name, ticks in step.ticks.items() for number in (place[name], ticks)],
                [step.draws_kw(name) for step in route for name in step.ticks],
            )
        return found


_sites: list[_Site] = []
"""The one used last, if any: judges ask of the same site again and again. Replaced as a whole: threads may share it."""


def _site(shop: Shop) -> _Site:
    known = next(iter(_sites), None)
    if known is None or not _alike(known, shop):
        _sites[:] = [known := _site_of(shop)]
    return known


def _alike(site: _Site, shop: Shop) -> bool:
    one = site.of
    return (
        (one.machines is shop.machines or list(one.machines.items()) == list(shop.machines.items()))
        and one.ticks is shop.ticks
        and one.carbon is shop.carbon
        and (one.vehicles, one.home, one.loading, one.unloading, one.finished)
        == (shop.vehicles, shop.home, shop.loading, shop.unloading, shop.finished)
        and (one.carry_kw, one.carry_carrier, one.hour_ticks) == (shop.carry_kw, shop.carry_carrier, shop.hour_ticks)
        and all(work.at in site.place for work in shop.jobs.values())
    )


def _site_of(shop: Shop) -> _Site:
    stores = dict.fromkeys(
        [work.at for work in shop.jobs.values()]
        + [place for before, row in shop.ticks.items() for place in (before, *row)]
        + [shop.home, shop.finished]
    )
    places = (*shop.machines, *(one for one in stores if one and one not in shop.machines), "")
    place = {name: p for p, name in enumerate(places)}
    stations = list(shop.machines.values())
    carriers = {name: k for k, name in enumerate(dict.fromkeys((*(s.carrier for s in stations), shop.carry_carrier)))}
    carried, empty = np.full((len(places), len(places)), -1, np.int64), np.zeros((len(places), len(places)), np.int64)
    for before in (one for one in shop.ticks if one):
        for after in shop.ticks[before]:
            way = shop.carried(before, after)
            carried[place[before], place[after]] = -1 if way is None else way
            empty[place[before], place[after]] = shop.empty(before, after)
    limits = [-1 if one.limit is None else one.limit for one in stations]
    arrays = {
        "station": np.array(
            [(one.buffer_in or 0, limit, one.preheat) for one, limit in zip(stations, limits, strict=True)], np.int64
        ).reshape(-1, 3),
        "power": np.array(
            [(one.idle_kw, one.preheat_kw, one.off_kw, carriers[one.carrier]) for one in stations], np.float64
        ).reshape(-1, 4),
        "shut_first": _bounds(len(one.shut) for one in stations),
        "shut": np.array(
            [(shut.start, shut.end, shut.broken) for one in stations for shut in one.shut], np.int64
        ).reshape(-1, 3),
        "carried": carried,
        "empty": empty,
        "loading": shop.loading,
        "vehicles": -1 if shop.vehicles is None else shop.vehicles,
        "limited": max(limits, default=-1) >= 0,
        "ring": max((one.buffer_in or 0 for one in stations), default=0),
        "hour_ticks": shop.hour_ticks,
        "carry_kw": shop.carry_kw,
        "carry_carrier": carriers[shop.carry_carrier],
        **_curves([shop.carbon.get(name) for name in carriers])._asdict(),
    }
    return _Site(shop, places, place, arrays)


class _Curves(NamedTuple):
    curve: Ints
    periodic: Ints
    curve_value: Floats
    curve_sum: Floats


def _curves(curves: list[Curve | None]) -> _Curves:
    rows, values, sums = [], list[float](), list[float]()
    for one in curves:
        own = () if one is None else one.values
        begin, step = (0, 1) if one is None else (one.start, one.step)
        rows.append((len(values), len(own), begin, step))
        total = 0.0
        for value in own:
            values.append(value)
            sums.append(total)
            total += value * step
    periodic = [one is not None and one.periodic for one in curves]
    return _Curves(
        np.array(rows, np.int64).reshape(-1, 4), np.array(periodic, np.int64), np.array(values), np.array(sums)
    )


def _bounds(counts: Iterable[int]) -> Ints:
    return np.cumsum([0, *counts]).astype(np.int64)


def _ints(values: Iterable[int]) -> Ints:
    return np.array(list(values), np.int64)
