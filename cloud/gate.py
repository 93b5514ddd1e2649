"""The gate: an update is taken or refused, by what can be checked on it alone and by how it stands beside the others.

    gate = Gate(settings, keys={"press-4": public_key(…)})
    verdict = gate.judge("press-4", update, asked, now)          # on arrival: Taken(delta, weight) | Refused(…)
    sifted, state = gate.sift(state, round=7, steps=500, taken=…, refused=…)   # at the close

On arrival, in this order: signature of the node whose topic it is; the round's number, model, base, codec; the time;
samples; shape; finite numbers. None of it depends on what came before, so that a restart judges alike. At the close,
beside the others: norm at most `far` times the median (of this round, or of the last ones where fewer than
`LEAST_NODES` took part; before there are so many, at most that of the base), then direction (`outliers`), then what is
done to decisions (`probe`): by first updates, beside each other; where the head is shared, by all of them, whether they
take back what was learned together. Where each node keeps its head, a cell whose reward was turned round later sends
the same body as others, under a head that says the opposite. Such a body does no harm, and nothing in it tells who sent
it.

What follows for a node is said in `quarantine`; it changes at a close only. Bounds: nodes whose key is known, `NORMS`
lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from cloud.aggregation.seam import Stack, Vector, norms
from cloud.learning_settings import GateSettings
from cloud.outliers import CAP, F64, LEAST_NODES, Mask, agreement, densest_half, evidence, taken_back, turned_first
from cloud.quarantine import GateState, Record, Refused, doubted, refusal, weighed
from messages.errors import BadMessage
from messages.learning import Round, Update
from messages.updates import delta_of, signer

NORMS = 256
"""Lengths of accepted deltas that are remembered."""


@dataclass(frozen=True)
class Taken:
    """An update as it counts."""

    delta: Vector
    weight: float
    length: float
    """norm of the delta"""
    behaviour: Vector | None = None
    """what the probe said of it"""
    along: float | None = None
    """the same of an update of the whole vector: how far it goes along with the base"""


Verdict: TypeAlias = Taken | Refused
Lengths: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Sifted:
    """What the others make of the updates that were taken on arrival. `kept`: rows that are averaged, (K,) bool."""

    kept: Mask
    refused: dict[str, Refused] = field(default_factory=dict)
    accused: dict[str, str] = field(default_factory=dict)
    """newly in quarantine → why"""


class Gate:
    """What is checked. It keeps nothing but its settings and keys."""

    def __init__(self, settings: GateSettings, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self.settings = settings
        self.keys = keys

    def judge(self, node: str, update: Update, asked: Round, *, now: int, late: bool = False) -> Verdict:
        """An update that came on the topic of `node` for the round `asked`. `late`: that round is closed already."""
        try:
            who = signer(update, self.keys)
        except BadMessage as error:
            return refusal("signature", str(error))
        if who != node:
            return refusal("signer", f"signed by {who}, sent as {node}")
        if found := self._head(update, asked, now, late=late):
            return found
        try:
            delta = delta_of(update)
        except BadMessage as error:
            return refusal("shape", str(error))
        if len(delta) != asked.shared:
            return refusal("shape", f"{len(delta)} numbers; {asked.shared} are shared")
        length = float(norms(delta[None])[0])
        if not np.isfinite(length):
            wrong = int((~np.isfinite(delta)).sum())
            return refusal("not_finite", f"{wrong} of {len(delta)} numbers are none" if wrong else "numbers too large")
        return Taken(delta, float(min(update.head.samples, self.settings.samples_cap)), length)

    def _head(self, update: Update, asked: Round, now: int, *, late: bool) -> Refused | None:
        head, skew = update.head, int(self.settings.skew_s * 1e6)
        if head.round != asked.round:
            return refusal("replay", f"sent for round {asked.round}, signed for round {head.round}")
        if head.model != asked.model:
            return refusal("model", f"{head.model}; the round is of {asked.model}")
        if head.base != asked.base.sha256:
            return refusal("base", f"learned from {head.base[:12]}, not from {asked.base.sha256[:12]}")
        if head.codec != asked.codec:
            return refusal("codec", f"{head.codec}; {asked.codec} was asked for")
        if head.at < asked.opened_at - skew or head.at > now + skew:
            return refusal("time", f"of {head.at}; the round began at {asked.opened_at}, it is {now}")
        if not 1 <= head.samples <= self.settings.samples_most:
            return refusal("samples", f"{head.samples} claimed; 1 to {self.settings.samples_most} can be")
        if head.samples < asked.experience:
            return refusal("experience", f"{head.samples} transitions, too few yet: {asked.experience} are asked for")
        if not late and now > asked.deadline:
            return refusal("late", f"at {now}; the deadline was {asked.deadline}")
        return None

    def sift(
        self,
        state: GateState,
        *,
        round: int,
        steps: int,
        names: Sequence[str],
        updates: Stack,
        lengths: Lengths | None = None,
        behaviour: Stack | None = None,
        along: Sequence[float] | None = None,
        refused: Mapping[str, Refused] | None = None,
        longest: float = np.inf,
    ) -> tuple[Sifted, GateState]:
        """Who of `names`, rows of `updates` (K, P), is averaged; `refused`: what was refused on arrival.

        `longest`: norm of the base, beyond which nobody learns in one round; it counts where others are too few.

        `lengths` (K,): norms of the rows, if they are known. `behaviour` (K, D) and `along` (K,) are what the probe
        said of each. Nodes in quarantine are judged beside the others, who are judged without them.
        """
        lengths = norms(updates) if lengths is None else lengths
        inside = np.array([name not in state.quarantined for name in names], bool)
        known = state.norms if state.steps == steps else []
        far = _too_long(lengths, inside, known, self.settings.far, longest)
        found = {names[k]: refusal("norm", _of_norm(lengths[k], *far[1:])) for k in np.flatnonzero(far[0]).tolist()}
        near = inside & ~far[0]
        cosines, gained = _beside(updates, lengths, near)
        against = (gained >= CAP) & ~far[0]
        middle = densest_half(cosines[near])[0] if near.sum() > 1 else 0.0
        for k in np.flatnonzero(against).tolist():
            found[names[k]] = refusal("against", f"cosine {cosines[k]:.2f} with the others, who have {middle:.2f}")
        turned = np.zeros(len(names), bool)
        if behaviour is not None:
            fresh = near & np.array([name not in state.seen for name in names], bool)
            first, turned = turned_first(behaviour, norms(behaviour), fresh)
            turned &= ~against
            for k in np.flatnonzero(turned).tolist():
                text = f"its first update turns decisions: cosine {first[k]:.2f} with those of the others' first ones"
                found[names[k]] = refusal("decisions", text)
        undone = np.zeros(len(names)) if along is None else taken_back(np.array(along, float), near)
        offences = {**(refused or {}), **found}
        nodes, there = dict(state.nodes), set(names)
        accused: dict[str, str] = {}
        for k, name in enumerate(names):
            if name in nodes or gained[k] > 0 or undone[k] > 0:
                nodes[name] = doubted(nodes.get(name, Record()), float(gained[k]), float(undone[k]))
        for name in {*nodes, *offences}:
            record = nodes.get(name, Record())
            nodes[name], why = weighed(
                record,
                round,
                offences.get(name),
                there=name in there,
                strikes=self.settings.strikes,
                lifted_after=self.settings.lifted_after,
            )
            if why:
                accused[name] = why
        kept = near & ~against & ~turned & np.array([name not in accused for name in names], bool)
        lengths_kept = [float(x) for x in lengths[kept] if x > 0]
        after = GateState(
            nodes={name: one for name, one in nodes.items() if one != Record()},
            norms=[*known, *lengths_kept][-NORMS:],
            steps=steps,
            seen=state.seen | there,
        )
        return Sifted(kept, {name: one for name, one in found.items() if name not in state.quarantined}, accused), after


def _too_long(
    lengths: Lengths, inside: Mask, known: Sequence[float], far: float, longest: float
) -> tuple[Mask, float, str]:
    """Which rows are, (K,), and the length that all are compared with."""
    here = [float(x) for x in lengths[inside] if x > 0]
    if len(here) < LEAST_NODES:
        here = [*known, *here] if len(known) >= LEAST_NODES else []
    if not here:
        return lengths > longest, longest, "norm of the base"
    middle = float(np.median(here))
    return lengths > far * middle, middle, "median"


def _of_norm(length: float, other: float, what: str) -> str:
    return f"norm {length:.3g}, {length / other:.3g} times the {what}, {other:.3g}"


def _beside(updates: Stack, lengths: Lengths, among: Mask) -> tuple[F64, F64]:
    """Cosine of each row with the rows of `among` other than itself, and the evidence in it, (K,) each."""
    cosines = agreement(updates, lengths, among)
    gained = np.zeros(len(lengths))
    counted = lengths > 0
    gained[counted] = evidence(cosines, among & counted)[counted]
    return cosines, gained
