"""Who decides for a cell: from a sample to an action, without a disk, a network or a thread. Pure.

    agent = Agent(cell, models, newest, explore=0.05, explore_first=0.3, rng=rng, session=session)
    answer = agent.on_burst(burst, now)
    # answer.action to the cell, answer.transitions to the learner, answer.reports to the cloud

A sample is decided once: what was decided already, and what is older, decides nothing. The policy of the model whose
turn it is proposes, a random action of those that may go out takes its place with probability `explore`, and
`edge.safety` has the last word. Where nothing is released yet, the safe action is proposed (thrown ones with
probability `explore_first`, so that there is something to learn from). An action is valid until the cell's next step;
a sample that comes later than that is learned from, and decides nothing.

Two samples one step apart, of one boot, give a transition (state, what was really done, what it earned and emitted,
state after) and the outcome of the decision in between. After a gap, where a value is beyond its limits, or where the
cell's totals began anew, there is none. Limits are the device's: a value beyond them is not taken, what was known
before ages, and a policy that lacks a fresh value proposes nothing. Times are the device's own. Where the clock was
ahead and is put back by more than a step, the newest sample is of a time that is not yet: it is forgotten, with what
else was known of that time, and the next one is decided as the first of all is.

Bounds: `Newest` has one value per metric of the plant; an agent remembers one sample and one decision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edge.policy import F32, Choice, Latest
from edge.safety import Limits, Past, Scene, judge
from messages.cells import ACTIONS, DID, EARNED, EMITTED, INTERFACE
from messages.clock import SECOND
from messages.contracts import STATE_CODES, Action, Burst
from messages.learning import ModelReport
from messages.plant import Device, MetricSpec

if TYPE_CHECKING:
    from edge.models import Models, ModelTurn

_STATES = {code: word for word, code in STATE_CODES.items()}
_METRICS = tuple((one.metric, one.low, one.high - one.low) for one in INTERFACE.features)


@dataclass(frozen=True)
class Cell:
    """A device that a model decides for."""

    device: Device
    model: str
    step_us: int
    limits: Limits

    @property
    def name(self) -> str:
        """The device's."""
        return self.device.device


@dataclass(frozen=True, slots=True)
class Transition:
    """What an action brought, as a learner remembers it."""

    state: F32
    """(S,) scaled to 0…1"""
    action: int
    """index into ACTIONS: what was really done"""
    reward: float
    cost: float
    """carbon, kg"""
    after: F32


@dataclass(frozen=True, slots=True)
class Answer:
    """What a burst came to."""

    action: Action | None = None
    transitions: tuple[Transition, ...] = ()
    reports: tuple[ModelReport, ...] = ()
    """of a candidate that was taken back"""
    back_us: int = 0
    """the clock is so far behind what was decided last: it was put back"""


@dataclass(slots=True)
class Counts:
    """Since the start."""

    decisions: int = 0
    safe: int = 0
    """the safe action because nothing else was known or allowed"""
    explored: int = 0
    trips: int = 0
    transitions: int = 0
    late: int = 0
    """samples that came when their step was over"""
    ahead: int = 0
    """samples of a time that is not yet: the cell's clock, or this node's, is wrong"""
    again: int = 0
    """samples that had been decided, or are older than one that was"""
    gaps: int = 0
    """samples that did not follow on the one before"""
    set_back: int = 0
    """times the clock was put back by more than a step"""


class Sample(NamedTuple):
    """What a cell said at one time; what is not known is None."""

    at: int
    boot: str
    said: Mapping[str, float]
    """values within their limits"""
    state: F32 | None
    earned: float | None
    emitted: float | None
    did: int | None


class _Open(NamedTuple):
    """A decision whose outcome is not known yet."""

    at: int
    turn: ModelTurn


class Newest:
    """The newest value of every metric of these devices, as far as it is within its limits and in its own unit."""

    def __init__(self, devices: Iterable[Device]) -> None:
        self.devices = {device.device: device for device in devices}
        self.values: dict[tuple[str, str], tuple[int, float]] = {}
        """(device, metric) → (µs, value)"""

    def take(self, device: str, burst: Burst, until: int) -> None:
        """The newest sample of a burst, up to `until`: one of a clock that is ahead would silence what follows."""
        known = self.devices.get(device)
        places = [place for place, at in enumerate(burst.at) if burst.t0 + at <= until]
        if known is None or not places:
            return
        last = max(places, key=burst.at.__getitem__)
        self.put(device, burst.t0 + burst.at[last], dict(_sound(known, burst, last)), until)

    def put(self, device: str, at: int, said: Mapping[str, float], until: int) -> None:
        """What was said at one time, unless something newer is known that is not of a time after `until`."""
        for metric, value in said.items():
            before = self.values.get((device, metric))
            if before is None or before[0] < at or before[0] > until:
                self.values[device, metric] = at, value


