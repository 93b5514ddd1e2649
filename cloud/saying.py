"""Releases as they go out: signed for one node, and the bytes they name in parts.

told = signed(version, "s1/humid", key, "cloud", "canary", counter=7, until=…, instead_of=None)
for number, part in parts(data): …                # publish on ARTEFACT, then told.payload on MODEL
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cloud.versions import Told, Version
from messages.contracts import Envelope
from messages.learning import PART_BYTES, Artefact, ArtefactPart, Release
from messages.route import Route
from messages.signing import SigningKey, sign

SIGNER = "cloud"
"""The name that nodes know the cloud's key by."""
MOST = 2**53 - 1
"""The highest counter there is: a node that claims it is told nothing new, and no other node is the worse for it."""


class Out(NamedTuple):
    """What to say: the artefacts first, then this. No payload: what is retained there is taken back."""

    route: Route
    ids: dict[str, str]
    payload: bytes | None
    artefacts: tuple[Artefact, ...] = ()


class Say(NamedTuple):
    """A release for one node: publish these bytes on MODEL, after the parts of its artefacts."""

    model: str
    node: str
    payload: bytes
    artefacts: tuple[Artefact, ...]

    @property
    def ids(self) -> dict[str, str]:
        """Of the topic."""
        site, _, node = self.node.partition("/")
        return {"site": site, "node": node, "model": self.model}


def parts(data: bytes) -> Iterator[tuple[str, ArtefactPart]]:
    """An artefact as it travels on ARTEFACT: (part, bytes)."""
    for number, at in enumerate(range(0, len(data), PART_BYTES)):
        yield str(number), ArtefactPart(data=data[at : at + PART_BYTES])


def signed(
    version: Version,
    node: str,
    key: SigningKey,
    signer: str,
    stage: str,
    *,
    counter: int,
    until: int,
    instead_of: int | None,
) -> Told:
    """A release of this version for this node."""
    same = version.model_dump(include=set(Release.model_fields) - {"stage"})
    envelope = Envelope[Release](
        key=version.model,
        target=node,
        counter=min(counter, MOST),
        valid_until=until,
        body=Release(**same, stage=stage, instead_of=instead_of),
    )
    return Told(
        node=node,
        version=version.version,
        stage=stage,
        counter=envelope.counter,
        until=until,
        instead_of=instead_of,
        payload=sign(envelope, key, name=signer),
    )
