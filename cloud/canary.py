"""Whether a candidate is worse than the incumbent: judged at every report, and right at all of them together.

    tally = tally_of(None, paired, level=21.0, session=…)     # what one canary node said; then tally_of(tally, …)
    decide({"s1/humid": tally, …}, CanaryTest(margin=0.05))    # go_on, worse, as_good or inconclusive

A canary decides in pairs of blocks, one by each version, in an order thrown by a fair coin. Were both versions equal,
what happened would not depend on the coins: the differences D of block means would have random signs, whatever their
size. So E exp(λD - λ²D²/2) <= 1 for every λ (de la Peña 1999, Ann. Probab. 27, 537-564), however heavy the tails of the
reward and however long its memory. With λ mixed over a half-normal the product over pairs is a martingale-like course M
that exceeds 1/alpha at *any* time with probability alpha at most (Ville; Howard, Ramdas, McAuliffe and Sekhon 2020,
Probab. Surveys 17, 257-317). It needs only the sum of D and of D². Half of M is that of all canaries together, each in
units of its own spread, half the mean of those of each node: a release that harms one cell alone is found, too.

Carbon is a constraint, and has a course of its own, of the same kind: a candidate that is found to emit more than the
incumbent, by at least `more` and beyond its node's limit, is not let through, whatever it earns. Where nodes name no
limit there is none. So an equal candidate is ever rolled back with probability 2 alpha at most.

*As good*: the same test, turned round, of D + margin. It assumes that a candidate shifts what a block yields; what one
version leaves to the next block blurs the difference, which costs time but no false alarm. Where a candidate is beyond
its node's limit of carbon it must be as good there, too: not `more` than the incumbent. At most `most_pairs` pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from messages.learning import Paired
from messages.settings import Section

Decision = Literal["go_on", "worse", "emits_more", "as_good", "inconclusive"]

FIRST = 16
"""Pairs of a node from which its spread is taken; before that it does not count."""
ABSURD = 1e15
"""A difference, as share of the incumbent's mean, beyond which nothing more is said of it: that mean is about zero."""
LEAST_SPREAD = 1e-30
"""Of differences; smaller ones are none, and their squares would be zero."""
PRIOR = 10.0
"""Precision of λ, in pairs: the test is sharpest after about 13 times as many."""


class CanaryTest(Section):
    """When a candidate has been seen long enough."""

    alpha: float = Field(
        0.005, gt=0, lt=0.5, description="chance that an equal one is ever called worse; again in carbon"
    )
    beta: float = Field(0.05, gt=0, lt=0.5, description="chance that one worse by the margin is ever called as good")
    margin: float = Field(0.05, gt=0, le=1, description="share of the incumbent's mean return a candidate may lose")
    margin_least: float = Field(0.0, ge=0, description="the same in units of return, where the mean is near 0")
    more: float = Field(
        0.1, gt=0, le=10, description="share of the limit, or of the incumbent's carbon, a candidate beyond it may add"
    )
    most_pairs: int = Field(20_000, ge=FIRST, le=10**9, description="pairs of all canaries; then it is inconclusive")

    def loss(self, tally: Tally) -> float:
        """Return per decision that a candidate may lose on this node."""
        return max(self.margin_least, self.margin * abs(tally.level))


class Carbon(NamedTuple):
    """What a canary says of carbon, kg per decision."""

    limit: float
    incumbent: float
    candidate: float


class Tally(BaseModel):
    """What one canary said: `pairs`, `mean` and `m2` since it runs the candidate, over all its sessions."""

    model_config = ConfigDict(frozen=True)

    pairs: int = 0
    mean: float = 0.0
    m2: float = 0.0
    spread: float = 0.0
    """root mean square of the differences when `FIRST` pairs were there, then fixed; 0: not yet"""
    level: float = 0.0
    """mean return per decision of the incumbent here"""
    session: str = ""
    """of the node; it counts anew in each"""
    counted: int = 0
    """pairs of this session"""
    before: tuple[int, float, float] = (0, 0.0, 0.0)
    """pairs, mean and m2 of the sessions before"""
    saved: Tally | None = None
    """the same of carbon that the candidate does not emit, `level` the limit, or what the incumbent emits if that is
    more; None where the node has no limit"""
    emits: float = 0.0
    """mean carbon per decision of the candidate,"""
    limit: float = 0.0
    """and what is allowed"""

    @property
    def beyond(self) -> bool:
        """Does the candidate emit more than is allowed here?"""
        return self.saved is not None and self.emits > self.limit


class Verdict(NamedTuple):
    """What the pairs say so far. `difference`, `low`, `high`: share of the incumbent's mean, None where that is 0."""

    decision: Decision
    pairs: int
    difference: float | None
    low: float | None
    """a greater loss is excluded, at `beta`"""
    high: float | None
    """a greater gain is excluded, at `alpha`"""


def tally_of(tally: Tally | None, paired: Paired, *, level: float, session: str, carbon: Carbon | None = None) -> Tally:
    """The tally after a report; what was said in sessions before is added, or before the count began anew."""
    old = tally or Tally()
    goes_on = session == old.session and paired.pairs >= old.counted
    before = old.before if goes_on else (old.pairs, old.mean, old.m2)
    pairs, mean, m2 = _together(before, (paired.pairs, paired.mean, paired.m2))
    spread = old.spread
    if not spread and pairs >= FIRST:  # the signs say nothing here, so the test stays as right as it was
        spread = math.sqrt(m2 / pairs + mean * mean)
        spread = spread if spread >= LEAST_SPREAD else 0.0
    found = Tally(
        pairs=pairs, mean=mean, m2=m2, spread=spread, level=level, session=session, counted=paired.pairs, before=before
    )
    if carbon is None:
        return found
    less = paired.model_copy(update={"mean": -paired.cost, "m2": paired.cost_m2})
    saved = tally_of(old.saved, less, level=max(carbon.limit, carbon.incumbent), session=session)
    return found.model_copy(update={"saved": saved, "emits": carbon.candidate, "limit": carbon.limit})


