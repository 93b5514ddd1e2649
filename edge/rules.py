"""What a value may be, and what a series may do over time: the rules beside the outlier filter.

Each rule looks at the trace of cells that may be trusted so far and returns the cells it objects to; the pipeline says
what follows from that. Only `unmoved` remembers anything, the run a series ends in.
"""

from __future__ import annotations

import numpy as np

from edge.block import NO_CELLS, Block, Bools, Floats, Ints, Trace
from edge.catalogue import Catalogue
from edge.memory import NEVER, LastGood, Memory

NOISE_SIGMAS = 4.0 * 2**0.5
"""Slack of a difference of two noisy values, in standard deviations of one."""


def possible(block: Block, catalogue: Catalogue) -> Bools:
    """(N,) whether a sensor can have measured the value: within its range, and whole when it is a code."""
    series, value, lengths = block.series, block.value, block.lengths
    valid = (value >= catalogue.low[series].repeat(lengths)) & (value <= catalogue.high[series].repeat(lengths))
    code = catalogue.code[series]
    if np.count_nonzero(code):
        codes = code[block.segment].nonzero()[0]
        valid[codes] &= value[codes] == np.rint(value[codes])
    return valid


def decreases(block: Block, trace: Trace, catalogue: Catalogue, prior: LastGood) -> tuple[Ints, Ints]:
    """Counters: cells of lone glitches (to be replaced), and cells where the counter fell (to be flagged).

    A value that breaks the order while its neighbours keep it is the glitch; otherwise the counter itself fell, and
    counts on from there.
    """
    counter = catalogue.counter[block.series]
    if not np.count_nonzero(counter):
        return NO_CELLS, NO_CELLS
    v, seg, full = trace.value, trace.segment, trace.full
    falls = (v[1:] < v[:-1]).nonzero()[0] + 1
    falls = falls[counter[seg[falls]]]
    falls = falls[seg[falls] == seg[falls - 1]]
    full = full[counter[full]]
    first = trace.bounds[full]
    # A late row from before the last good value is rightly below it.
    earlier = (prior.at[full] > NEVER) & (prior.at[full] < block.time[trace.cell[first]])
    opening = np.where(earlier, prior.value[full], -np.inf)
    below = first[v[first] < opening]
    if not len(falls) and not len(below):
        return NO_CELLS, NO_CELLS
    falls = np.concatenate((falls, below))
    falls.sort()
    starts = dict(zip(first.tolist(), opening.tolist(), strict=True))
    glitches, drops = list[int](), list[int]()
    for i in falls.tolist():
        low, high = starts.get(i, v[i - 1]), v[i]
        before_previous = np.inf if i in starts else starts.get(i - 1, v[i - 2])
        after = v[i + 1] if i + 1 < len(v) and seg[i + 1] == seg[i] else -np.inf
        if i not in starts and high >= before_previous and before_previous > -np.inf:
            glitches.append(i - 1)
        elif after >= low:
            glitches.append(i)
        else:
            drops.append(i)
    return trace.cell[np.array(glitches, np.int64)], trace.cell[np.array(drops, np.int64)]


def too_fast(block: Block, trace: Trace, catalogue: Catalogue, prior: LastGood, memory: Memory) -> Ints:
    """Cells further from the last good value than the fastest change and the noise allow.

    The allowance grows with the time since that value, so a true shift is believed in the end. The noise is what the
    plant file states, or what was learned where that is more.
    """
    rate_per_s = catalogue.rate_per_s[block.series]
    limited = catalogue.limited[block.series]
    if not np.count_nonzero(limited):
        return NO_CELLS
    noise = np.maximum(catalogue.stated_noise[block.series], memory.spread[block.series])
    slack = np.where(limited, NOISE_SIGMAS * noise, np.inf)
    v, seg, cell = trace.value, trace.segment, trace.cell
    first = _firsts(trace)
    # Most changes are within the noise: times are looked at only for the others.
    far = (np.abs(v[1:] - v[:-1]) > slack.repeat(trace.bounds[1:] - trace.bounds[:-1])[1:]).nonzero()[0] + 1
    far = far[seg[far] == seg[far - 1]]
    full = trace.full
    opening = first[(np.abs(v[first] - prior.value[full]) > slack[full]) & (prior.at[full] > NEVER)]
    suspects = np.concatenate((far, opening))
    suspects.sort()
    fast = list[int]()
    done = -1
    # Each suspect is certain only if the value before it is good; behind a wrong value the comparison
    # goes on with the last good one until a value agrees with it again.
    for i in suspects.tolist():
        if i <= done:
            continue
        s = int(seg[i])
        end = int(trace.bounds[s + 1])
        if i == trace.bounds[s]:
            good, good_at = float(prior.value[s]), int(prior.at[s])
        else:
            good, good_at = float(v[i - 1]), int(block.time[cell[i - 1]])
        if abs(float(v[i]) - good) <= rate_per_s[s] * abs(int(block.time[cell[i]]) - good_at) * 1e-6 + slack[s]:
            continue
        back = _back(v[i:end], block.time[cell[i:end]] - good_at, good, float(rate_per_s[s]), float(slack[s]))
        fast.extend(range(i, i + back))
        # The first good one again differs from the wrong value before it, which says nothing against it.
        done = min(i + back, end - 1)
    return cell[np.array(fast, np.int64)]


