"""The gate: an update is taken or refused, by what can be checked on it alone and by how it stands beside the others.

    gate = Gate(settings, keys={"press-4": public_key(…)})
    verdict = gate.judge("press-4", update, asked, now)          # on arrival: Taken(delta, weight) | Refused(…)
    sifted, state = gate.sift(state, round=7, steps=500, taken=…, refused=…)   # at the close

On arrival, in this order: signature of the node whose topic it is; the round's number, model, base, codec; the time;
samples; shape; finite numbers. None of it depends on what came before, so that a restart judges alike.
At the close, beside the others: norm at most `far` times the median (of this round, or of the last ones where fewer
than `LEAST_NODES` took part), then direction (`outliers`); of first updates also what they do to decisions (`probe`).
Only of first ones: later each node's head is its own, and a cell whose reward was turned round has learned the same
body as others under a head that says the opposite. Such a body does no harm, and nothing in it tells who sent it.

A signed update that breaks a rule is evidence against its node: one strike a round at most, a clean round takes one
off. `strikes` of them, or a proof, quarantine it: its updates are judged still but not taken, until it was
clean for `lifted_after` rounds, or by hand. What anybody could have sent in its name, and what is merely late or
early, is no strike. Bounds: nodes whose key is known, `EVIDENCE` lines for each, `NORMS` lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cloud.aggregation.seam import Stack, Vector, norms
from cloud.outliers import CAP, F64, LEAST_NODES, PROVED, Mask, agreement, densest_half, evidence, suspicion
from messages.errors import BadMessage
from messages.learning import Round, Update
from messages.updates import delta_of, signer

EVIDENCE = 5
"""Lines kept against a node, the newest."""
NORMS = 256
"""Lengths of accepted deltas that are remembered."""
TEXT = 200
"""Characters of a line of evidence."""

STRIKES = frozenset(
    {"model", "base", "codec", "shape", "samples", "not_finite", "replay", "changed", "norm", "against", "decisions"}
)
"""Reasons that count against the node that signed."""

PROOFS = frozenset({"decisions"})
"""Reasons that are enough by themselves: what is alike at the beginning does not turn round by chance."""


class GateSettings(BaseModel):
    """What is let through."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples_cap: int = Field(5_000, ge=1, description="an update weighs its samples, at most this")
    samples_most: int = Field(1_000_000, ge=1, description="more samples than a node can have: refused")
    far: float = Field(5.0, gt=1, description="largest norm of a delta, in medians of all norms")
    skew_s: float = Field(60.0, ge=0, description="how far a node's clock may be off")
    strikes: int = Field(3, ge=1, description="strikes that quarantine a node")
    lifted_after: int = Field(10, ge=1, description="clean rounds in a row that end a quarantine")


@dataclass(frozen=True)
class Taken:
    """An update as it counts."""

    delta: Vector
    weight: float
    behaviour: Vector | None = None
    """what the probe said of it"""


@dataclass(frozen=True)
class Refused:
    """Why not. `reason` is one word, `evidence` a line with the figures."""

    reason: str
    evidence: str

    @property
    def strike(self) -> bool:
        """Does it count against the node?"""
        return self.reason in STRIKES

    def __str__(self) -> str:
        return f"{self.reason}: {self.evidence}"


Verdict: TypeAlias = Taken | Refused
Lengths: TypeAlias = NDArray[np.float32]


class Evidence(BaseModel):
    """One line against a node."""

    round: int
    reason: str
    text: str = Field(max_length=TEXT)


class Record(BaseModel):
    """What is known of one node."""

    strikes: int = 0
    doubt: float = 0.0
    """sum of evidence by the direction of its deltas"""
    quarantined: int | None = None
    """since this round"""
    clean: int = 0
    """rounds without a strike, in quarantine"""
    evidence: list[Evidence] = []