def decide(tallies: Mapping[str, Tally], test: CanaryTest) -> Decision:
    """What to do with the candidate. `tallies`: of every canary, also of those that said nothing yet."""
    counted = [one for one in tallies.values() if one.spread > 0]
    if counted and _worse(counted, lambda _: 0.0) >= -math.log(test.alpha):
        return "worse"
    saved = [one.saved for one in tallies.values() if one.saved is not None and one.saved.spread > 0]
    if _much_more(tallies, test) and _worse(saved, lambda _: 0.0) >= -math.log(test.alpha):
        return "emits_more"
    heard = all(one.pairs >= FIRST for one in tallies.values())  # who went silent never lets a release through
    clean = not any(one.beyond for one in tallies.values()) or _enough_saved(saved, test)
    if counted and heard and clean and _better(counted, test.loss) >= -math.log(test.beta):
        return "as_good"
    return "inconclusive" if sum(one.pairs for one in tallies.values()) >= test.most_pairs else "go_on"


def judge(tallies: Mapping[str, Tally], test: CanaryTest) -> Verdict:
    """The decision, and what people want to know of it."""
    decision, pairs = decide(tallies, test), sum(one.pairs for one in tallies.values())
    counted = [one for one in tallies.values() if one.spread > 0]
    total = math.fsum(one.pairs * abs(one.level) / one.spread for one in counted)
    if not total:
        return Verdict(decision, pairs, None, None, None)
    difference = math.fsum(one.pairs * one.mean / one.spread for one in counted) / total
    if not abs(difference) < ABSURD:
        return Verdict(decision, pairs, None, None, None)
    low = _least(lambda x: _better(counted, lambda one: x * abs(one.level)) >= -math.log(test.beta), -difference)
    high = _least(lambda x: _worse(counted, lambda one: x * abs(one.level)) >= -math.log(test.alpha), difference)
    return Verdict(decision, pairs, difference, None if low is None else -low, high)


def log_evidence(total: float, squares: float) -> float:
    """log M of a course whose sum should not be positive.

    2 sqrt(r/(V+r)) exp(T²/(2(V+r))) Phi(T/sqrt(V+r)) with T = `total`, V = `squares`, r = `PRIOR`.

    >>> log_evidence(0.0, 0.0)
    0.0
    """
    room = squares + PRIOR
    z = total / math.sqrt(room)
    tail = -math.log(-z * math.sqrt(math.pi / 2)) if z < -8 else z * z / 2 + math.log(math.erfc(-z / math.sqrt(2)))
    return 0.5 * math.log(PRIOR / room) + tail  # far below 0 erfc leaves the range of floats, its product with exp not


def _much_more(tallies: Mapping[str, Tally], test: CanaryTest) -> bool:
    """Is a canary beyond its limit, and emits so much more than with the incumbent? It only narrows what the test
    says, so that is as right as it was."""
    found = [one.saved for one in tallies.values() if one.beyond]
    return any(one is not None and one.spread > 0 and -one.mean >= test.more * abs(one.level) for one in found)


def _enough_saved(saved: list[Tally], test: CanaryTest) -> bool:
    """Is it excluded, at `beta`, that the candidate emits `more`? Where it emits just the same there is no spread."""
    return not saved or _better(saved, lambda one: test.more * abs(one.level)) >= -math.log(test.beta)


Shift = Callable[[Tally], float]


def _worse(counted: list[Tally], by: Shift) -> float:
    """log M against "the candidate is better by this": all together and each alone."""
    sums = [_sums(one, -1, by(one)) for one in counted]
    pooled = log_evidence(math.fsum(t for t, _ in sums), math.fsum(v for _, v in sums))
    each = [log_evidence(*one) for one in sums]
    return _log_mean([pooled, _log_mean(each)])


def _better(counted: list[Tally], by: Shift) -> float:
    """log M against "the candidate is worse by this"."""
    sums = [_sums(one, 1, -by(one)) for one in counted]
    return log_evidence(math.fsum(t for t, _ in sums), math.fsum(v for _, v in sums))


def _sums(one: Tally, sign: int, origin: float) -> tuple[float, float]:
    """Sum, and sum of squares, of the differences from `origin` in units of the node's spread."""
    off = one.mean - origin
    return sign * one.pairs * off / one.spread, (one.m2 + one.pairs * off * off) / one.spread**2


def _together(a: tuple[int, float, float], b: tuple[int, float, float]) -> tuple[int, float, float]:
    """Count, mean and m2 of both batches (Chan, Golub and LeVeque 1983)."""
    count = a[0] + b[0]
    if not count:
        return 0, 0.0, 0.0
    off = b[1] - a[1]
    return count, a[1] + off * b[0] / count, a[2] + b[2] + off * off * a[0] * b[0] / count


def _log_mean(logs: list[float]) -> float:
    most = max(logs)
    return most + math.log(math.fsum(math.exp(one - most) for one in logs) / len(logs))


def _least(excluded: Callable[[float], bool], begin: float) -> float | None:
    """The least value above `begin` that is excluded, to 1e-4; None if none below `begin` + 16 is."""
    low, step = begin, 1 / 64
    while not excluded(low + step):
        low, step = low + step, 2 * step
        if step > 8:
            return None
    high = low + step
    while high - low > 1e-4:
        middle = (low + high) / 2
        if middle in (low, high):
            break  # neighbours: of large values none lies between them
        low, high = (low, middle) if excluded(middle) else (middle, high)
    return high