def _back(values: Floats, later_us: Ints, good: float, rate_per_s: float, slack: float) -> int:
    """How many of `values` pass before the first that can have come from `good`."""
    few = 4
    while True:
        possible = np.abs(values[:few] - good) <= rate_per_s * np.abs(later_us[:few]) * 1e-6 + slack
        if possible.any():
            return int(possible.argmax())
        if few >= len(values):
            return len(values)
        few *= 8


def unmoved(block: Block, trace: Trace, catalogue: Catalogue, memory: Memory) -> Ints:
    """Cells in a run of equal values that lasts as long as no live sensor's would; the memory learns how runs end.

    The first value of a run was live, so it is not among them. A value at an end of its range may rest there, as the
    power of a machine that is off.
    """
    full = trace.full
    full = full[catalogue.stuck_us[block.series[full]] > 0]
    if not len(full):
        return NO_CELLS
    series, first, last = block.series[full], trace.bounds[full], trace.bounds[full + 1] - 1
    v = trace.value
    same = np.empty(len(v), np.bool_)
    same[1:] = v[1:] == v[:-1]
    same[trace.bounds[trace.full]] = False
    same[first] = v[first] == memory.run[series]
    if not np.count_nonzero(same):
        memory.run[series], memory.run_at[series] = v[last], block.time[trace.cell[last]]
        return NO_CELLS
    pairs = np.zeros(len(v) + 1, np.int64)
    same.cumsum(out=pairs[1:])
    runs = pairs[last + 1] > pairs[first]
    plain = ~runs
    memory.run[series[plain]] = v[last[plain]]
    memory.run_at[series[plain]] = block.time[trace.cell[last[plain]]]
    if not np.count_nonzero(runs):
        return NO_CELLS
    # Few series hold equal neighbours; of those every value belongs to a run, most to one of its own.
    series, first, last = series[runs], first[runs], last[runs]
    counts = last - first + 1
    ends = counts.cumsum()
    of = np.arange(len(series)).repeat(counts)
    here = np.arange(len(of)) + (first - ends + counts)[of]
    same, v, at = same[here], v[here], block.time[trace.cell[here]]
    opening = same[ends - counts]
    anchor = ~same
    anchor[ends - counts] = True
    anchors = anchor.nonzero()[0]
    began_at, owner = at[anchors], of[anchors]
    carried = (ends - counts)[opening]
    began_at[anchors.searchsorted(carried)] = memory.run_at[series[opening]]
    final = np.append(anchors[1:], len(of)) - 1
    closing = anchors.searchsorted(ends - 1, "right") - 1
    memory.run[series], memory.run_at[series] = v[ends - 1], began_at[closing]
    long = at[final] - began_at >= catalogue.stuck_us[series[owner]]
    long &= (v[anchors] > catalogue.low[series[owner]]) & (v[anchors] < catalogue.high[series[owner]])
    stuck: Ints = trace.cell[here[same & long[anchor.cumsum() - 1]]]
    return stuck


def _firsts(trace: Trace) -> Ints:
    """Of the segments that have cells, the place of the first."""
    return trace.bounds[trace.full]
