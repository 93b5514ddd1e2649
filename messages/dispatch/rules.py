"""Rules of a foreman: which job goes where next, from the state alone.

    schedule = run(state, RULES["fifo"], Weights())

fifo    the part that has waited longest, on the machine that is done with it earliest
sjf     of the parts that could begin next (each on the machine that is done with it earliest), the shortest work
ljf     the longest
eq11    the part that has waited longest, on the machine of the least cost of carrying + cost of work × the machine's
        share of the load of those that could do it (doi 10.11959/j.issn.2096-3750.2025.00468, eq. 11; costs in ticks,
        load: the work its queue would hold)
greedy  the best bid of all: earliest end by the weights

Ties go to the first job, then the first machine, of the shop. Blocked awards are made only when there is no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from messages.dispatch.decode import Choice, Schedule, Weights
from messages.dispatch.shop import Step
from messages.dispatch.state import Bid, State

Rule = Callable[[State, Weights], Bid]


def run(state: State, rule: Rule, weights: Weights) -> Schedule:
    """All that is open in `state`, which is not changed, by `rule`."""
    board, bids = state.copy(), []
    while next(board.open(), None) is not None:
        bids.append(rule(board, weights))
        board.take(bids[-1])
    return Schedule(state, board, tuple(bids))


def revised(state: State, sequence: Iterable[Choice]) -> list[Choice]:
    """An older sequence for the state of now: what is done or cannot be is left out; what is missing follows, job after
    job, each step where it is done quickest. Where the older one had no faults, neither has this."""
    shop, found = state.shop, list[Choice]()
    following = {job: state.jobs[job].next for job in state.open()}
    for job, machine in sequence:
        if job in following and following[job] < len(shop.route[job]):
            able = shop.route[job][following[job]].ticks
            if machine in able:
                found.append((job, machine))
                following[job] += 1
    return [*found, *((job, quickest(step)) for job, n in following.items() for step in shop.route[job][n:])]


def quickest(step: Step) -> str:
    """The machine that needs the fewest ticks for it."""
    return min(step.ticks, key=step.ticks.__getitem__)


def fifo(state: State, weights: Weights) -> Bid:
    """See the module."""
    return min(_first_waiting(state), key=lambda bid: bid.end)


def eq11(state: State, weights: Weights) -> Bid:
    """See the module."""
    bids = _first_waiting(state)
    route = state.shop.route[bids[0].job][bids[0].op]
    queues = {machine: state.machines[machine].free for machine in route.ticks if machine in state.machines}
    load = {machine: max(0, queues.get(machine, 0) - state.now) for machine in route.ticks}

    def cost(bid: Bid) -> float:
        own = route.ticks[bid.machine]
        return bid.carried + own * (load[bid.machine] + own) / max(1, sum(load.values()) + own)

    return min(bids, key=cost)


def sjf(state: State, weights: Weights) -> Bid:
    """See the module."""
    return min(_could_begin_next(state), key=lambda bid: bid.end - bid.start)


def ljf(state: State, weights: Weights) -> Bid:
    """See the module."""
    return min(_could_begin_next(state), key=lambda bid: bid.start - bid.end)


def greedy(state: State, weights: Weights) -> Bid:
    """See the module."""
    shop = state.shop

    def cost(bid: Bid) -> float:
        value = (weights.makespan + weights.tardiness) * bid.end + weights.waiting * bid.waits
        if weights.rated:
            kw, carrier = shop.route[bid.job][bid.op].draws_kw(bid.machine), ""
            if bid.machine in shop.machines:
                carrier = shop.machines[bid.machine].carrier
            value += weights.energy * (kw * (bid.end - bid.start) / shop.hour_ticks)
            value += weights.carbon * shop.kg(carrier, kw, bid.start, bid.end)
        return value

    return min((bid for bids in _options(state) for bid in bids), key=cost)


RULES: Mapping[str, Rule] = {"fifo": fifo, "sjf": sjf, "ljf": ljf, "eq11": eq11, "greedy": greedy}


def _options(state: State) -> list[list[Bid]]:
    """Of every open job, the bids that are not blocked; all bids when there are only blocked ones."""
    every = [state.bids(job) for job in state.open()]
    able = [[bid for bid in bids if not bid.blocked] for bids in every]
    return [bids for bids in able if bids] or every


def _first_waiting(state: State) -> list[Bid]:
    """The bids for the part that has waited longest, of those that have any which is not blocked."""
    jobs = sorted(state.open(), key=state.since)
    for bids in map(state.bids, jobs):
        if able := [bid for bid in bids if not bid.blocked]:
            return able
    return state.bids(jobs[0])


def _could_begin_next(state: State) -> list[Bid]:
    """The best bids that begin first."""
    best = [min(bids, key=lambda bid: bid.end) for bids in _options(state)]
    first = min(bid.start for bid in best)
    return [bid for bid in best if bid.start == first]
