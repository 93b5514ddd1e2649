"""Artefacts on their way: bytes that a release names by their digest, put together from parts.

    gathering.want(artefact)
    data = gathering.on_part(digest, 3, part)      # the whole once it is whole and what its digest says; else None

What nobody wants, is no part of it, or comes again is left aside: parts may come in any order and more than once. Bytes
that are not what their digest says are forgotten, a BadMessage. Bound: what is wanted, `MAX_ARTEFACT` each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field

from messages.errors import BadMessage
from messages.learning import PART_BYTES, Artefact


@dataclass
class _Coming:
    artefact: Artefact
    parts: dict[int, bytes] = field(default_factory=dict)


class Gathering:
    """The artefacts that are wanted, by digest."""

    def __init__(self) -> None:
        self._coming: dict[str, _Coming] = {}

    @property
    def wanted(self) -> list[Artefact]:
        """Whose parts should be subscribed to."""
        return [one.artefact for one in self._coming.values()]

    def want(self, artefact: Artefact) -> None:
        """Gather it; doing so again changes nothing."""
        known = self._coming.setdefault(artefact.digest, _Coming(artefact))
        if known.artefact != artefact:
            raise BadMessage(f"artefact {artefact.digest} is named with two sizes or digests; release it again")

    def keep(self, digests: Collection[str]) -> None:
        """Forget all others."""
        self._coming = {digest: one for digest, one in self._coming.items() if digest in digests}

    def on_part(self, digest: str, part: int, data: bytes) -> bytes | None:
        """All bytes of the artefact, if this was its last part. It is then no longer wanted."""
        coming = self._coming.get(digest)
        if coming is None or not 0 <= part < coming.artefact.parts:
            return None
        size, parts = coming.artefact.size, coming.parts
        if len(data) != min(PART_BYTES, size - part * PART_BYTES):
            raise BadMessage(f"artefact {digest}: part {part} has {len(data)} bytes; publish the artefact again")
        parts[part] = data
        if len(parts) < coming.artefact.parts:
            return None
        whole = b"".join(parts[k] for k in range(len(parts)))
        if hashlib.sha256(whole).hexdigest() != coming.artefact.sha256:
            parts.clear()
            raise BadMessage(f"artefact {digest}: the bytes are not what its digest says; publish it again")
        del self._coming[digest]
        return whole
