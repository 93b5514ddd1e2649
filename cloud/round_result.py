"""What a round comes to: which updates count, what is held against whom, and the base that follows. A pure function.

    result = result_of(asked, base, updates, gate, memory, settings, now=now, late=["press-4"])
    result.closed, result.gate, result.base

What the others make of an update is looked at here, all together; what speaks against it alone was said on its arrival.
The base that follows is `base + rate · aggregate(deltas)` in the shared part; with fewer than `quorum` updates that
count, or where it would be no numbers, there is none. The same updates in the same order give the very same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cloud.aggregation import Stack, Weights
from cloud.gate import Gate, Sifted
from cloud.learning_settings import RoundSettings
from cloud.quarantine import GateState, Refused
from cloud.round_updates import RoundUpdates
from messages.learning import Closed, Round
from messages.updates import Vector


class RoundResult(NamedTuple):
    """Of one round."""

    closed: Closed
    gate: GateState
    base: Vector | None
    """(P,); None: the one before stays"""


def result_of(
    asked: Round,
    base: Vector,
    came: RoundUpdates,
    gate: Gate,
    memory: GateState,
    settings: RoundSettings,
    *,
    now: int,
    late: list[str],
) -> RoundResult:
    """Of the updates that came. `memory`: what the gate remembers of the rounds before; `late`: who was waited for."""
    taken, refused, changed = came.taken, came.refused, came.changed
    names = [name for name in came.rows.names if name in taken]
    updates = came.rows.of(names)
    doings = {name: one.behaviour for name, one in taken.items() if one.behaviour is not None}
    sifted, memory = gate.sift(
        memory,
        round=asked.round,
        steps=asked.training.steps,
        names=names,
        updates=updates,
        lengths=np.array([taken[name].length for name in names], np.float32),
        behaviour=_together(names, doings),
        along=[taken[name].along or 0.0 for name in names] if settings.whole else None,
        refused={**refused, **changed},
        longest=float(np.linalg.norm(base[: asked.shared])) or np.inf,
    )
    counted = {name: taken[name].weight for name, kept in zip(names, sifted.kept, strict=True) if kept}
    following = None
    if len(counted) >= asked.quorum:
        rows = updates if len(counted) == len(names) else updates[sifted.kept]
        stepped = _stepped(base, rows, np.array(list(counted.values()), np.float32), settings)
        following = stepped if np.isfinite(stepped).all() else None
    closed = Closed(
        at=now,
        taken=counted,
        late=late,
        refused={name: str(one) for name, one in {**refused, **changed, **_said(sifted)}.items()},
        quarantined=memory.quarantined,
    )
    return RoundResult(closed, memory, following)


def _stepped(base: Vector, updates: Stack, weights: Weights, settings: RoundSettings) -> Vector:
    """The base, further on by what the nodes learned, (P,)."""
    step = settings.aggregate(updates, weights)
    following = base.copy()
    following[: len(step)] += np.float32(settings.rate) * step
    return following


def _together(names: list[str], doings: Mapping[str, Vector]) -> Stack | None:
    """What the probe said, (K, D); zeros of those it was not asked about."""
    if not doings:
        return None
    nothing = np.zeros_like(next(iter(doings.values())))
    return np.array([doings.get(name, nothing) for name in names], np.float32)


def _said(sifted: Sifted) -> dict[str, Refused]:
    return {**{name: Refused("quarantined", why) for name, why in sifted.accused.items()}, **sifted.refused}
