"""A release that is ready to decide, with the node's own head where it leaves room for one."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.policy import F32, Policy
from edge.released import Released, Standing, opened, sha256_of, sound
from edge.shelf import Shelf
from messages.errors import BadMessage


class Active:
    """`policy` decides; it is replaced as a whole, between decisions."""

    def __init__(self, sha256: str, envelope: Released, released: Policy, head: F32 | None = None) -> None:
        """`sha256`: of the document."""
        self.sha256 = sha256
        self.envelope = envelope
        self.released = released
        self.policy = released
        self.wear(head)

    @property
    def version(self) -> int:
        """What runs."""
        return self.envelope.body.version

    def wear(self, head: F32 | None) -> None:
        """Decide with this head, unless the release shares all of itself or has a head of another size."""
        shared = self.envelope.body.shared
        fits = head is not None and shared and len(head) == len(self.released.parameters) - shared
        self.policy = self.released.with_head(head) if fits and head is not None else self.released


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
        return Active(sha256, envelope, sound(body, graph, parameters, compare=False))
    except BadMessage:
        return None
