"""The words of one judge's term: who judges, and how long that is good. A later word is higher, in any later term, too.

It is good for `Pace.word_s`, and longer by how late messages come: that is told by it, too, to who judges next.

words = Words("s1", authority, pace); envelope = words.next(body, book.late_us)
"""

from __future__ import annotations

from dataclasses import dataclass

from messages.clock import SECOND
from messages.contracts import Envelope
from messages.negotiation import Authority, JudgeInForce
from messages.pace import Pace

PER_TERM = 2**20
"""Counters of the words of one term."""


@dataclass
class Words:
    """One term's."""

    site: str
    authority: Authority
    pace: Pace
    said: int = 0

    def next(self, body: JudgeInForce, late_us: int = 0) -> Envelope[JudgeInForce]:
        """One more; messages come so late."""
        self.said += 1
        return Envelope[JudgeInForce](
            key="judge",
            target=f"{self.site}/all",
            counter=self.authority.term * PER_TERM + self.said,
            valid_until=body.at + round(self.pace.word_s * SECOND) + late_us,
            body=body,
        )
