"""What is run, what is seen of it meanwhile, and what came of it: the same for simulation and broker.

    outcome = simulate(Swarm(plant, jobs, judge), watch)
    outcome.holds, outcome.figures.makespan_s, outcome.faults

Times are µs of plant time, `start` is its begin. What machines did is truth from the floor, never what an agent says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from messages.contracts import OrderedJob, Signal
from messages.dispatch.decode import Weights
from messages.dispatch.judge import Judge
from messages.negotiation import Workpiece
from messages.plant import Plant
from shoal.swarm.disturb import Scenario

T0 = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z, the begin of plant time where nobody says another."""

Key = tuple[str, int]
"""Job and operation."""


@dataclass(frozen=True)
class Swarm:
    """A plant, its orders, who judges, and what disturbs them."""

    plant: Plant
    jobs: tuple[OrderedJob, ...]
    judge: Judge
    weights: Weights = field(default_factory=Weights)
    scenario: Scenario = field(default_factory=Scenario)
    signals: Mapping[str, Signal] = field(default_factory=dict)
    start: int = T0
    seed: int = 1
    sigma: float = 0.0
    """Spread of working times, as of the simulated machines' `variation`."""
    delegates: tuple[str, ...] | None = None
    """Nodes that judge while the judge is away, in order; absent: all of them."""
    tags: bool = True
    """Judges rely on parts telling by their tags what was done to them."""


@dataclass(frozen=True, slots=True)
class Run:
    """A machine worked on a part; `end` is foreseen while it still does."""

    machine: str
    job: str
    op: int
    start: int
    end: int
    interrupted: bool = False
    running: bool = False


@dataclass(frozen=True, slots=True)
class Carry:
    """A vehicle brought a part: it left at `departs`, loaded at `loads`, and was done at `arrives`."""

    vehicle: int
    job: str
    from_: str
    to: str
    departs: int
    loads: int
    arrives: int


@dataclass(frozen=True, slots=True)
class Down:
    """A machine was broken."""

    machine: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """A disturbance, and what the swarm did about it."""

    at: int
    kind: str
    what: str
    answer: str = ""


@dataclass(frozen=True)
class Look:
    """The floor at `now`, for whoever watches."""

    now: int
    runs: tuple[Run, ...]
    carries: tuple[Carry, ...]
    downs: tuple[Down, ...]
    troubles: tuple[Trouble, ...]
    tasks: Mapping[str, int]
    """State of tasks → how many."""
    judge: str = ""
    """Who judges now."""


class Watch(Protocol):
    """Who looks on while it runs, and perhaps slows it down to be able to."""

    def wants(self, now: int) -> bool:
        """Plant time has come to `now`: whether to be shown the floor."""
        ...

    def look(self, look: Look) -> None:
        """The floor; once more when all is over."""
        ...


@dataclass(frozen=True)
class Figures:
    """What the run is worth. Definitions: `shoal.swarm.figures`."""

    makespan_s: float
    waiting_s: float
    utilisation: float
    energy_kwh: float
    carbon_kg: float | None
    """None: nobody said what a kWh emits."""
    tardiness_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """A run from the first order to the last finished task."""

    swarm: Swarm
    over: str
    """`sim` or `bus`"""
    ended_at: int
    figures: Figures
    runs: tuple[Run, ...]
    carries: tuple[Carry, ...]
    downs: tuple[Down, ...]
    troubles: tuple[Trouble, ...]
    messages: Mapping[str, int]
    """What was sent (offer, bid, award, ack, agenda, judge, record, …) → how many times."""
    excused: Mapping[Key, str]
    """Tasks not done, and why not."""
    faults: tuple[str, ...]
    """Promises broken; none: the run holds."""
    events: int = 0
    decisions: int | None = None
    """How often a judge was asked; None: nobody counted that."""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    batons: tuple[Workpiece, ...] = ()
    """Of every job that was heard of, as a judge said it last."""
    kept: Path | None = None
    """Logs, disks and truth of a run that does not hold."""

    @property
    def holds(self) -> bool:
        """Every task done once or reported, all histories complete, nothing stuck."""
        return not self.faults

    @property
    def messages_per_award(self) -> float:
        """Offers, bids, awards and their acknowledgements, of each award."""
        net = sum(self.messages.get(kind, 0) for kind in ("offer", "bid", "award", "ack"))
        return net / max(1, self.messages.get("award", 0))
