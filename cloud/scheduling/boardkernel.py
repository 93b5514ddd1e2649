"""Compiled: one operation put on or taken off the board of a plan, and what that costs.

    insert(shop, rates, rules, desk, board, o, a, line, start)     # False, and nothing done, where there is no room
    remove(shop, rates, rules, desk, board, o)

A line is a stretch of a machine between breakdowns, its order is kept by start. In every gap the machine idles or is
off, whichever costs less. Two operations never share a batch here. Being off or down between two lines costs nothing.
"""

from __future__ import annotations

from cloud.scheduling.compiled import compiled
from cloud.scheduling.rates import Rates
from cloud.scheduling.shiftboard import Board, Desk, Rules
from cloud.scheduling.shop import FAR, IDLE, OFF, PREHEAT, SETUP, Indices, Ints, Shop

TIE = 1e-9
"""Relative difference below which idling is preferred to being off (as the judge does)."""


@compiled
def _draw(rates: Rates, rules: Rules, board: Board, k: int, begin: int, end: int, kw: float) -> None:
    """`kw` more (or less) of carrier `k` in [begin, end)."""
    a, b = max(begin, rates.low) - rates.low, min(end, rates.high) - rates.low
    if b <= a or kw == 0.0:
        return
    money = kw * (rates.before[k, b] - rates.before[k, a])
    if rules.tracked[k]:
        for t in range(a, b):
            old = board.load[k, t]
            new = old + kw
            if rates.net[k]:
                room = rates.room[k, t]
                money += rates.buy[k, t] * (max(0.0, new - room) - max(0.0, old - room))
                money -= rates.sell[k, t] * (max(0.0, room - new) - max(0.0, room - old))
            board.load[k, t] = new
    board.money[0] += money


@compiled
def _marginal(rates: Rates, board: Board, k: int, begin: int, end: int, kw: float) -> float:
    """What `kw` more of carrier `k` in [begin, end) would cost."""
    a, b = max(begin, rates.low) - rates.low, min(end, rates.high) - rates.low
    if b <= a or kw == 0.0:
        return 0.0
    money: float = kw * (rates.before[k, b] - rates.before[k, a])
    if rates.net[k]:
        for t in range(a, b):
            old, room = board.load[k, t], rates.room[k, t]
            money += rates.buy[k, t] * (max(0.0, old + kw - room) - max(0.0, old - room))
            money -= rates.sell[k, t] * (max(0.0, room - old - kw) - max(0.0, room - old))
    return money


@compiled
def family_before(shop: Shop, desk: Desk, board: Board, line: int, left: int) -> int:
    """What the machine is set up for behind operation `left`, -1: as this line begins."""
    m = desk.machine_of_line[line]
    family: int = shop.family[left] if left >= 0 else shop.machine_family[m]
    return family


@compiled
def setup_ticks(shop: Shop, m: int, before: int, after: int) -> int:
    table = shop.setup_table[m]
    ticks: int = 0 if table < 0 else shop.setup[table, before, after]
    return ticks


@compiled
def since_of(shop: Shop, board: Board, line: int, left: int) -> int:
    """When the gap behind `left` begins; FAR: the machine is cold."""
    since: int = shop.stretch_warm[line]
    if left >= 0:
        since = board.start[left] + shop.alt_ticks[board.alt[left]]
    return since if since >= 0 else FAR


@compiled
def bridge(
    shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, line: int, left: int, right: int, sign: float
) -> None:
    """What the machine and its crew do between `left` and the work of `right`, added (1) or taken away (-1)."""
    if right < 0:
        return
    m = desk.machine_of_line[line]
    k, heat = shop.carrier[m], shop.preheat[m]
    setup = setup_ticks(shop, m, family_before(shop, desk, board, line, left), shop.family[right])
    begin = board.start[right]
    ready = begin - setup
    since = since_of(shop, board, line, left)
    if since == FAR:
        _draw(rates, rules, board, k, ready - heat, ready, sign * shop.power[m, PREHEAT])
    elif ready > since:
        if sign > 0:
            board.off[right] = False
            if ready - since >= heat:
                idle = _marginal(rates, board, k, since, ready, shop.power[m, IDLE])
                off = _marginal(rates, board, k, since, ready - heat, shop.power[m, OFF])
                off += _marginal(rates, board, k, ready - heat, ready, shop.power[m, PREHEAT])
                board.off[right] = idle > off + TIE * max(abs(idle), abs(off))
        if board.off[right]:
            _draw(rates, rules, board, k, since, ready - heat, sign * shop.power[m, OFF])
            _draw(rates, rules, board, k, ready - heat, ready, sign * shop.power[m, PREHEAT])
        else:
            _draw(rates, rules, board, k, since, ready, sign * shop.power[m, IDLE])
    _draw(rates, rules, board, k, ready, begin, sign * shop.power[m, SETUP])
    if setup:
        _people(shop, rates, board, right, ready, begin, 1 if sign > 0 else -1)


