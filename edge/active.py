"""A release that is ready to decide, and what this node made of it where it may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.policy import F32, Policy
from edge.released import Released, Standing, decides, opened, sha256_of, sound
from edge.shelf import Own, Shelf
from messages.errors import BadMessage
from messages.learning import Release


class Making(Protocol):
    """A version on its way to become the node's own (`edge.adaptation`)."""

    @property
    def left(self) -> int:
        """Optimiser steps to do."""
        ...

    @property
    def known(self) -> int:
        """Transitions that it is made of."""
        ...

    @property
    def vector(self) -> F32:
        """What it came to, when nothing is left."""
        ...

    def work(self, steps: int) -> None:
        """At most so many of them."""
        ...


Adapt = Callable[[Release, F32, int], Making | None]
"""Begin to make a release, with these parameters, the node's own; None: there is not enough to make it of, or not twice
as many transitions as these."""


class Active:
    """`policy` decides; it is replaced as a whole, between decisions."""

    def __init__(self, sha256: str, envelope: Released, released: Policy, own: Own | None = None) -> None:
        """`sha256`: of the document."""
        self.sha256 = sha256
        self.envelope = envelope
        self.released = released
        self.policy = released
        self.own: Own | None = None
        """what the node made of it, and decides by; absent: the release decides as it is"""
        self.making: Making | None = None
        """what it is about to make of it"""
        self.known = 0
        """transitions that were known when it was made last, also in vain"""
        if own is not None:
            self.wear(own)

    @property
    def version(self) -> int:
        """What runs."""
        return self.envelope.body.version

    def begin(self, adapt: Adapt | None) -> Making | None:
        """To make it the node's own, if it may be adapted, and enough is known that was not known last time."""
        body, parameters = self.envelope.body, self.released.parameters
        if adapt is None or not body.shared or len(parameters) == 0:
            return None
        return adapt(body, parameters, self.known)

    def adapt(self, adapt: Adapt | None, steps: int, shelf: Shelf) -> None:
        """At most so many steps of that; what came of it is on the disk before it decides."""
        self.making = self.making or self.begin(adapt)
        if self.making is None:
            return
        self.making.work(steps)
        if self.making.left:
            return
        own = Own(self.making.vector, self.making.known)
        if self._policy(own) is not None:
            shelf.put_own(self.sha256, own)
        self.wear(own)
        self.making = None

    def wear(self, own: Own) -> None:
        """Decide by this from now on, if it fits the release, and its answers are numbers."""
        self.known = own.known
        policy = self._policy(own)
        if policy is not None:
            self.policy, self.own = policy, own

    def _policy(self, own: Own) -> Policy | None:
        try:
            policy = self.released.with_parameters(own.vector) if self.envelope.body.shared else None
        except BadMessage:
            return None
        return policy if policy is not None and decides(policy) else None


def standing(active: Active | None, counter: int) -> Standing:
    """What a release is held against where `active` runs."""
    if active is None:
        return Standing(counter)
    return Standing(counter, active.version, sha256_of(active.envelope.body))


def loaded(shelf: Shelf, sha256: str | None, keys: Mapping[str, Ed25519PublicKey]) -> Active | None:
    """The release of this document, as it was kept; None if anything of it is missing or broken."""
    document = shelf.document(sha256) if sha256 else None
    if document is None or sha256 is None:
        return None
    try:
        envelope = opened(document, keys)
        body = envelope.body
        graph = shelf.artefact(body.graph)
        parameters = shelf.artefact(body.parameters) if body.parameters else None
        if graph is None or (body.parameters and parameters is None):
            return None
        return Active(sha256, envelope, sound(body, graph, parameters, compare=False), shelf.own(sha256))
    except BadMessage:
        return None
