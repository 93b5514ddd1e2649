"""An operator's word on rounds: another base, a quarantine ended or imposed. Taken up between two rounds.

    take_up(registry, rounds, known, model="cell", now=now)

Wishes lie in the registry's file (`shoal models rebase`, `lift`, `put-away`), as those on releases do. A base changes
between rounds only: until the open one is closed the wish waits. What was done is a line of the model's history.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from cloud.registry import Registry
from cloud.rounds import Rounds
from cloud.versions import ROUND_KINDS, Event, Version, Wish
from messages.errors import UsageError
from messages.network import Network


def take_up(
    registry: Registry, rounds: Rounds, known: Collection[str], *, model: str, network: Network, now: int
) -> None:
    """Every wish that waits and can be done now. `known`: nodes whose key is."""
    for wish in registry.wishes(model):
        if wish.kind not in ROUND_KINDS or (wish.kind == "rebase" and rounds.is_open):
            continue
        with registry.together():
            try:
                said = _done(wish, registry, rounds, known, network)
                registry.note(Event(now, model, wish.version or rounds.base_version, said, wish.by, _why(wish)))
                registry.answer(wish.id, "done")
            except UsageError as error:
                registry.answer(wish.id, f"refused: {error}")


def refuse(registry: Registry, *, model: str, learned: str) -> None:
    """Of a model that no rounds are of."""
    for wish in registry.wishes(model):
        if wish.kind in ROUND_KINDS:
            registry.answer(wish.id, f"refused: rounds here are of {learned}, not of {model}")


def judged_worse(one: Version) -> bool:
    """Did simulation or canaries find it worse? What could not be simulated was not judged."""
    return one.stage == "rolled_back" or (one.stage == "refused" and bool(one.metrics))


def _done(wish: Wish, registry: Registry, rounds: Rounds, known: Collection[str], network: Network) -> str:
    if wish.kind == "rebase":
        one = registry.version(wish.model, wish.version or 0)
        if one.network != network or one.parameters is None:
            raise UsageError(f"version {one.version} is of another network than is learned; choose another")
        if judged_worse(one):
            raise UsageError(f"version {one.version} was {one.stage}, rounds would leave it again; choose another")
        rounds.rebase(np.frombuffer(registry.data(one.parameters.sha256), "<f4"), version=one.version)
        return "base"
    node = wish.node or ""
    if wish.kind == "lift":
        if not rounds.evidence(node) and node not in rounds.quarantined:
            raise UsageError(f"nothing is held against {node!r}; in quarantine: {_some(rounds.quarantined)}")
        rounds.lift(node)
        return "lifted"
    if node not in known:
        raise UsageError(f"no node {node!r} is known; there are: {_some(known)}")
    rounds.put_away(node, why=wish.why)
    return "put away"


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:20]) or "none"


def _why(wish: Wish) -> str:
    return f"{wish.node}: {wish.why}" if wish.node else wish.why
