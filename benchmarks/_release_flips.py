"""Every bit of a small release and of an update, flipped on its way or on the node's disk: is it taken?

A node runs version 4 when version 5 comes, through `Models.on_release` and `on_part`, as from the bus. A flip is
refused when the node says why, goes on with version 4 and waits for nothing more; at the end version 5 comes as it is,
and must run. Updates go through `Update.decode` and `signer`, as in the cloud. On the disk: what decides after a
restart must be a version as it was released, and the release that comes again must run. Nothing here knows how any of
it is checked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from edge.models import Models
from messages.errors import BadMessage
from messages.learning import Artefact, Update, UpdateHead
from messages.network import Network
from messages.updates import CODECS, signed, signer
from tests.releasing import KEY, KEYS, NOW, Card, Released, graph, node, vector

OTHER = Network(inputs=3, hidden=(3,), outputs=2)
"""Of version 5: its graph has to come too."""


class Flips(NamedTuple):
    """Of one thing: its bytes, how often one bit of it was flipped, and how often that was taken."""

    what: str
    size: int
    flips: int
    taken: int


def flipped(data: bytes, every: int) -> Iterator[bytes]:
    """With one bit turned: each (`every` 1), one of each byte (8), or fewer. Which one of a byte goes round."""
    for place in range(0, 8 * len(data), every):
        spoiled = bytearray(data)
        spoiled[place // 8] ^= 1 << (place + place // 8) % 8
        yield bytes(spoiled)


def on_the_way(every: int) -> Iterator[Flips]:
    """The signed document, the graph and the parameters of a release, and updates of every codec."""
    old, new, models = Released(4, counter=1), newer(), node(Card(random.Random(0)))
    old.to(models)
    whole = ran(models)
    names = ("graph", "parameters")
    digests = {what: Artefact.of(data).digest for what, data in zip(names, new.artefacts, strict=True)}

    def taken(what: str, data: bytes) -> bool:
        if what == "document":
            (report,) = models.on_release("cell", data, NOW)
        else:
            models.on_release("cell", new.payload, NOW)
            (report,) = models.on_part(digests[what], 0, data, NOW)
        return not report.refused or report.running != 4 or ran(models) != whole or bool(models.wanted)

    for what, data in {"document": new.payload, **dict(zip(names, new.artefacts, strict=True))}.items():
        yield _counted(what, data, every, lambda one, what=what: taken(what, one))
    if new.to(models).running != 5:
        raise AssertionError("the release as it is does not run either: nothing was shown")
    for codec in CODECS:
        head = UpdateHead(model="cell", round=7, base="0" * 64, at=NOW, codec=codec, samples=100)
        data = signed(head, np.linspace(-1, 1, 20, dtype=np.float32), KEY, name="cloud").encode()
        if not _believed(data):
            raise AssertionError("the update as it is is not believed either: nothing was shown")
        yield _counted(f"update, {codec}", data, every, _believed)


def on_the_disk(every: int) -> Iterator[Flips]:
    """Every file of a node that runs version 5, and kept version 4."""
    old, new, card = Released(4, counter=1), newer(), Card(random.Random(0))
    right = set()
    for release in (old, new):
        models = node(card)
        release.to(models)
        right.add(ran(models))
    files = dict(card.now)

    def wrong(name: str, data: bytes) -> bool:
        card.now = {**files, name: (data, True)}
        if ran(node(card)) not in right:
            return True
        again = node(card)
        new.to(again)
        return ran(again) != ran(models)

    for name, (data, _) in files.items():
        yield _counted(f"on the disk, {name.rpartition('.')[2]}", data, every, lambda one, name=name: wrong(name, one))


def newer() -> Released:
    """Version 5."""
    return Released(5, vector(5, OTHER), counter=2, network=OTHER, code=graph(OTHER))


def ran(models: Models) -> tuple[int, bytes] | None:
    """Version and parameters of what decides."""
    turn = models.turn("cell")
    return None if turn is None else (turn.policy.version, turn.policy.parameters.tobytes())


def _counted(what: str, data: bytes, every: int, taken: Callable[[bytes], bool]) -> Flips:
    found = [taken(one) for one in flipped(data, every)]
    return Flips(what, len(data), len(found), sum(found))


def _believed(data: bytes) -> bool:
    try:
        signer(Update.decode(data), KEYS)
    except BadMessage:
        return False
    return True