@compiled
def _people(shop: Shop, rates: Rates, board: Board, o: int, begin: int, end: int, sign: int) -> None:
    for c in range(len(shop.crew_count)):
        need = shop.crew_need[o, c]
        if need:
            for t in range(max(begin, rates.low) - rates.low, min(end, rates.high) - rates.low):
                board.busy[c, t] += sign * need


@compiled
def _work(shop: Shop, rates: Rates, rules: Rules, board: Board, o: int, sign: float) -> None:
    a = board.alt[o]
    begin, end = board.start[o], board.start[o] + shop.alt_ticks[a]
    _draw(rates, rules, board, shop.carrier[shop.alt_machine[a]], begin, end, sign * shop.alt_kw[a])
    _people(shop, rates, board, o, begin, end, 1 if sign > 0 else -1)


@compiled
def carry(shop: Shop, rates: Rates, rules: Rules, board: Board, j: int, sign: float) -> None:
    """What carrying job `j` draws; all of it is placed."""
    if shop.transport_kw == 0.0:
        return
    at, left = shop.job_at[j], shop.job_left[j]
    for o in range(shop.job_first[j], shop.job_first[j + 1]):
        a = board.alt[o]
        m = shop.alt_machine[a]
        if at >= 0 and shop.transport[at, m] > 0:
            _draw(
                rates,
                rules,
                board,
                shop.transport_carrier,
                left,
                left + shop.transport[at, m],
                sign * shop.transport_kw,
            )
        at, left = m, board.start[o] + shop.alt_ticks[a]


@compiled
def place_in(board: Board, line: int, start: int) -> int:
    """Its place in the order."""
    low, high = 0, board.placed[line]
    while low < high:
        middle = (low + high) // 2
        if board.start[board.order[line, middle]] < start:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def insert(
    shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, o: int, a: int, line: int, start: int
) -> bool:
    """Place an operation; False, and nothing done, where there is no room."""
    ticks = shop.alt_ticks[a]
    if ticks == 0:
        board.alt[o], board.line[o], board.start[o] = a, -1, start
        return True
    m = desk.machine_of_line[line]
    place = place_in(board, line, start)
    left = board.order[line, place - 1] if place > 0 else -1
    right = board.order[line, place] if place < board.placed[line] else -1
    setup = setup_ticks(shop, m, family_before(shop, desk, board, line, left), shop.family[o])
    since = since_of(shop, board, line, left)
    if left >= 0 and start - setup < since:
        return False
    if left < 0 and not _may_begin(shop, line, start, setup):
        return False
    if start + ticks > min(rules.latest, shop.stretch_end[line]):
        return False
    if right >= 0:
        next_setup = setup_ticks(shop, m, shop.family[o], shop.family[right])
        if start + ticks + next_setup > board.start[right]:
            return False
        if next_setup and is_shut(desk, rates, m, board.start[right] - next_setup, board.start[right]):
            return False
    if is_shut(desk, rates, m, start - setup, start + ticks):
        return False
    bridge(shop, rates, rules, desk, board, line, left, right, -1.0)
    for i in range(board.placed[line], place, -1):
        board.order[line, i] = board.order[line, i - 1]
    board.order[line, place] = o
    board.placed[line] += 1
    board.alt[o], board.line[o], board.start[o] = a, line, start
    _work(shop, rates, rules, board, o, 1.0)
    bridge(shop, rates, rules, desk, board, line, left, o, 1.0)
    bridge(shop, rates, rules, desk, board, line, o, right, 1.0)
    return True


