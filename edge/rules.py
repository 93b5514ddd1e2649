"""What a value may be, and what a series may do over time: the rules beside the outlier filter.

Each rule looks at the cells that may be trusted so far, (N,) bool, and returns the cells it objects to; the pipeline
says what follows from that. Only `unmoved` remembers anything, the run a series ends in.
"""

from __future__ import annotations

import numpy as np

from edge.block import NO_CELLS, Block, Bools, Ints
from edge.catalogue import Catalogue
from edge.memory import NEVER, LastGood, Memory

NOISE_SIGMAS = 4.0 * 2**0.5
"""Slack of a difference of two noisy values, in standard deviations of one."""


def possible(block: Block, catalogue: Catalogue) -> Bools:
    """(N,) whether a sensor can have measured the value: within its range, and whole when it is a code."""
    series, value, lengths = block.series, block.value, block.lengths
    valid = (value >= catalogue.low[series].repeat(lengths)) & (value <= catalogue.high[series].repeat(lengths))
    code = catalogue.code[series]
    if code.any():
        codes = code[block.segment].nonzero()[0]
        valid[codes] &= value[codes] == np.rint(value[codes])
    return valid


def decreases(block: Block, trusted: Bools, catalogue: Catalogue, prior: LastGood) -> tuple[Ints, Ints]:
    """Counters: cells of lone glitches (to be replaced), and cells where the counter fell (to be flagged).

    A value that breaks the order while its neighbours keep it is the glitch; otherwise the counter itself fell, and
    counts on from there.
    """
    counter = catalogue.counter[block.series]
    if not counter.any():
        return NO_CELLS, NO_CELLS
    where = (trusted & counter[block.segment]).nonzero()[0]
    v, seg = block.value[where], block.segment[where]
    first = _first(seg)
    previous = np.empty_like(v)
    previous[1:] = v[:-1]
    # A late row from before the last good value is rightly below it.
    known = (prior.at[seg] > NEVER) & (prior.at[seg] < block.time[where])
    previous[first] = np.where(known, prior.value[seg], -np.inf)[first]
    falls = np.flatnonzero(v < previous)
    glitches, drops = list[int](), list[int]()
    for i in falls.tolist():
        low, high = previous[i], v[i]
        before_previous = previous[i - 1] if not first[i] else np.inf
        after = v[i + 1] if i + 1 < len(v) and not first[i + 1] else -np.inf
        if not first[i] and high >= before_previous and before_previous > -np.inf:
            glitches.append(i - 1)
        elif after >= low:
            glitches.append(i)
        else:
            drops.append(i)
    return where[np.array(glitches, np.int64)], where[np.array(drops, np.int64)]


def too_fast(block: Block, trusted: Bools, catalogue: Catalogue, prior: LastGood) -> Ints:
    """Cells further from the last good value than the fastest change and the noise allow.

    The allowance grows with the time since that value, so a true shift is believed in the end.
    """
    rate_per_s, noise = catalogue.rate_per_s[block.series], catalogue.stated_noise[block.series]
    limited = np.isfinite(rate_per_s)
    if not limited.any():
        return NO_CELLS
    where = (trusted & limited[block.segment]).nonzero()[0]
    v, t, seg = block.value[where], block.time[where], block.segment[where]
    first = _first(seg)
    previous, previous_at = np.empty_like(v), np.empty_like(t)
    previous[1:], previous_at[1:] = v[:-1], t[:-1]
    previous[first], previous_at[first] = prior.value[seg[first]], prior.at[seg[first]]
    seconds = np.abs(t - previous_at) * 1e-6
    allowed = rate_per_s[seg] * seconds + NOISE_SIGMAS * noise[seg]
    suspects = np.flatnonzero((np.abs(v - previous) > allowed) & (previous_at > NEVER)).tolist()
    fast = list[int]()
    done = -1
    # Each suspect is certain only if the value before it is good; behind a wrong value the comparison
    # goes on with the last good one until a value agrees with it again.
    for i in suspects:
        if i <= done:
            continue
        good, good_at, s = float(previous[i]), int(previous_at[i]), int(seg[i])
        rate, slack = float(rate_per_s[s]), NOISE_SIGMAS * float(noise[s])
        while i < len(v) and seg[i] == s and abs(float(v[i]) - good) > rate * abs(int(t[i]) - good_at) * 1e-6 + slack:
            fast.append(i)
            i += 1
        # The first good one again differs from the wrong value before it, which says nothing against it.
        done = i if i < len(v) and seg[i] == s else i - 1
    return where[np.array(fast, np.int64)]


def unmoved(block: Block, trusted: Bools, catalogue: Catalogue, memory: Memory) -> Ints:
    """Cells in a run of equal values that lasts as long as no live sensor's would; the memory learns how runs end.

    The first value of a run was live, so it is not among them.
    """
    after_us = catalogue.stuck_us[block.series]
    watched = after_us > 0
    if not watched.any():
        return NO_CELLS
    where = (trusted & watched[block.segment]).nonzero()[0]
    v, t, seg = block.value[where], block.time[where], block.segment[where]
    run, run_at = memory.run[block.series], memory.run_at[block.series]
    n = len(v)
    first = _first(seg)
    last = np.ones(n, np.bool_)
    last[:-1] = first[1:]
    ended = block.series[seg[last]]
    same = np.empty(n, np.bool_)
    same[1:] = v[1:] == v[:-1]
    same[first] = v[first] == run[seg[first]]
    if not same.any():
        memory.run[ended], memory.run_at[ended] = v[last], t[last]
        return NO_CELLS
    anchor = first | ~same
    here = np.arange(n)
    anchors = anchor.nonzero()[0]
    begin = np.maximum.accumulate(np.where(anchor, here, 0))
    began_at = np.where(same & first, run_at[seg], t)[begin]
    final = np.append(anchors[1:], n)[anchor.cumsum() - 1] - 1
    memory.run[ended], memory.run_at[ended] = v[last], began_at[last]
    return where[np.flatnonzero(same & (t[final] - began_at >= after_us[seg]))]


def _first(segment: Ints) -> Bools:
    """Which of these cells are the first of their segment."""
    first = np.ones(len(segment), np.bool_)
    first[1:] = segment[1:] != segment[:-1]
    return first
