"""How long a judge awaits answers: as its pace says, and longer once bids have come too late for their round.

    awaiting = Awaiting(pace)
    awaiting.asked(task)                       # before it is offered again
    deadline = now + awaiting.us(pace.offer_s)
    awaiting.late(node, bid, task.round)       # it answers a round that is over
    awaiting.in_time(task.key)                 # all have answered
    awaiting.late_us                           # so much later than its pace says: for the next judge of the site

What was learned of the messages' way is not forgotten with a term: a judge begins with what the one before it left, and
a word is good for so much longer. One that is deposed although it judged was heard too late: the next of the cloud
begins with `longer`.

Bounds: at most `PATIENT.offer_s` for bids and in proportion for the rest; `MAX_MISSED` rounds are remembered.
"""

from __future__ import annotations

from messages.clock import SECOND
from messages.dispatch.task import Key, Task
from messages.negotiation import Bid
from messages.pace import PATIENT, Pace

PROMPT = 8
"""After so many rounds that all have answered in time, answers are awaited half as long, if they were awaited longer:
one that comes late then makes it as long again."""
MAX_MISSED = 4_096
"""Rounds and nodes that did not answer them in time which are remembered; what comes of an earlier one is no news."""


class Awaiting:
    """The patience of one judge."""

    def __init__(self, pace: Pace, late_us: int = 0) -> None:
        self._offer_us = round(pace.offer_s * SECOND)
        self._most = max(1.0, PATIENT.offer_s / pace.offer_s)
        self._slow = min(self._most, 1.0 + max(0, late_us) / self._offer_us)  # so many times as long as its pace says
        self._prompt = 0  # rounds since then in which all answered in time
        self._waited: dict[Key, float] = {}  # so many times as long in the round of each task
        self._missed: dict[tuple[Key, str, int], float] = {}  # the same of rounds a node had not answered

    @property
    def late_us(self) -> int:
        """How much later than its pace says answers are awaited."""
        return round((self._slow - 1.0) * self._offer_us)

    def us(self, seconds: float) -> int:
        """What a time of the pace is now, µs."""
        return round(self._slow * seconds * SECOND)

    def asked(self, task: Task) -> None:
        """It is offered once more: who has not answered has missed the round before."""
        for node in task.asked:
            self._missed[task.key, node, task.round] = self._waited.get(task.key, 1.0)
        while len(self._missed) > MAX_MISSED:
            del self._missed[next(iter(self._missed))]
        self._waited[task.key] = self._slow

    def late(self, node: str, bid: Bid, now_in: int) -> None:
        """It answers a round that is over, and had not answered it: answers need longer than was waited then."""
        waited = self._missed.pop(((bid.job, bid.op), node, bid.round), None)
        if waited is not None:
            self._slow, self._prompt = min(self._most, max(self._slow, 2.0 * waited * (1 + now_in - bid.round))), 0

    def in_time(self, key: Key) -> None:
        """All have answered; rounds that were offered before patience was last changed tell nothing."""
        if self._slow > 1 and self._waited.get(key) == self._slow:
            self._prompt += 1
            if self._prompt >= PROMPT:
                self._slow, self._prompt = max(1.0, self._slow / 2), 0

    def forget(self, key: Key) -> None:
        """Its job has left the book."""
        self._waited.pop(key, None)


def longer(late_us: int, pace: Pace) -> int:
    """What a judge begins with that was deposed although it judged: its word came too late."""
    most_us, offer_us = round(PATIENT.offer_s * SECOND), round(pace.offer_s * SECOND)
    return max(0, min(most_us - offer_us, max(2 * late_us, offer_us)))