@compiled
def remove(shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, o: int) -> None:
    line = board.line[o]
    if line >= 0:
        place = place_in(board, line, board.start[o])
        while board.order[line, place] != o:
            place += 1
        left = board.order[line, place - 1] if place > 0 else -1
        right = board.order[line, place + 1] if place + 1 < board.placed[line] else -1
        bridge(shop, rates, rules, desk, board, line, left, o, -1.0)
        bridge(shop, rates, rules, desk, board, line, o, right, -1.0)
        _work(shop, rates, rules, board, o, -1.0)
        board.placed[line] -= 1
        for i in range(place, board.placed[line]):
            board.order[line, i] = board.order[line, i + 1]
        bridge(shop, rates, rules, desk, board, line, left, right, 1.0)
    board.alt[o], board.line[o] = -1, -1


@compiled
def _may_begin(shop: Shop, line: int, start: int, setup: int) -> bool:
    """Whether the first work of a line may start there; the first set-up of a fresh plan may lie before tick 0."""
    return start >= shop.stretch_ready[line] and (setup == 0 or start - setup >= shop.stretch_setup[line])


@compiled
def is_shut(desk: Desk, rates: Rates, m: int, begin: int, end: int) -> bool:
    a, b = max(begin - rates.low, 0), end - rates.low
    return b > a and desk.shut[m, b] > desk.shut[m, a]


@compiled
def take_off(shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, j: int) -> None:
    """Take all operations of job `j` off the board."""
    carry(shop, rates, rules, board, j, -1.0)
    for o in range(shop.job_first[j], shop.job_first[j + 1]):
        remove(shop, rates, rules, desk, board, o)
    board.ends[j] = -1


@compiled
def load_board(
    shop: Shop, rates: Rates, rules: Rules, desk: Desk, board: Board, alts: Indices, starts: Ints, order: Indices
) -> bool:
    """A whole plan onto an empty board, operations in `order` of start; False where it does not fit (batches)."""
    for o in order:
        a = alts[o]
        m = shop.alt_machine[a]
        line = shop.stretch_first[m + 1] - 1
        while line > shop.stretch_first[m] and starts[o] < shop.stretch_start[line]:
            line -= 1
        if not insert(shop, rates, rules, desk, board, o, a, line, starts[o]):
            return False
    for j in range(len(board.ends)):
        o = shop.job_first[j + 1] - 1
        board.ends[j] = board.start[o] + shop.alt_ticks[board.alt[o]]
        carry(shop, rates, rules, board, j, 1.0)
    return keeps(shop, rules, board)


@compiled
def value_of(shop: Shop, rates: Rates, board: Board) -> float:
    """The weighted sum of a full board (but for what no choice changes)."""
    makespan, late = shop.past_makespan, shop.past_tardiness
    lots = shop.lot_past.copy()
    for j in range(len(board.ends)):
        makespan = max(makespan, board.ends[j])
        lots[shop.job_lot[j]] = max(lots[shop.job_lot[j]], board.ends[j])
    for lot in range(len(lots)):
        late += max(0, lots[lot] - shop.lot_due[lot])
    value: float = board.money[0] + rates.work * makespan + rates.late * late
    return value


@compiled
def keeps(shop: Shop, rules: Rules, board: Board) -> bool:
    """Whether people, power and the limit of tardiness suffice."""
    for c in range(len(shop.crew_count)):
        for t in range(board.busy.shape[1]):
            if board.busy[c, t] > shop.crew_count[c]:
                return False
    if rules.crowded >= 0:
        for t in range(len(rules.headroom)):
            if board.load[rules.crowded, t] > rules.headroom[t] * (1 + 1e-9) + 1e-9:
                return False
    late = shop.past_tardiness
    lots = shop.lot_past.copy()
    for j in range(len(board.ends)):
        lots[shop.job_lot[j]] = max(lots[shop.job_lot[j]], board.ends[j])
    for lot in range(len(lots)):
        late += max(0, lots[lot] - shop.lot_due[lot])
    return late <= rules.tardiness


@compiled
def copy(source: Board, target: Board) -> None:
    """`target` becomes equal to `source`."""
    for o in range(len(source.alt)):
        target.alt[o], target.line[o] = source.alt[o], source.line[o]
        target.start[o], target.off[o] = source.start[o], source.off[o]
    for line in range(len(source.placed)):
        target.placed[line] = source.placed[line]
        for i in range(source.placed[line]):
            target.order[line, i] = source.order[line, i]
    for j in range(len(source.ends)):
        target.ends[j] = source.ends[j]
    for t in range(source.load.shape[1]):
        for k in range(source.load.shape[0]):
            target.load[k, t] = source.load[k, t]
        for c in range(source.busy.shape[0]):
            target.busy[c, t] = source.busy[c, t]
    target.money[0] = source.money[0]
