"""The board of the search over start times: what it is made of, and each part as one pointer for compiled kernels.

    board, desk = board_of(shop, rates), desk_of(shop, rates)
    packed_board(board)              # the same names, the same arrays (see `cloud.scheduling.packed`)

Dimensions as in `shop`; L lines (a line is a stretch of a machine between breakdowns), T ticks from `rates.low`.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from numba.core import types
from numba.experimental import structref

from cloud.scheduling.compiled import compiled
from cloud.scheduling.rates import Rates
from cloud.scheduling.shop import Bools, Floats, Indices, Ints, Shop


class Rules(NamedTuple):
    """What a plan must keep besides the problem. Never written to."""

    latest: int  # all work ends by then
    tardiness: int  # most of it
    headroom: Floats  # (T,) kW that machines may draw from carrier `crowded`, or empty
    crowded: int  # -1: no limit of power
    tracked: Bools  # (K,) carriers whose load is kept tick by tick


class Board(NamedTuple):
    """A plan, all or part of it. Written to."""

    alt: Indices  # (O,) the chosen alternative, -1: not placed
    line: Indices  # (O,) -1: none (not placed, or no length)
    start: Ints  # (O,)
    off: Bools  # (O,) off in the gap before it
    order: Indices  # (L, most) operations by start
    placed: Indices  # (L,) how many
    ends: Ints  # (J,) of the last operation, -1: not placed
    load: Floats  # (K, T) kW, of tracked carriers
    busy: Indices  # (C, T) people
    money: Floats  # (1,) sum of rates so far


class Desk(NamedTuple):
    """Room to work in, used again and again."""

    cost: Floats  # (steps, options, T) least cost of a job's first operations, the last of them starting there
    source: Ints  # (steps, options, T) option · T + start of the one before it
    arrive: Floats  # (T,)
    arrive_from: Ints  # (T,)
    reach: Floats  # (T,)
    reach_from: Ints  # (T,)
    ends: Floats  # (T,)
    ends_from: Ints  # (T,)
    queue: Ints  # (T,)
    sums: Floats  # (5, T + 1) work, idle, preheat, off, setup
    shut: Indices  # (M, T + 1) closed ticks before
    tight: Indices  # (T + 1,) ticks before in which a crew or the power does not suffice
    option_alt: Indices  # (options,)
    option_line: Indices  # (options,)
    machine_of_line: Indices  # (L,)
    out: Indices  # (J,) jobs taken off
    mark: Bools  # (J,)


def board_of(shop: Shop, rates: Rates) -> Board:
    """Nothing placed."""
    operations, jobs, lines = len(shop.op_job), len(shop.job_ready), len(shop.stretch_start)
    ticks = rates.linear.shape[1]
    able = np.bincount(shop.alt_machine, minlength=len(shop.preheat)) if operations else np.zeros(1, np.int64)
    busy = np.zeros((len(shop.crew_count), ticks), np.int32)
    for c, people, start, end in shop.crew_past.tolist():
        busy[c, max(start - rates.low, 0) : max(end - rates.low, 0)] += people
    return Board(
        np.full(operations, -1, np.int32),
        np.full(operations, -1, np.int32),
        np.zeros(operations, np.int64),
        np.zeros(operations, np.bool_),
        np.zeros((lines, int(able.max(initial=0)) + 1), np.int32),
        np.zeros(lines, np.int32),
        np.full(jobs, -1, np.int64),
        np.zeros((len(rates.net), ticks)),
        busy,
        np.zeros(1),
    )


def desk_of(shop: Shop, rates: Rates) -> Desk:
    """Room for jobs of this shop."""
    ticks, machines = rates.linear.shape[1], len(shop.preheat)
    lines = np.diff(shop.stretch_first)
    options = np.array(
        [lines[shop.alt_machine[shop.alt_first[o] : shop.alt_first[o + 1]]].sum() for o in range(len(shop.op_job))],
        np.int64,
    )
    most, steps = int(options.max(initial=1)), int(np.diff(shop.job_first).max(initial=1))
    shut = np.zeros((machines, ticks + 1), np.int32)
    for m in range(machines):
        for w in range(shop.closed_first[m], shop.closed_first[m + 1]):
            a, b = (min(max(int(one) - rates.low, 0), ticks) for one in (shop.closed_start[w], shop.closed_end[w]))
            shut[m, a + 1 : b + 1] = 1
        shut[m] = np.cumsum(shut[m])
    return Desk(
        np.zeros((steps, most, ticks)),
        np.zeros((steps, most, ticks), np.int64),
        np.zeros(ticks),
        np.zeros(ticks, np.int64),
        np.zeros(ticks),
        np.zeros(ticks, np.int64),
        np.zeros(ticks),
        np.zeros(ticks, np.int64),
        np.zeros(ticks, np.int64),
        np.zeros((5, ticks + 1)),
        shut,
        np.zeros(ticks + 1, np.int32),
        np.zeros(most, np.int32),
        np.zeros(most, np.int32),
        np.repeat(np.arange(machines, dtype=np.int32), lines),
        np.zeros(len(shop.job_ready), np.int32),
        np.zeros(len(shop.job_ready), np.bool_),
    )


def desk_cells(shop: Shop, ticks: int) -> int:
    """Numbers a desk would hold, to refuse what does not fit before it is made."""
    lines = np.diff(shop.stretch_first)
    most = max(
        (int(lines[shop.alt_machine[a:b]].sum()) for a, b in zip(shop.alt_first[:-1], shop.alt_first[1:], strict=True)),
        default=1,
    )
    return 2 * most * int(np.diff(shop.job_first).max(initial=1)) * ticks


@structref.register
class RatesType(types.StructRef):
    """Of packed rates."""


@structref.register
class RulesType(types.StructRef):
    """Of packed rules."""


@structref.register
class BoardType(types.StructRef):
    """Of a packed board."""


@structref.register
class DeskType(types.StructRef):
    """Of a packed desk."""


class PackedRates(structref.StructRefProxy):
    """`Rates` as kernels take them."""


class PackedRules(structref.StructRefProxy):
    """`Rules` as kernels take them."""


class PackedBoard(structref.StructRefProxy):
    """A `Board` as kernels take it."""


class PackedDesk(structref.StructRefProxy):
    """A `Desk` as kernels take it."""


structref.define_proxy(PackedRates, RatesType, list(Rates._fields))  # type: ignore[no-untyped-call]
structref.define_proxy(PackedRules, RulesType, list(Rules._fields))  # type: ignore[no-untyped-call]
structref.define_proxy(PackedBoard, BoardType, list(Board._fields))  # type: ignore[no-untyped-call]
structref.define_proxy(PackedDesk, DeskType, list(Desk._fields))  # type: ignore[no-untyped-call]


def packed_rates(rates: Rates) -> Rates:
    """The same behind one pointer."""
    return cast(Rates, _pack_rates(rates))


def packed_rules(rules: Rules) -> Rules:
    """The same behind one pointer."""
    return cast(Rules, _pack_rules(rules))


def packed_board(board: Board) -> Board:
    """The same behind one pointer."""
    return cast(Board, _pack_board(board))


def packed_desk(desk: Desk) -> Desk:
    """The same behind one pointer."""
    return cast(Desk, _pack_desk(desk))


@compiled
def _pack_rates(rates: Rates) -> PackedRates:
    return PackedRates(*rates)  # type: ignore[no-untyped-call]


@compiled
def _pack_rules(rules: Rules) -> PackedRules:
    return PackedRules(*rules)  # type: ignore[no-untyped-call]


@compiled
def _pack_board(board: Board) -> PackedBoard:
    return PackedBoard(*board)  # type: ignore[no-untyped-call]


@compiled
def _pack_desk(desk: Desk) -> PackedDesk:
    return PackedDesk(*desk)  # type: ignore[no-untyped-call]