class GateState(BaseModel):
    """What the gate knows between rounds; it changes at a close only."""

    nodes: dict[str, Record] = {}
    norms: list[float] = []
    """of accepted deltas of the last rounds, above zero"""
    steps: int = 0
    """of training, that those norms are of"""
    seen: set[str] = set()
    """nodes that an update was judged of beside the others"""

    @property
    def quarantined(self) -> list[str]:
        """Whose updates are not taken."""
        return sorted(node for node, one in self.nodes.items() if one.quarantined is not None)

    def lifted(self, node: str) -> GateState:
        """The same with nothing against this node, by hand."""
        return self.model_copy(update={"nodes": {name: one for name, one in self.nodes.items() if name != node}})

    def put_away(self, node: str, *, round: int, why: str) -> GateState:
        """The same with this node in quarantine, by hand."""
        record = _against(self.nodes.get(node, Record()), round, Refused("by_hand", why))
        return self.model_copy(update={"nodes": {**self.nodes, node: record.model_copy(update={"quarantined": round})}})


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
            return _refused("signature", str(error))
        if who != node:
            return _refused("signer", f"signed by {who}, sent as {node}")
        if found := self._head(update, asked, now, late=late):
            return found
        try:
            delta = delta_of(update)
        except BadMessage as error:
            return _refused("shape", str(error))
        if len(delta) != asked.shared:
            return _refused("shape", f"{len(delta)} numbers; {asked.shared} are shared")
        if not np.isfinite(norms(delta[None])[0]):
            wrong = int((~np.isfinite(delta)).sum())
            return _refused("not_finite", f"{wrong} of {len(delta)} numbers are none" if wrong else "numbers too large")
        return Taken(delta, float(min(update.head.samples, self.settings.samples_cap)))

    def _head(self, update: Update, asked: Round, now: int, *, late: bool) -> Refused | None:
        head, skew = update.head, int(self.settings.skew_s * 1e6)
        if head.round != asked.round:
            return _refused("replay", f"sent for round {asked.round}, signed for round {head.round}")
        if head.model != asked.model:
            return _refused("model", f"{head.model}; the round is of {asked.model}")
        if head.base != asked.base.sha256:
            return _refused("base", f"learned from {head.base[:12]}, not from {asked.base.sha256[:12]}")
        if head.codec != asked.codec:
            return _refused("codec", f"{head.codec}; {asked.codec} was asked for")
        if head.at < asked.opened_at - skew or head.at > now + skew:
            return _refused("time", f"of {head.at}; the round began at {asked.opened_at}, it is {now}")
        if not 1 <= head.samples <= self.settings.samples_most:
            return _refused("samples", f"{head.samples} claimed; 1 to {self.settings.samples_most} can be")
        if not late and now > asked.deadline:
            return _refused("late", f"at {now}; the deadline was {asked.deadline}")
        return None

    def sift(
        self,
        state: GateState,
        *,
        round: int,
        steps: int,
        names: Sequence[str],
        updates: Stack,
        behaviour: Stack | None = None,
        refused: Mapping[str, Refused] | None = None,
    ) -> tuple[Sifted, GateState]:
        """Who of `names`, rows of `updates` (K, P), is averaged; `refused`: what was refused on arrival.

        `behaviour` (K, D) is what the probe said of each. Nodes in quarantine are judged beside the others, who are
        judged without them.
        """
        lengths = norms(updates)
        inside = np.array([name not in state.quarantined for name in names], bool)
        known = state.norms if state.steps == steps else []
        far = _too_long(lengths, inside, known, self.settings.far)
        found = {names[k]: _refused("norm", _of_norm(lengths[k], far[1])) for k in np.flatnonzero(far[0]).tolist()}
        near = inside & ~far[0]
        cosines, gained = _beside(updates, lengths, near)
        against = (gained >= CAP) & ~far[0]
        middle = densest_half(cosines[near])[0] if near.sum() > 1 else 0.0
        for k in np.flatnonzero(against).tolist():
            found[names[k]] = _refused("against", f"cosine {cosines[k]:.2f} with the others, who have {middle:.2f}")
        turned = np.zeros(len(names), bool)
        if behaviour is not None:
            fresh = near & np.array([name not in state.seen for name in names], bool)
            along, gained_by_doing = _beside(behaviour, norms(behaviour), fresh)
            turned = fresh & ~against & (gained_by_doing >= CAP)
            for k in np.flatnonzero(turned).tolist():
                text = f"its first update turns decisions: cosine {along[k]:.2f} with those of the others' first ones"
                found[names[k]] = _refused("decisions", text)
        offences = {**(refused or {}), **found}
        nodes, there = dict(state.nodes), set(names)
        accused: dict[str, str] = {}
        for k, name in enumerate(names):
            if name in nodes or gained[k] > 0:
                nodes[name] = _doubted(nodes.get(name, Record()), float(gained[k]))
        for name in {*nodes, *offences}:
            record = nodes.get(name, Record())
            nodes[name], why = self._weighed(record, round, offences.get(name), name in there)
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

    def _weighed(self, record: Record, round: int, offence: Refused | None, there: bool) -> tuple[Record, str]:
        """The record after a round, and why the node is accused, if it is from now on."""
        bad = offence is not None and offence.strike
        if bad and offence is not None:
            weight = self.settings.strikes if offence.reason in PROOFS else 1
            record = _against(record, round, offence).model_copy(
                update={"strikes": record.strikes + weight, "clean": 0}
            )
        elif there:
            record = record.model_copy(update={"strikes": max(0, record.strikes - 1), "clean": record.clean + 1})
        why = ""
        if record.doubt >= PROVED:
            why = f"its deltas point against the others', evidence {record.doubt:.1f} of {PROVED}"
        elif record.strikes >= self.settings.strikes:
            why = f"{record.strikes} strikes, the last one {record.evidence[-1].reason}: {record.evidence[-1].text}"
        if record.quarantined is not None:
            if record.clean >= self.settings.lifted_after and not why:
                return Record(evidence=record.evidence), ""
            return record.model_copy(update={"clean": 0}) if why else record, ""
        if why:
            record = _against(record, round, _refused("quarantined", why))
            return record.model_copy(update={"quarantined": round, "clean": 0}), why
        return record.model_copy(update={"clean": 0}), ""


