"""Compiled: the cheapest starts under differences, exactly, as a minimum cut.

    starts = cheapest_starts(cost_first, cost, low, high, tail, head, lag)

Minimise sum_i cost_i(s_i) where low_i <= s_i <= high_i and s_head >= s_tail + lag for every arc; costs are any
functions of the start. One node per (variable, tick) stands for "starts at this tick or later"; cutting the chain of a
variable between two ticks chooses its start, an arc of endless capacity keeps a difference (Möhring, Schulz, Stork,
Uetz, "Solving project scheduling problems by minimum cut computations", Management Science 49(3), 2003). The flow is
found by push and relabel, first in first out, with global relabelling; costs are scaled to integers (`SCALE` steps in
all), so the sum is exact to one part in 10^9.

Dimensions: V variables, D arcs; the costs of variable i lie in cost[cost_first[i] : cost_first[i + 1]], from low_i on.
"""

from __future__ import annotations

import numpy as np

from cloud.scheduling.arrays import fill
from cloud.scheduling.compiled import compiled
from cloud.scheduling.shop import Floats, Indices, Ints

SCALE = 2.0**40


@compiled
def tighten(low: Ints, high: Ints, tail: Indices, head: Indices, lag: Ints) -> bool:
    """Narrow the windows to what the arcs leave of them; False: nothing is left."""
    for _ in range(len(low) + 1):
        changed = False
        for d in range(len(tail)):
            i, j = tail[d], head[d]
            if low[i] + lag[d] > low[j]:
                low[j] = low[i] + lag[d]
                changed = True
            if high[j] - lag[d] < high[i]:
                high[i] = high[j] - lag[d]
                changed = True
        if not changed:
            break
    for i in range(len(low)):
        if low[i] > high[i]:
            return False
    return not changed


@compiled
def cheapest_starts(
    cost_first: Ints, cost: Floats, low: Ints, high: Ints, tail: Indices, head: Indices, lag: Ints
) -> Ints:
    """(V,) the starts; windows must be tight (`tighten`), costs not negative."""
    count, arcs = len(low), len(tail)
    nodes = cost_first[count]
    top = 1e-300
    for i in range(count):
        top += cost[cost_first[i] : cost_first[i + 1]].max()
    chain = np.empty(
        nodes, np.int64
    )  # what can still flow from a tick of a variable to the next; the last: to the sink
    owner = np.empty(nodes, np.int32)
    for i in range(count):
        for v in range(cost_first[i], cost_first[i + 1]):
            chain[v] = np.int64(cost[v] / top * SCALE)
            owner[v] = i
    flow_first = np.zeros(arcs + 1, np.int64)
    for d in range(arcs):
        flow_first[d + 1] = flow_first[d] + high[tail[d]] - low[tail[d]] + 1
    flow = np.zeros(flow_first[arcs], np.int64)
    out_first, out = _by(tail, count)
    in_first, into = _by(head, count)
    excess = np.zeros(nodes, np.int64)
    height = np.full(nodes, nodes, np.int64)
    queue, queued = np.empty(nodes + 1, np.int32), np.zeros(nodes, np.bool_)
    size = 0
    for i in range(count):
        v = cost_first[i]
        if v + 1 < cost_first[i + 1]:  # the first tick is the source: its arc is full from the beginning
            excess[v + 1] = chain[v]
            chain[v] = 0
            if excess[v + 1] > 0:
                queue[size] = v + 1
                queued[v + 1] = True
                size += 1
    _reach_sink(
        cost_first, chain, owner, low, high, tail, head, lag, flow_first, flow, out_first, out, in_first, into, height
    )
    begin, work = 0, 0
    room = nodes + 1
    while size:
        v = queue[begin]
        begin = (begin + 1) % room
        size -= 1
        queued[v] = False
        i = owner[v]
        t = low[i] + v - cost_first[i]
        while excess[v] > 0 and height[v] < nodes:
            lowest = nodes
            # to the next tick, or the sink
            last = v + 1 == cost_first[i + 1]
            if chain[v] > 0:
                there = 0 if last else height[v + 1]
                if height[v] == there + 1 or (last and height[v] >= 1):
                    amount = min(excess[v], chain[v])
                    chain[v] -= amount
                    excess[v] -= amount
                    if not last:
                        excess[v + 1] += amount
                        if not queued[v + 1]:
                            queue[(begin + size) % room] = v + 1
                            size += 1
                            queued[v + 1] = True
                    if excess[v] == 0:
                        break
                if chain[v] > 0:
                    lowest = min(lowest, there)
            # to later variables
            for x in range(out_first[i], out_first[i + 1]):
                d = out[x]
                j = head[d]
                w = cost_first[j] + t + lag[d] - low[j]
                if w <= cost_first[j]:
                    continue
                if height[v] == height[w] + 1:
                    flow[flow_first[d] + t - low[i]] += excess[v]
                    excess[w] += excess[v]
                    excess[v] = 0
                    if not queued[w]:
                        queue[(begin + size) % room] = w
                        size += 1
                        queued[w] = True
                    break
                lowest = min(lowest, height[w])
            if excess[v] == 0:
                break
            # back along arcs into this variable
            for x in range(in_first[i], in_first[i + 1]):
                d = into[x]
                h = tail[d]
                s = t - lag[d]
                if s <= low[h] or s > high[h]:
                    continue
                place = flow_first[d] + s - low[h]
                if flow[place] <= 0:
                    continue
                u = cost_first[h] + s - low[h]
                if height[v] == height[u] + 1:
                    amount = min(excess[v], flow[place])
                    flow[place] -= amount
                    excess[v] -= amount
                    excess[u] += amount
                    if not queued[u]:
                        queue[(begin + size) % room] = u
                        size += 1
                        queued[u] = True
                    if excess[v] == 0:
                        break
                if flow[place] > 0:
                    lowest = min(lowest, height[u])
            if excess[v] == 0:
                break
            # back to the tick before: endless, so that a chain is cut once
            if v - 1 > cost_first[i]:
                if height[v] == height[v - 1] + 1:
                    chain[v - 1] += excess[v]
                    excess[v - 1] += excess[v]
                    excess[v] = 0
                    if not queued[v - 1]:
                        queue[(begin + size) % room] = v - 1
                        size += 1
                        queued[v - 1] = True
                    break
                lowest = min(lowest, height[v - 1])
            height[v] = max(height[v] + 1, min(lowest + 1, nodes))
            work += 1
            if work % (2 * nodes) == 0:
                _reach_sink(
                    cost_first, chain, owner, low, high, tail, head, lag, flow_first, flow, out_first, out, in_first,
                    into, height,
                )  # fmt: skip
    _reach_sink(
        cost_first, chain, owner, low, high, tail, head, lag, flow_first, flow, out_first, out, in_first, into, height
    )
    starts = low.copy()
    for i in range(count):
        for v in range(cost_first[i] + 1, cost_first[i + 1]):
            if height[v] >= nodes:  # on the side of the source: starts at this tick or later
                starts[i] = low[i] + v - cost_first[i]
    return starts


