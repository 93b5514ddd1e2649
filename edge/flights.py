"""Releases on their way: signed and permitted, but their artefacts are not all here yet.

    displaced = flights.begin("cell", flight)       # the release that gave way, if there were too many
    models = flights.on_part(digest, part, data)    # for which this was a missing artefact, now whole
    flights.whole("cell")                           # None: some are missing; `wanted` says which
    flights.land("cell")                            # it is answered, whatever the answer

Artefacts that are on the node's disk already are not asked for again. Bounds: `IN_FLIGHT` releases, the oldest gives
way; in memory at most their artefacts, `MAX_ARTEFACT` each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edge.active import Making
from edge.gathering import Gathering
from edge.policy import Policy
from edge.released import Released
from messages.learning import Artefact

IN_FLIGHT = 2


@dataclass
class Flight:
    """A release and what is here of it."""

    sha256: str
    """of the document"""
    payload: bytes
    envelope: Released
    have: dict[str, bytes] = field(default_factory=dict)
    policy: Policy | None = None
    """once all of it is here, and sound"""
    making: Making | None = None
    """what the node is about to make of it, before it decides for the first time"""

    @property
    def artefacts(self) -> list[Artefact]:
        """What it is made of."""
        body = self.envelope.body
        return [one for one in (body.graph, body.parameters) if one is not None]


class Flights:
    """One release per model at most."""

    def __init__(self, known: Callable[[Artefact], bytes | None]) -> None:
        """`known`: artefacts that are here already."""
        self._known = known
        self._flights: dict[str, Flight] = {}
        self._gathering = Gathering()

    @property
    def wanted(self) -> list[Artefact]:
        """Whose parts should be subscribed to."""
        return self._gathering.wanted

    @property
    def models(self) -> list[str]:
        """Whose releases are on their way."""
        return list(self._flights)

    def of(self, model: str) -> Flight | None:
        """The one of a model."""
        return self._flights.get(model)

    def begin(self, model: str, flight: Flight) -> Flight | None:
        """Instead of an older one of this model; BadMessage if its artefacts contradict those of another."""
        self.land(model)
        for artefact in flight.artefacts:
            here = self._known(artefact)
            if here is None:
                self._gathering.want(artefact)
            else:
                flight.have[artefact.digest] = here
        self._flights[model] = flight
        if len(self._flights) <= IN_FLIGHT:
            return None
        oldest, displaced = next(iter(self._flights.items()))
        self.land(oldest)
        return displaced

    def on_part(self, digest: str, part: int, data: bytes) -> list[str]:
        """The models that have an artefact now which they lacked; BadMessage if it is not what its digest says."""
        whole = self._gathering.on_part(digest, part, data)
        if whole is None:
            return []
        for model in self.awaiting(digest):
            self._flights[model].have[digest] = whole
        return self.awaiting(digest)

    def awaiting(self, digest: str) -> list[str]:
        """The models whose releases name this artefact."""
        return [model for model, one in self._flights.items() if any(part.digest == digest for part in one.artefacts)]

    def whole(self, model: str) -> Flight | None:
        """The release of a model, if nothing of it is missing."""
        flight = self._flights.get(model)
        if flight is None or any(one.digest not in flight.have for one in flight.artefacts):
            return None
        return flight

    def land(self, model: str) -> None:
        """It is on its way no more, and what only it wanted is forgotten."""
        self._flights.pop(model, None)
        self._gathering.keep({one.digest for flight in self._flights.values() for one in flight.artefacts})

    def late(self, now: int) -> list[str]:
        """Models whose release is no longer valid."""
        return [model for model, one in self._flights.items() if now >= one.envelope.valid_until]