def _refused(reason: str, text: str) -> Refused:
    return Refused(reason, text[:TEXT])


def _against(record: Record, round: int, offence: Refused) -> Record:
    line = Evidence(round=round, reason=offence.reason, text=offence.evidence[:TEXT])
    return record.model_copy(update={"evidence": [*record.evidence, line][-EVIDENCE:]})


def _doubted(record: Record, gained: float) -> Record:
    doubt = float(suspicion(np.array([record.doubt]), np.array([gained]))[0])
    limit = 2 * PROVED  # what was proved is forgotten again in as many clean rounds, not in more
    return record.model_copy(update={"doubt": min(limit, doubt)})


def _too_long(lengths: Lengths, inside: Mask, known: Sequence[float], far: float) -> tuple[Mask, float]:
    """Which rows are, (K,), and the length that all are compared with."""
    here = [float(x) for x in lengths[inside] if x > 0]
    if len(here) < LEAST_NODES:
        here = [*known, *here] if len(known) >= LEAST_NODES else []
    if not here:
        return np.zeros(len(lengths), bool), 0.0
    middle = float(np.median(here))
    return lengths > far * middle, middle


def _of_norm(length: float, middle: float) -> str:
    return f"norm {length:.3g}, {length / middle:.0f} times the median of {middle:.3g}"


def _beside(updates: Stack, lengths: Lengths, among: Mask) -> tuple[F64, F64]:
    """Cosine of each row with the rows of `among` other than itself, and the evidence in it, (K,) each."""
    cosines = agreement(updates, lengths, among)
    gained = np.zeros(len(lengths))
    counted = lengths > 0
    gained[counted] = evidence(cosines, among & counted)[counted]
    return cosines, gained
