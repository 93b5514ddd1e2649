"""What is held against a node, and what follows: strikes, evidence, quarantine, and how it ends.

    record, why = weighed(record, round=7, offence=refused, there=True, strikes=3, lifted_after=10)

A signed update that breaks a rule is evidence against its node: one strike a round at most, a clean round takes one
off. `strikes` of them, or a proof, quarantine it: its updates are judged still but not taken, until it was clean for
`lifted_after` rounds, or by hand. What anybody could have sent in its name, and what is merely late or early, is no
strike. Silence is neither clean nor a strike. Bounds: `EVIDENCE` lines of `TEXT` characters for each node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field

from cloud.outliers import PROVED, suspicion

EVIDENCE = 5
"""Lines kept against a node, the newest."""
TEXT = 200
"""Characters of a line of evidence."""

STRIKES = frozenset({"base", "codec", "shape", "samples", "not_finite", "changed", "norm", "against", "decisions"})
"""Reasons that count against the node that signed. What it signed for another round or model is none of them: anybody
may have recorded it, and sent it where it does not belong."""

PROOFS = frozenset({"decisions"})
"""Reasons that are enough by themselves: what is alike at the beginning does not turn round by chance."""


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


class Evidence(BaseModel):
    """One line against a node."""

    round: int
    reason: str
    text: str = Field(max_length=TEXT)


class Record(BaseModel):
    """What is known of one node."""

    strikes: int = 0
    doubt: float = 0.0
    """sum of evidence by the direction of its deltas,"""
    undoing: float = 0.0
    """and by how far they take back what was learned together"""
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
        record = against(self.nodes.get(node, Record()), round, Refused("by_hand", why))
        return self.model_copy(update={"nodes": {**self.nodes, node: record.model_copy(update={"quarantined": round})}})


def weighed(
    record: Record, round: int, offence: Refused | None, *, there: bool, strikes: int, lifted_after: int
) -> tuple[Record, str]:
    """The record after a round, and why the node is accused, if it is from now on."""
    bad = offence is not None and offence.strike
    if bad and offence is not None:
        weight = strikes if offence.reason in PROOFS else 1
        counted = min(strikes, record.strikes + weight)  # no node is held against longer than is said
        record = against(record, round, offence).model_copy(update={"strikes": counted, "clean": 0})
    elif there:
        record = record.model_copy(update={"strikes": max(0, record.strikes - 1), "clean": record.clean + 1})
    why = ""
    if record.doubt >= PROVED:
        why = f"its deltas point against the others', evidence {record.doubt:.1f} of {PROVED}"
    elif record.undoing >= PROVED:
        why = f"its updates take back what all have learned, evidence {record.undoing:.1f} of {PROVED}"
    elif record.strikes >= strikes:
        why = f"{record.strikes} strikes, the last one {record.evidence[-1].reason}: {record.evidence[-1].text}"
    if record.quarantined is not None:
        if record.clean >= lifted_after and not why:
            return Record(evidence=record.evidence), ""
        return record.model_copy(update={"clean": 0}) if why else record, ""
    if why:
        record = against(record, round, refusal("quarantined", why))
        return record.model_copy(update={"quarantined": round, "clean": 0}), why
    return record.model_copy(update={"clean": 0}), ""


def refusal(reason: str, text: str) -> Refused:
    """With a line of evidence that is not too long."""
    return Refused(reason, text[:TEXT])


def against(record: Record, round: int, offence: Refused) -> Record:
    """The record with another line of evidence."""
    line = Evidence(round=round, reason=offence.reason, text=offence.evidence[:TEXT])
    return record.model_copy(update={"evidence": [*record.evidence, line][-EVIDENCE:]})


def doubted(record: Record, gained: float, undone: float) -> Record:
    """The record after the evidence that the direction of a delta gave, and what it takes back."""
    sums = suspicion(np.array([record.doubt, record.undoing]), np.array([gained, undone]))
    limit = 2 * PROVED  # what was proved is forgotten again in as many clean rounds, not in more
    doubt, undoing = np.minimum(limit, sums).tolist()
    return record.model_copy(update={"doubt": doubt, "undoing": undoing})