@dataclass
class Agent:
    """One cell's."""

    cell: Cell
    models: Models
    newest: Newest
    explore: float
    explore_first: float
    rng: np.random.Generator
    session: str
    counts: Counts = field(default_factory=Counts)
    _last: Sample | None = None
    _open: _Open | None = None
    _past: Past = field(default_factory=Past)

    def on_burst(self, burst: Burst, now: int) -> Answer:
        """What the cell said; `now` is plant time, by which a sample may be too late or of a clock that is ahead."""
        newest, found, until = None, [], now + self.cell.step_us
        back = self._clock_back(now)
        for sample in samples(self.cell.device, burst):
            if sample.at > until:
                self.counts.ahead += 1
                continue
            if self._last is not None and sample.at <= self._last.at:
                self.counts.again += 1
                continue
            found += self._learn(sample)
            newest = self._last = sample
        if newest is None:
            return Answer(back_us=back)
        self.newest.put(self.cell.name, newest.at, newest.said, until)
        self.counts.transitions += len(found)
        if now >= newest.at + self.cell.step_us:
            self.counts.late += 1
            return Answer(transitions=tuple(found), back_us=back)
        action, reports = self._decide(newest, now)
        return Answer(action, tuple(found), reports, back)

    def _clock_back(self, now: int) -> int:
        """How far the clock was put back since the last sample, where that is more than a step; begin anew then."""
        last = self._last
        if last is None or last.at <= now + self.cell.step_us:
            return 0
        self._last = self._open = None  # what is in force stays: `edge.safety` knows what to do with its time
        self.counts.set_back += 1
        return last.at - now

    def _decide(self, sample: Sample, now: int) -> tuple[Action, tuple[ModelReport, ...]]:
        cell, models, latest = self.cell, self.models, self.newest.values
        turn = models.turn(cell.model)
        choice = turn.policy.choose(latest, sample.at, device=cell.name) if turn else Choice(None, "nothing runs yet")
        # Both are drawn in any case, so that the same seed throws the same, whatever is decided.
        thrown, which = self.rng.random(), int(self.rng.integers(len(cell.limits.actions)))
        wild = sample.state is not None and thrown < (self.explore if turn else self.explore_first)
        proposed = cell.limits.actions[which] if wild else choice.action
        verdict = judge(cell.limits, self._past, proposed, _scene(cell, sample.at, latest))
        self._past = verdict.past
        trip = verdict.trip and not wild  # what was thrown is nobody's fault
        counts = self.counts
        counts.decisions += 1
        counts.explored += wild
        counts.trips += trip
        counts.safe += verdict.action == cell.limits.safe and (bool(verdict.why) or proposed is None)
        self._open = _Open(sample.at, turn) if turn else None
        reports = models.decided(turn, now, trip=trip) if turn else []
        action = Action(
            id=f"{cell.name}-{self.session}-{counts.decisions}",
            kind=verdict.action,
            valid_until=sample.at + cell.step_us,
        )
        return action, tuple(reports)

    def _learn(self, sample: Sample) -> list[Transition]:
        """What the step since the sample before brought, if this one follows on it."""
        before, decided, self._open = self._last, self._open, None
        if before is None:
            return []
        brought = self._brought(before, sample)
        if brought is None:
            self.counts.gaps += 1
            return []
        reward, cost = brought
        if decided is not None and decided.at == before.at:
            self.models.outcome(decided.turn, reward, cost)
        if before.state is None or sample.state is None or sample.did is None:
            return []
        return [Transition(before.state, sample.did, reward, cost, sample.state)]

    def _brought(self, before: Sample, sample: Sample) -> tuple[float, float] | None:
        """Money and carbon of the step; None where they cannot be known."""
        took, step = sample.at - before.at, self.cell.step_us
        if sample.boot != before.boot or not step / 2 < took < 3 * step / 2:
            return None
        if before.earned is None or before.emitted is None or sample.earned is None or sample.emitted is None:
            return None
        reward, cost = sample.earned - before.earned, sample.emitted - before.emitted
        metrics, took_s = self.cell.device.metrics, took / SECOND
        possible = _within(metrics[EARNED], reward, took_s) and _within(metrics[EMITTED], cost, took_s)
        return (reward, cost) if possible and cost >= 0 else None


def samples(device: Device, burst: Burst) -> Iterator[Sample]:
    """The samples of a cell's burst, oldest first."""
    for place in sorted(range(len(burst.at)), key=burst.at.__getitem__):
        said = dict(_sound(device, burst, place))
        values = [said.get(metric) for metric, _, _ in _METRICS]
        state = None
        if None not in values:
            state = np.array(
                [(value - low) / wide for value, (_, low, wide) in zip(values, _METRICS, strict=True)],  # type: ignore[operator]
                np.float32,
            ).clip(0.0, 1.0)
        did = said.get(DID)
        done = int(did) if did is not None and did in range(len(ACTIONS)) else None
        yield Sample(burst.t0 + burst.at[place], burst.boot, said, state, said.get(EARNED), said.get(EMITTED), done)


def seeded(seed: int, *names: str) -> np.random.Generator:
    """Chance of its own for whoever bears these names."""
    digest = hashlib.sha256(":".join((str(seed), *names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8]))


def _sound(device: Device, burst: Burst, place: int) -> Iterator[tuple[str, float]]:
    """The values of one sample that are within their limits and in the unit that the plant names."""
    for metric, column in burst.columns.items():
        spec, value = device.metrics.get(metric), column[place]
        if spec is None or value is None or burst.units.get(metric) != spec.unit:
            continue
        if isfinite(value) and spec.low <= value <= spec.high:
            yield metric, value


def _within(spec: MetricSpec, change: float, took_s: float) -> bool:
    return spec.max_rate_per_s is None or abs(change) <= spec.max_rate_per_s * took_s


def _scene(cell: Cell, now: int, latest: Latest) -> Scene:
    at, code = latest.get((cell.name, "state"), (0, -1.0))
    return Scene(now, cell.name, _STATES.get(int(code)), at, latest)