@compiled
def _by(keys: Indices, count: int) -> tuple[Ints, Indices]:
    """Arcs grouped by a variable: (where each group begins, the arcs)."""
    first = np.zeros(count + 1, np.int64)
    for one in keys:
        first[one + 1] += 1
    for i in range(count):
        first[i + 1] += first[i]
    place, found = first.copy(), np.empty(len(keys), np.int32)
    for d in range(len(keys)):
        found[place[keys[d]]] = d
        place[keys[d]] += 1
    return first, found


@compiled
def _reach_sink(
    cost_first: Ints, chain: Ints, owner: Indices, low: Ints, high: Ints, tail: Indices, head: Indices, lag: Ints,
    flow_first: Ints, flow: Ints, out_first: Ints, out: Indices, in_first: Ints, into: Indices, height: Ints,
) -> None:  # fmt: skip
    """Heights become distances to the sink along what can still flow; V where there is no way."""
    nodes = len(chain)
    fill(height, nodes)
    queue = np.empty(nodes, np.int32)
    begin, end = 0, 0
    for i in range(len(low)):
        v = cost_first[i + 1] - 1
        if chain[v] > 0 and v > cost_first[i]:
            height[v] = 1
            queue[end] = v
            end += 1
    while begin < end:
        w = queue[begin]
        begin += 1
        i = owner[w]
        t = low[i] + w - cost_first[i]
        far = height[w] + 1
        if w - 1 > cost_first[i] and chain[w - 1] > 0 and height[w - 1] == nodes:
            height[w - 1] = far
            queue[end] = w - 1
            end += 1
        if w + 1 < cost_first[i + 1] and height[w + 1] == nodes:
            height[w + 1] = far
            queue[end] = w + 1
            end += 1
        for x in range(in_first[i], in_first[i + 1]):
            d = into[x]
            h = tail[d]
            s = t - lag[d]
            if low[h] < s <= high[h]:
                u = cost_first[h] + s - low[h]
                if height[u] == nodes:
                    height[u] = far
                    queue[end] = u
                    end += 1
        for x in range(out_first[i], out_first[i + 1]):
            d = out[x]
            if flow[flow_first[d] + t - low[i]] > 0:
                j = head[d]
                u = cost_first[j] + t + lag[d] - low[j]
                if u > cost_first[j] and height[u] == nodes:
                    height[u] = far
                    queue[end] = u
                    end += 1
