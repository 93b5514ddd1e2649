"""What a series may do over time, and what stands in for values that it may not: the rules beside the outlier filter.

Dimensions: N cells of all series, one series behind the other, each in the order of its times; `segment` (N,) says
which of the call's S series a cell belongs to. All functions are pure; `prior_*` (S,) is what was known before.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.memory import NEVER

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

HOLD_US = 900_000_000
"""A value may stand in for a missing one for 15 min, not longer."""
NOISE_SIGMAS = 4.0 * 2**0.5
"""Slack of a difference of two noisy values, in standard deviations of one."""


def decreases(
    where: Ints, segment: Ints, values: Floats, times: Ints, prior: Floats, prior_at: Ints
) -> tuple[Ints, Ints]:
    """Counters: cells of lone glitches (to be replaced), and cells where the counter fell (to be flagged).

    where (C,) cells of counters that may be trusted so far. A value that breaks the order while its neighbours keep it
    is the glitch; otherwise the counter itself fell, and counts on from there.
    """
    v, seg = values[where], segment[where]
    first = np.ones(len(v), np.bool_)
    first[1:] = seg[1:] != seg[:-1]
    previous = np.empty_like(v)
    previous[1:] = v[:-1]
    # A late row from before the last good value is rightly below it.
    known = (prior_at[seg] > NEVER) & (prior_at[seg] < times[where])
    previous[first] = np.where(known, prior[seg], -np.inf)[first]
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


def too_fast(
    where: Ints,
    segment: Ints,
    values: Floats,
    times: Ints,
    rate_per_s: Floats,
    noise: Floats,
    prior: Floats,
    prior_at: Ints,
) -> Ints:
    """Cells of `where` that lie further from the last good value than `rate_per_s` (S,) and `noise` (S,) allow.

    The allowance grows with the time since that value, so a true shift is believed in the end.
    """
    v, t, seg = values[where], times[where], segment[where]
    first = np.ones(len(v), np.bool_)
    first[1:] = seg[1:] != seg[:-1]
    previous, previous_at = np.empty_like(v), np.empty_like(t)
    previous[1:], previous_at[1:] = v[:-1], t[:-1]
    previous[first], previous_at[first] = prior[seg[first]], prior_at[seg[first]]
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


def unmoved(where: Ints, segment: Ints, values: Floats, times: Ints, after_us: Ints, run: Floats, run_at: Ints) -> Ints:
    """Cells of `where` in a run of equal values that lasts `after_us` (S,) or longer.

    The first value of a run was live, so it is not among them. Brings `run`, `run_at` (S,) up to date, in place.
    """
    v, t, seg = values[where], times[where], segment[where]
    n = len(v)
    first = np.ones(n, np.bool_)
    first[1:] = seg[1:] != seg[:-1]
    last = np.ones(n, np.bool_)
    last[:-1] = first[1:]
    same = np.empty(n, np.bool_)
    same[1:] = v[1:] == v[:-1]
    same[first] = v[first] == run[seg[first]]
    if not same.any():
        run[seg[last]], run_at[seg[last]] = v[last], t[last]
        return where[:0]
    anchor = first | ~same
    here = np.arange(n)
    anchors = anchor.nonzero()[0]
    begin = np.maximum.accumulate(np.where(anchor, here, 0))
    began_at = np.where(same & first, run_at[seg], t)[begin]
    final = np.append(anchors[1:], n)[anchor.cumsum() - 1] - 1
    run[seg[last]], run_at[seg[last]] = v[last], began_at[last]
    return where[np.flatnonzero(same & (t[final] - began_at >= after_us[seg]))]


def estimates(
    holes: Ints,
    sources: Ints,
    segment: Ints,
    values: Floats,
    times: Ints,
    whole: Bools,
    prior: Floats,
    prior_at: Ints,
) -> Floats:
    """A value for each of `holes` (H,) from `sources` (ascending cells), NaN where nothing near enough is known.

    Between two sources a straight line, beside one its value, if the nearer is at most `HOLD_US` away. Series that are
    `whole` (S,) numbers hold the value before and look at nothing after.
    """
    seg, t = segment[holes], times[holes]
    place = sources.searchsorted(holes)
    before, after = place - 1, place
    if len(sources):
        left, right = sources[np.maximum(before, 0)], sources[np.minimum(after, len(sources) - 1)]
        has_left = (before >= 0) & (segment[left] == seg)
        has_right = (after < len(sources)) & (segment[right] == seg) & ~whole[seg]
        left_at, left_value = (
            np.where(has_left, times[left], prior_at[seg]),
            np.where(has_left, values[left], prior[seg]),
        )
        right_at, right_value = times[right], values[right]
    else:
        left_at, left_value = prior_at[seg], prior[seg]
        right_at, right_value, has_right = left_at, left_value, np.zeros(len(holes), np.bool_)
    has_left = (left_at > NEVER) & (left_at <= t)
    left_age = np.where(has_left, t - left_at, HOLD_US + 1)
    right_age = np.where(has_right, right_at - t, HOLD_US + 1)
    near = np.minimum(left_age, right_age) <= HOLD_US
    span = np.maximum(left_age + right_age, 1)
    weight = np.where(has_left & has_right, left_age / span, np.where(has_left, 0.0, 1.0))
    # 0 · inf would be NaN; sources are finite, so both products are.
    line = left_value * (1.0 - weight) + right_value * weight
    return np.where(near & (has_left | has_right), line, np.nan)
