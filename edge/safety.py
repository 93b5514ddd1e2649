"""The last word before a machine: what may go out, whatever was learned. Pure.

    verdict = judge(limits, past, proposed, scene)      # proposed: a policy's action, or None
    send(verdict.action); past = verdict.past           # verdict.why says what was changed, "" if nothing

In this order: an emergency (`stop`) gives the safe action; so does no proposal, an action no limit knows, a machine
state that is unknown, stale, or does not allow it, and an interlock. Then, for an action that differs from the one in
force: the dwell and the rate of changes. A change that comes too early leaves the action in force, if that may still go
out, and gives the safe action otherwise. The safe action itself is never held back. An interlock whose metric is
missing, stale or no number forbids: what is not known is not safe. Where the clock was put back, what went out at a
time that is not yet counts as of now: dwell and rate hold, and for no longer than they say.

Nothing else decides what goes out, and nothing here is learned: `Limits` are settings of the node. Bound: `changes`
times are remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from pydantic import BaseModel, ConfigDict, Field, model_validator

from messages.clock import SECOND
from messages.contracts import Id, Metric, Word


class Condition(BaseModel):
    """A metric beyond a limit. `device` absent: of the machine that is decided for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Metric
    device: Id | None = None
    above: float | None = Field(None, allow_inf_nan=False, description="holds while the metric is above")
    below: float | None = Field(None, allow_inf_nan=False, description="holds while the metric is below")

    @model_validator(mode="after")
    def _says_something(self) -> Condition:
        if self.above is None and self.below is None:
            raise ValueError(f"{self.metric}: state above, below or both")
        return self


class Interlock(Condition):
    """An action that is forbidden while a metric is beyond a limit, or is not known."""

    action: Word


class Limits(BaseModel):
    """What a node lets through to one kind of machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    safe: Word = Field("wait", description="the action that is always allowed, and taken in doubt")
    actions: tuple[Word, ...] = Field(min_length=1, max_length=256, description="all that may ever go out")
    states: dict[Word, tuple[Word, ...]] = Field(
        {}, max_length=64, description="machine state → actions allowed in it; none given: the state does not matter"
    )
    stale_s: float = Field(60.0, gt=0, description="an older machine state or metric is not known")
    dwell_s: float = Field(0.0, ge=0, description="an action stays at least so long before another follows")
    changes: int = Field(60, ge=1, le=1_000, description="changes of action allowed in any `per_s`")
    per_s: float = Field(3600.0, gt=0)
    interlocks: tuple[Interlock, ...] = Field((), max_length=256)
    stop: tuple[Condition, ...] = Field((), max_length=64, description="while one holds, the safe action alone")

    @model_validator(mode="after")
    def _known(self) -> Limits:
        known = {self.safe, *self.actions}
        named = {one for state in self.states.values() for one in state} | {one.action for one in self.interlocks}
        if named - known:
            raise ValueError(f"{', '.join(sorted(named - known))}: not in `actions`; add it there, or correct the name")
        if any(one.action == self.safe for one in self.interlocks):
            raise ValueError(f"an interlock forbids {self.safe!r}, the safe action: choose another safe action")
        return self


@dataclass(frozen=True, slots=True)
class Past:
    """What went out before: the action in force, since when, and when it changed, newest last."""

    action: str | None = None
    since: int = 0
    changes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of the machine now. Times in µs of plant time."""

    now: int
    device: str
    state: str | None
    state_at: int
    latest: Mapping[tuple[str, str], tuple[int, float]]
    """(device, metric) → (µs, value)"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What goes out. `trip`: the proposal was one that must not be made here, not just too early."""

    action: str
    why: str
    trip: bool
    past: Past


def judge(limits: Limits, past: Past, proposed: str | None, scene: Scene) -> Verdict:
    """The action that goes out, and why it is not the proposed one."""
    past = _known_by(past, scene.now)
    stopped = next((one for one in limits.stop if _holds(one, limits, scene) is not False), None)
    if stopped is not None:
        return _sent(limits, past, limits.safe, scene.now, f"emergency: {_said(stopped, limits, scene)}")
    if proposed is None:
        return _sent(limits, past, limits.safe, scene.now, "no proposal")
    why, trip = _forbidden(limits, proposed, scene)
    if why:
        return _sent(limits, past, limits.safe, scene.now, why, trip=trip)
    if proposed in (past.action, limits.safe):
        return _sent(limits, past, proposed, scene.now, "")
    early = _early(limits, past, scene.now)
    if not early:
        return _sent(limits, past, proposed, scene.now, "")
    kept = past.action
    if kept is None or _forbidden(limits, kept, scene)[0]:
        kept = limits.safe
    return _sent(limits, past, kept, scene.now, early)


def _known_by(past: Past, now: int) -> Past:
    """With no time that is not yet."""
    if max((past.since, *past.changes)) <= now:
        return past
    return Past(past.action, min(past.since, now), tuple(min(at, now) for at in past.changes))


def _sent(limits: Limits, past: Past, action: str, now: int, why: str, *, trip: bool = False) -> Verdict:
    if action != past.action:
        past = Past(action, now, (*past.changes, now)[-limits.changes :])
    return Verdict(action, why, trip, past)


def _forbidden(limits: Limits, action: str, scene: Scene) -> tuple[str, bool]:
    """Why the action must not go out, if it must not, and whether whoever proposed it is to blame."""
    if action == limits.safe:
        return "", False
    if action not in limits.actions:
        return f"{action} is not an action of this machine", True
    if limits.states:
        if scene.state is None or not _fresh(scene.state_at, limits, scene):
            return "the machine's state is not known", False
        if action not in limits.states.get(scene.state, ()):
            return f"{action} is not allowed in state {scene.state}", True
    for one in limits.interlocks:
        if one.action == action:
            holds = _holds(one, limits, scene)
            if holds is not False:
                return f"{action} is locked: {_said(one, limits, scene)}", holds is True
    return "", False


def _early(limits: Limits, past: Past, now: int) -> str:
    if past.action is not None and now - past.since < limits.dwell_s * SECOND:
        return f"{past.action} stays for {limits.dwell_s:g} s"
    recent = sum(now - at < limits.per_s * SECOND for at in past.changes)
    return f"{recent} changes within {limits.per_s:g} s" if recent >= limits.changes else ""


def _holds(one: Condition, limits: Limits, scene: Scene) -> bool | None:
    """None: it cannot be told."""
    at, value = scene.latest.get((one.device or scene.device, one.metric), (None, 0.0))
    if at is None or not isfinite(value) or not _fresh(at, limits, scene):
        return None
    return (one.above is not None and value > one.above) or (one.below is not None and value < one.below)


def _fresh(at: int, limits: Limits, scene: Scene) -> bool:
    return abs(scene.now - at) <= limits.stale_s * SECOND


def _said(one: Condition, limits: Limits, scene: Scene) -> str:
    where = f"{one.metric} of {one.device or scene.device}"
    if _holds(one, limits, scene) is None:
        return f"{where} is not known"
    value = scene.latest[one.device or scene.device, one.metric][1]
    limit = f"above {one.above:g}" if one.above is not None and value > one.above else f"below {one.below:g}"
    return f"{where} is {value:g}, {limit}"
