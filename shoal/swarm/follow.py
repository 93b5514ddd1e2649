"""What is said on a swarm's buses: batons, the view of the shop, who judges; and how many messages of each kind.

    follower = Follower(site); await follower.follow(watcher)          # per broker, until cancelled

Reads only. Retained messages that come again after a reconnect are not counted. Bounded by the plant: one baton per
job, a counter per kind, the last round of each task.
"""

from __future__ import annotations

from collections import Counter

from messages.errors import BadMessage
from messages.message import Message
from messages.negotiation import JudgeInForce, Offer, ShopView, Workpiece
from messages.observe import Seen, Watcher
from messages.route import Route
from messages.routes import (
    AGENDA,
    AWARD,
    AWARD_ACK,
    BATCH,
    BID,
    DELEGATION,
    JUDGE,
    OFFER,
    PEER_ACK,
    PEER_AGENDA,
    PEER_AWARD,
    PEER_BID,
    PEER_JUDGE,
    PEER_OFFER,
    SHOP,
    WORKPIECE,
)
from shoal.swarm.answers import Reign

KINDS: tuple[tuple[str, Route], ...] = (
    ("offer", OFFER),
    ("bid", BID),
    ("award", AWARD),
    ("ack", AWARD_ACK),
    ("agenda", AGENDA),
    ("judge", JUDGE),
    ("baton", WORKPIECE),
    ("shop", SHOP),
    ("delegation", DELEGATION),
    ("batch", BATCH),
    ("peer_offer", PEER_OFFER),
    ("peer_bid", PEER_BID),
    ("peer_award", PEER_AWARD),
    ("peer_ack", PEER_ACK),
    ("peer_agenda", PEER_AGENDA),
    ("peer_judge", PEER_JUDGE),
)


class Follower:
    """What was heard so far."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.counts: Counter[str] = Counter()
        self.bad = 0
        """Messages that broke their contract."""
        self.batons: dict[str, Workpiece] = {}
        self.shop: ShopView | None = None
        self.rounds: dict[tuple[str, int, int, int], None] = {}
        """Rounds of tendering heard of: job, op, term, round."""
        self.reigns: list[Reign] = []
        self._spoken = (0, "")

    async def follow(self, watcher: Watcher) -> None:
        """Until cancelled; over the death of the broker, too."""
        async for seen in watcher.messages(f"shoal/v1/{self.site}/#"):
            self.hear(seen)

    @property
    def retendered(self) -> int:
        """How often a task was tendered again, by the same judge or another."""
        return len(self.rounds) - len({(job, op) for job, op, _, _ in self.rounds})

    def hear(self, seen: Seen) -> None:
        """One message."""
        found = next(((kind, route) for kind, route in KINDS if route.matches(seen.topic)), None)
        if found is None or not seen.payload:
            return
        kind, route = found
        if not seen.retained:
            self.counts[kind] += 1
        if route in (OFFER, PEER_OFFER, WORKPIECE, SHOP, JUDGE, PEER_JUDGE):
            try:
                self._take(route.message.decode(seen.payload))
            except BadMessage:
                self.bad += 1

    def _take(self, message: Message) -> None:
        match message:
            case Offer():
                self.rounds[message.job, message.op, message.term, message.round] = None
            case Workpiece():
                known = self.batons.get(message.job)
                if known is None or message.revision >= known.revision:
                    self.batons[message.job] = message
            case ShopView():
                self.shop = message
            case _:
                body = getattr(message, "body", None)
                if body is not None and (body.term, body.session) > self._spoken:
                    self._on_judge(body)

    def _on_judge(self, word: JudgeInForce) -> None:
        """A higher judge began: the one before is over."""
        if self.reigns:
            self.reigns[-1].end = word.at
        self._spoken = (word.term, word.session)
        self.reigns.append(Reign(word.judge, word.term, word.at))

    @property
    def judge(self) -> str:
        """Who judges, as far as heard."""
        return self.reigns[-1].name if self.reigns else ""
