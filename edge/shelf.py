"""Releases on the disk of a node: documents and artefacts under their digests, and one small index of what runs.

    shelf.put(document, [graph, parameters])      # whole, and on the disk, before anything names them
    shelf.put_own(sha256, Own(vector, known))     # what the node made of the version of that document
    shelf.keep({"cell": Kept(...)})               # the index: from now on that is what runs, also after a power cut
    shelf.tidy()                                  # what neither the index nor the one before it names goes

What is read is held against its digest: broken bytes are as good as none. The index carries its own digest; when it is
broken, the one before it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.files import Files
from edge.policy import F32
from messages.contracts import Seq
from messages.errors import BadMessage
from messages.learning import Artefact, Sha256
from messages.message import Message

INDEX, LAST = "index.json", "index-before.json"


class Own(NamedTuple):
    """What a node made of a version for itself."""

    vector: F32
    """(P,)"""
    known: int
    """transitions that it was made of"""


class Kept(BaseModel):
    """What the index knows of a model: documents by their digest."""

    model_config = ConfigDict(frozen=True)

    counter: Seq = 0
    answered: Sha256 | None = Field(None, description="the document with this counter")
    running: Sha256 | None = None
    candidate: Sha256 | None = None
    before: Sha256 | None = Field(None, description="what ran before; it runs when the running one is broken")
    taken_back: str = Field("", description="why the answered one does not run any more")

    @property
    def documents(self) -> list[str]:
        """That are still of use."""
        return [one for one in (self.running, self.candidate, self.before) if one]


class _Index(BaseModel):
    models: dict[str, Kept] = {}


class _Parts(Message):
    """Of a release, what its files are called."""

    graph: Artefact
    parameters: Artefact | None = None


class _Document(Message):
    body: _Parts


class Shelf:
    """The files of all models of a node."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def index(self) -> dict[str, Kept]:
        """What runs, by model."""
        for name in (INDEX, LAST):
            found = _read(self._files.get(name))
            if found is not None:
                return found.models
        return {}

    def keep(self, models: Mapping[str, Kept]) -> None:
        """In place of what was said before."""
        text = _Index(models=dict(models)).model_dump_json().encode()
        old = self._files.get(INDEX)
        if _read(old) is not None:
            self._files.put(LAST, old or b"")
        self._files.put(INDEX, text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n")

    def put(self, document: bytes, artefacts: Iterable[bytes]) -> None:
        """All of them are on the disk when this returns; those that are there already are not written again."""
        for data in artefacts:
            artefact = Artefact.of(data)
            if self.artefact(artefact) is None:
                self._files.put(_named(artefact), data)
        self._files.put(_document(hashlib.sha256(document).hexdigest()), document)

    def put_own(self, sha256: str, own: Own) -> None:
        """On the disk when this returns, beside the document with this digest."""
        data = own.known.to_bytes(8, "little") + own.vector.astype("<f4").tobytes()
        self._files.put(_own(sha256), hashlib.sha256(data).digest() + data)

    def own(self, sha256: str) -> Own | None:
        """What was made of it; None if there is nothing, or its bytes are broken or no numbers."""
        digest, data = (found := self._files.get(_own(sha256)) or b"")[:32], found[32:]
        if len(data) <= 8 or len(data) % 4 or hashlib.sha256(data).digest() != digest:
            return None
        vector = np.frombuffer(data[8:], "<f4").astype(np.float32)
        return Own(vector, int.from_bytes(data[:8], "little")) if np.isfinite(vector).all() else None

    def document(self, sha256: str) -> bytes | None:
        """Its bytes; None if they are not there or broken."""
        data = self._files.get(_document(sha256))
        return data if data is not None and hashlib.sha256(data).hexdigest() == sha256 else None

    def artefact(self, artefact: Artefact) -> bytes | None:
        """The same of an artefact."""
        data = self._files.get(_named(artefact))
        return data if data is not None and Artefact.of(data) == artefact else None

    def tidy(self) -> None:
        """Remove what is named no more."""
        keep = {INDEX, LAST}
        for name in (INDEX, LAST):
            found = _read(self._files.get(name)) or _Index()
            for sha256 in (one for kept in found.models.values() for one in kept.documents):
                keep.update((_document(sha256), _own(sha256)))
                keep.update(self._parts(sha256))
        self._files.drop(keep=keep)

    def _parts(self, sha256: str) -> list[str]:
        document = self.document(sha256)
        if document is None:
            return []
        try:
            body = _Document.decode(document).body
        except BadMessage:
            return []
        return [_named(one) for one in (body.graph, body.parameters) if one is not None]


def _read(data: bytes | None) -> _Index | None:
    if not data:
        return None
    text, _, digest = data.rstrip(b"\n").rpartition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        return None
    try:
        return _Index.model_validate_json(text)
    except ValidationError:
        return None


def _document(sha256: str) -> str:
    return f"{sha256[:32]}.json"


def _own(sha256: str) -> str:
    return f"{sha256[:32]}.own"


def _named(artefact: Artefact) -> str:
    return f"{artefact.digest}.bin"
