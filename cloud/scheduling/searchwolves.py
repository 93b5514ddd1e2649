"""Compiled: a pack of grey wolves over random keys (S. Mirjalili et al., Advances in Engineering Software 69, 2014).

    hunted(shop, scratch, room, pack, best, terms, archive, now, trial, a, ours, seed)     # one iteration

A wolf is two keys per operation: ranked, the first ones give the order (ranked order value); the second chooses among
the alternatives. Dimensions as in `cloud.scheduling.searchkernel`; W wolves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cloud.scheduling.archive import Archive
from cloud.scheduling.arrays import fill, paste
from cloud.scheduling.compiled import compiled
from cloud.scheduling.decode import key_order
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.searchkernel import NEVER, STAY, Room, Trial, change, lay_out
from cloud.scheduling.searchwalk import Pool, Terms, rule_for, taken
from cloud.scheduling.shop import Floats, Shop

LEADERS = 3
LOCAL = 30
"""Steps of local search from the first wolf, each iteration (ours)."""
REACH = 4


class Pack(NamedTuple):
    """W wolves and room for two. Written to."""

    keys: Floats  # (W, 2 O) from 0 to 1
    cost: Floats  # (W,)
    candidate: Floats  # (2 O,)
    crossed: Floats  # (2 O,)


def pack_of(shop: Shop, wolves: int, rng: np.random.Generator) -> Pack:
    """Wolves anywhere; their cost is not known."""
    keys = 2 * len(shop.op_job)
    return Pack(rng.random((wolves, keys)), np.full(wolves, NEVER), np.zeros(keys), np.zeros(keys))


@compiled
def hunted(
    shop: Shop, scratch: Scratch, room: Room, pack: Pack, best: Pool, terms: Terms, archive: Archive, now: Trial,
    trial: Trial, a: float, ours: bool, seed: int,
) -> int:  # fmt: skip
    """One iteration: every wolf goes towards the three best. How many plans were laid out."""
    np.random.seed(seed)
    wolves, width = pack.keys.shape
    count = 0
    for w in range(wolves):
        if pack.cost[w] >= NEVER:
            pack.cost[w] = _laid_out(shop, scratch, room, pack.keys[w], best, terms, archive, trial, ours)
            count += 1
    leaders = np.argsort(pack.cost)[:LEADERS]
    leading = pack.keys[leaders].copy()
    for w in range(wolves):
        for k in range(width):
            to = 0.0
            for leader in range(len(leaders)):
                big_a = 2.0 * a * np.random.random() - a
                big_c = 2.0 * np.random.random()
                to += leading[leader, k] - big_a * abs(big_c * leading[leader, k] - pack.keys[w, k])
            pack.candidate[k] = min(max(to / len(leaders), 0.0), 1.0 - 1e-12)
        mate = np.random.randint(wolves)
        for k in range(width):
            pack.crossed[k] = pack.candidate[k] if np.random.random() < 0.5 else pack.keys[mate, k]
        cost = _laid_out(shop, scratch, room, pack.candidate, best, terms, archive, trial, ours)
        other = _laid_out(shop, scratch, room, pack.crossed, best, terms, archive, trial, ours)
        count += 2
        if ours and min(cost, other) > pack.cost[w]:
            continue
        pack.keys[w] = pack.candidate if cost <= other else pack.crossed
        pack.cost[w] = min(cost, other)
    if ours:
        count += _local_search(shop, scratch, room, pack, best, terms, archive, now, trial)
    return count


@compiled
def _laid_out(
    shop: Shop, scratch: Scratch, room: Room, keys: Floats, best: Pool, terms: Terms, archive: Archive, trial: Trial,
    ours: bool,
) -> float:  # fmt: skip
    count = len(trial.order)
    key_order(keys[:count], shop.job_first, trial.order)
    for o in range(count):
        options = shop.alt_first[o + 1] - shop.alt_first[o]
        key = keys[count + o]
        if not ours:
            trial.choice[o] = int(key * options)
        else:  # half of the choices by earliest completion
            trial.choice[o] = -1 if key < 0.5 else int((2.0 * key - 1.0) * options)
    cost = lay_out(shop, scratch, room, rule_for(terms, 0), trial, NEVER)
    if cost < 1e8:
        taken(terms, archive, best, trial, cost)
    return cost


@compiled
def _local_search(
    shop: Shop, scratch: Scratch, room: Room, pack: Pack, best: Pool, terms: Terms, archive: Archive, now: Trial,
    trial: Trial,
) -> int:  # fmt: skip
    """Better neighbours of the best wolf, which takes their place."""
    wolf = int(np.argmin(pack.cost))
    count = len(now.order)
    cost = _laid_out(shop, scratch, room, pack.keys[wolf], best, terms, archive, now, True)
    for _ in range(LOCAL):
        if change(shop, room, now, trial, REACH) == STAY:
            continue
        new = lay_out(shop, scratch, room, rule_for(terms, 0), trial, cost)
        if new > cost:
            continue
        if new < 1e8:
            taken(terms, archive, best, trial, new)
        cost = new
        paste(trial.order, now.order)
        paste(trial.choice, now.choice)
        paste(trial.machine, now.machine)
    fill(room.seen, 0)
    for i in range(count):
        j = now.order[i]
        o = shop.job_first[j] + room.seen[j]
        room.seen[j] += 1
        # ranked, keys name jobs: the i-th least key belongs to an operation of the i-th job in the order
        pack.keys[wolf, o] = (i + 0.5) / count
        options = shop.alt_first[o + 1] - shop.alt_first[o]
        pack.keys[wolf, count + o] = 0.5 + (now.choice[o] + 0.5) / (2.0 * options)
    pack.cost[wolf] = cost
    return LOCAL + 1
