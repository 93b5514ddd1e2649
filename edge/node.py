"""One node between its machines and the cloud: what arrives is kept, cleaned, acted on and handed over.

Every decision and what it is based on are one transaction: cleaned rows, records, the state of cleaning and of
the executor, and the inbox rows they came from. What is sent (actions, acknowledgements of plans) is sent after
the commit; it may be lost, and is then repeated by the executor, or after the next connect.
State outlives connections; the wiring is in `service.py`. Bound: `inbox_bytes` of bursts wait, then intake
does not return, their messages stay unacknowledged, and the devices hold back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from edge.bidding import Bidding
from edge.cleaning import Cleaned, Cleaner
from edge.delegate import Standing, Word
from edge.disk import Disk
from edge.executor import Executor, Out
from edge.intake import Incoming, Intake, Waiting
from edge.latest import LatestValues
from edge.outbox import Outbox
from edge.patience import Patience
from edge.poison import Rebuild, clean_apart
from edge.uplink import Freshness, Uplink
from messages.bus import Bus, Received
from messages.clock import SECOND, Clock, LockStepClock
from messages.contracts import Burst, Capability, Health, PlanAck, Presence, Record, Taken
from messages.errors import BadMessage, BusLost
from messages.logs import get_logger
from messages.message import Message
from messages.negotiation import Offer, task_of
from messages.route import Route
from messages.routes import (
    ACTION,
    AGENDA,
    AWARD_ACK,
    BID,
    BURST,
    CAPABILITY,
    HEALTH,
    LATEST,
    PEER_ACK,
    PEER_AGENDA,
    PEER_BID,
    PLAN_ACK,
    PRESENCE,
    TAKEN,
)

STEP_BURSTS, STEP_READINGS = 256, 100_000
"""Cleaned and committed in one step, at most (one burst always)."""
SETTLE_S = 1.0

log = get_logger("edge")

T = TypeVar("T")


@dataclass
class Node:
    """Handlers and loops of one edge node."""

    site: str
    node: str
    session: str
    clock: Clock
    disk: Disk
    outbox: Outbox
    intake: Intake
    cleaner: Cleaner
    rebuild: Rebuild
    executor: Executor
    standing: Standing
    latest: LatestValues
    uplink: Uplink
    freshness: Freshness
    local: Bus
    cloud: Bus
    site_bus: Bus
    """The peer plane, apart from machines: what other nodes say must not crowd out readings that wait at the broker."""
    capability: Capability
    inbox_bytes: int
    health_s: float = 5.0
    monotonic: Callable[[], float] = time.monotonic
    also: list[Callable[[], dict[str, float]]] = field(default_factory=list)
    """Counters of whoever else takes in, and of the delegate."""
    first: list[Callable[[list[Received], int], None]] = field(default_factory=list)
    """Who is asked about bursts before they are kept: it must not wait for a disk."""
    unsent: int = 0
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _processed: int = 0
    _bad: int = 0
    _odd: int = 0
    """of those the ones that no device said"""
    _cleaned_out: int = 0
    _executor_kept: bytes = b""
    _ack: PlanAck | None = None
    _agenda_said: dict[str, tuple[object, ...]] = field(default_factory=dict)
    """By route: what of it is news."""
    _agenda_at: int = 0

    def __post_init__(self) -> None:
        self.bidding = Bidding(self.executor)
        self._before = self.intake.waiting
        self.patience = Patience(self.disk.commit_s)
        self._cleaner_kept = self.disk.state("cleaner")
        ack = self.disk.state("plan_ack")
        self._ack = PlanAck.decode(ack) if ack else None

    # --- what arrives ------------------------------------------------------------------------------

    async def on_bursts(self, received: list[Received]) -> None:
        """Readings of machines: on the disk when this returns (then MQTT acknowledges), and `Taken` is said."""
        now = await self.now()
        for asked in self.first:
            asked(received, now)
        while self.intake.waiting_bytes > self.inbox_bytes:
            self._moved.clear()
            await self._moved.wait()
        now = await self.now()
        incoming = [Incoming(one.ids["device"], one.payload, one.message) for one in received]
        taking = asyncio.ensure_future(self.intake.take(incoming, now, monotonic_s=self.monotonic()))
        taking.add_done_callback(lambda one: one.cancelled() or one.exception())  # we may be stopped before we look
        if self.disk.commit_s:
            await self._gather(incoming, taking)
        taken = await taking
        self._arrived.set()
        for device, message in taken:
            self.send(self.local, TAKEN, message, device=device)

    async def take_in(self, job: Callable[[int], T]) -> T:
        """For who hears devices in another way: `job` (it gets the time) in one commit, once the inbox has room."""
        while self.intake.waiting_bytes > self.inbox_bytes:
            self._moved.clear()
            await self._moved.wait()
        now = await self.now()
        done = await self.disk.write_soon(lambda: job(now), size=0)
        self._arrived.set()
        return done

    async def on_bad(self, topic: str, payload: bytes, reason: str) -> None:
        """Bytes that break a contract: a device's are rejected once and taken, others only counted."""
        self._bad += 1
        try:
            device = BURST.ids(topic)["device"]
        except BadMessage:
            self._odd += 1
            if self._odd & (self._odd - 1) == 0:  # the 1st, 2nd, 4th, 8th …
                log.warning("edge.bad_message", topic=topic[:200], reason=reason[:500], bad=self._odd)
            return
        now = await self.now()
        for _, taken in await self.intake.take_broken(device, payload, reason, now, monotonic_s=self.monotonic()):
            self.send(self.local, TAKEN, taken, device=device)
        self.uplink.wake()

    async def on_plan(self, received: Received) -> None:
        """The plan in force: obeyed and on the disk before it is acknowledged."""
        now = await self.now()
        await self._commit(self.executor.on_plan(received.message, now), now)

    async def on_judge(self, received: Received) -> None:
        """Who awards work, by the cloud's word: the highest is obeyed, from here on and after a restart."""
        await self._obey(received.message, cloud=True)

    async def on_peer_judge(self, received: Received) -> None:
        """Who awards work, by a delegate's word."""
        await self._obey(received.message, cloud=False)

    async def _obey(self, word: Word, *, cloud: bool) -> None:
        now = await self.now()
        self.standing.on_judge(word, now, cloud=cloud)
        await self._commit(Out(), now)
        if word.body.authority < self.standing.obeyed:  # whoever spoke learns from it that there is a higher one
            self._say_agenda(now, again=True)

    async def on_delegation(self, received: Received) -> None:
        """The open jobs, should this node have to judge."""
        now = await self.now()
        self.standing.on_delegation(received.message, now)
        await self._commit(Out(), now)

    async def on_offer(self, received: Received) -> None:
        """Work to be had: a bid, unless another judge is obeyed here. A bid binds nobody and is not kept."""
        await self._bid(received.message, self.cloud, BID)

    async def on_peer_offer(self, received: Received) -> None:
        """A delegate's offer names machines of many nodes: ours are asked, if there are any."""
        offer: Offer = received.message
        mine = {name: seconds for name, seconds in offer.seconds.items() if name in self.executor.machines}
        if mine:
            await self._bid(offer.model_copy(update={"seconds": mine}), self.site_bus, PEER_BID)

    async def _bid(self, offer: Offer, bus: Bus, route: Route) -> None:
        now = await self.now()
        obeyed = self.executor.awards.authority
        bid = self.bidding.bid(offer, now)
        if self.executor.awards.authority != obeyed:  # the offer was the first word of a new judge
            await self._commit(Out(), now)
        if bid is not None:
            self.send(bus, route, bid, task=task_of(bid.job, bid.op))

    async def on_award(self, received: Received) -> None:
        """A task is ours, or ours no more: on the disk before it is acknowledged."""
        now = await self.now()
        await self._commit(self.executor.on_award(received.message, now), now)

    async def on_peer_award(self, received: Received) -> None:
        """The same by a delegate: it, not the cloud, is answered."""
        now = await self.now()
        await self._commit(self.executor.on_award(received.message, now), now, to=(self.site_bus, PEER_ACK))

    async def on_award_cleared(self, ids: dict[str, str]) -> None:
        """The judge took an award from the broker: what is done need not be said again. Kept with what comes next."""
        self.executor.awards.confirmed(ids["task"])

    async def on_signal(self, received: Received) -> None:
        """A forecast, for bids. A newer one replaces it; brokers keep it, so no disk does."""
        signal = received.message
        known = self.bidding.signals.get(signal.name)
        if known is None or signal.revision > known.revision:
            self.bidding.signals[signal.name] = signal

    async def on_tick(self, now: int) -> None:
        """Time has come: first everything that had arrived is worked through, then what is due is done."""
        target = self._before + self.intake.counts.bursts
        while self._processed < target:
            self._moved.clear()
            await self._moved.wait()
        await self._commit(self.executor.on_time(now), now)
        self._say_agenda(now, again=now - self._agenda_at >= self.executor.pace.agenda_s * SECOND)

    # --- loops -------------------------------------------------------------------------------------

    async def process(self) -> None:
        """Clean what is in the inbox, in order, until cancelled."""
        await self.now()
        while True:
            while await self._step():
                pass
            await self._arrived.wait()
            self._arrived.clear()

    async def settle(self) -> None:
        """Once a second of real time: gaps whose grace is over, refusals held back."""
        while True:
            await self.intake.settle(await self.now(), monotonic_s=self.monotonic())
            self.uplink.wake()
            await asyncio.sleep(SETTLE_S)

    async def say_latest(self) -> None:
        """Last known values, as often as each device may speak."""
        while True:
            for device, message in self.latest.due(self.monotonic()):
                if not self.send(self.cloud, LATEST, message, device=device):
                    self.latest.again(device)
            await asyncio.sleep(0.2)

    async def say_health(self) -> None:
        """Counters, for whoever listens."""
        while True:
            await self.cloud.connected.wait()
            self.send(self.cloud, HEALTH, self.health())
            await asyncio.sleep(self.health_s)

    # --- connections -------------------------------------------------------------------------------

    async def on_local_connect(self) -> None:
        """Machines may not have heard us: what is unanswered is asked again."""
        now = self.clock.now()
        await self._commit(self.executor.on_connect(now), now)

    async def on_site_connect(self) -> None:
        """The site's nodes may not have heard what is held here."""
        self._say_agenda(self.clock.now(), greeted=self.site_bus)

    async def on_cloud_connect(self) -> None:
        """A broker may have lost what it retained: its owner says it again."""
        online = Presence(online=True, session=self.session, at=self.clock.now() or None)
        await self.cloud.publish(PRESENCE, online, site=self.site, node=self.node)
        await self.cloud.publish(CAPABILITY, self.capability, site=self.site, node=self.node)
        if self._ack is not None:
            await self.cloud.publish(PLAN_ACK, self._ack, site=self.site, node=self.node)
        self._say_agenda(self.clock.now(), greeted=self.cloud)
        self.latest.again()

    # --- figures -----------------------------------------------------------------------------------

    def health(self) -> Health:
        """Counters since the start, and gauges; the names are a stable face."""
        taken, kept, sent = self.intake.counts, self.outbox.counts, self.uplink.counts
        counters = {
            "bursts": taken.bursts,
            "readings": taken.readings,
            "repeats": taken.repeats,
            "gaps": taken.gaps,
            "gap_readings": taken.gap_readings,
            "rejected": taken.refused,
            "rejected_readings": taken.refused_readings + self._cleaned_out,
            "inbox_bursts": self.intake.waiting,
            "inbox_bytes": self.intake.waiting_bytes,
            **{f"outbox_{lane}": count for lane, count in self.outbox.held.items()},
            "outbox_bytes": self.outbox.bytes,
            "batches": kept.batches,
            "freed": kept.freed,
            "evicted": kept.evicted,
            "evicted_readings": kept.evicted_readings,
            "foreign_stored": kept.foreign,
            "sent": sent.sent,
            "resent": sent.resent,
            "unsent": self.unsent,
            "commits": self.disk.commits,
            "disk_bytes": self.disk.bytes,
            "reconnects": self.cloud.counts.reconnects,
            "local_reconnects": self.local.counts.reconnects,
            "bad_messages": self._bad,
        }
        more = {name: count for counts in self.also for name, count in counts().items()}
        return Health(
            at=self.clock.now(), session=self.session, counters={k: float(v) for k, v in counters.items()} | more
        )

    # --- private -----------------------------------------------------------------------------------

    async def now(self) -> int:
        """Plant time. In lock step nothing is judged before the first tick has said what time it is."""
        if isinstance(self.clock, LockStepClock):
            await self.clock.started.wait()
        return self.clock.now()

    async def _gather(self, incoming: list[Incoming], taking: asyncio.Future[list[tuple[str, Taken]]]) -> None:
        """While these wait to share a commit: look whether waiting still pays, as the next come only after them."""
        size = sum(len(one.payload) for one in incoming)
        self.patience.came(len(incoming), self.monotonic())
        waiting = self.patience.begin(size, self.monotonic())
        while not (await asyncio.wait({taking}, timeout=self.patience.pause_s))[0]:
            if waiting.over(size + self.local.waiting * size // len(incoming), self.monotonic()):
                self.disk.hurry()
                return

    async def _step(self) -> bool:
        done = await self.disk.read(lambda: self.intake.unprocessed(bursts=STEP_BURSTS, readings=STEP_READINGS))
        if not done:
            return False
        # From here to the commit nothing is awaited, so that no other decision comes between state and snapshot.
        now = self.clock.now()
        cleaned = self._clean([(one.device, one.burst) for one in done], now)
        out = Out()
        for one in done:
            out += self.executor.on_boot(one.device, one.burst.boot, now)
            if one.burst.events:
                out += self.executor.on_events(one.device, one.burst.events, now)
        self.latest.update(cleaned.tables)
        await self._commit(out, now, cleaned, done)
        self._processed += len(done)
        self._cleaned_out += sum(one.readings for one in cleaned.rejected)
        self._moved.set()
        return True

    def _clean(self, bursts: list[tuple[str, Burst]], now: int) -> Cleaned:
        try:
            return self.cleaner.clean(bursts, now)
        except Exception as error:  # any bug: these bursts are on the disk, and would end the node at every start
            log.warning("edge.cleaning_apart", bursts=len(bursts), exception=f"{type(error).__name__}: {error}"[:500])
            self.cleaner, cleaned = clean_apart(self.rebuild, self._cleaner_kept, bursts, now)
            return cleaned

    async def commit(self, now: int) -> None:
        """What was heard of judges is on the disk when this returns, if it was news."""
        await self._commit(Out(), now)

    async def _commit(
        self,
        out: Out,
        now: int,
        cleaned: Cleaned | None = None,
        done: list[Waiting] | None = None,
        *,
        to: tuple[Bus, Route] | None = None,
    ) -> None:
        """State, records, rows and what they came from together; then send what was decided, awards' answers `to`."""
        self.standing.obey(self.executor.awards.authority)
        self.executor.awards.obey(self.standing.obeyed)
        heard = self.standing.changed()
        executor = self.executor.snapshot()
        records = [*out.records, *(cleaned.rejected if cleaned else ())]
        alarms = [record for record in records if _is_alarm(record)]
        others = [record for record in records if not _is_alarm(record)]
        changed = executor != self._executor_kept
        if changed or records or done or heard or out.ack or out.award_acks:
            cleaner = self.cleaner.snapshot() if done else None
            monotonic_s = self.monotonic()

            def job() -> None:
                if alarms:
                    self.outbox.put("alarm", made_at=now, records=alarms)
                if others:
                    self.outbox.put("record", made_at=now, records=others)
                if cleaned and cleaned.tables:
                    self._put_readings(cleaned, now, monotonic_s)
                if changed:
                    self.disk.keep("executor", executor)
                for key, blob in heard.items():
                    self.disk.keep(key, blob)
                if cleaner is not None:
                    self.disk.keep("cleaner", cleaner)
                    self._cleaner_kept = cleaner
                if out.ack:
                    self.disk.keep("plan_ack", out.ack.encode())
                if done:
                    self.intake.processed(done)

            self._executor_kept = executor
            if records or out.actions or out.ack or out.award_acks or not done:
                await self.disk.write(job)
            else:  # readings alone
                await self.disk.write_soon(job, size=sum(one.size for one in done or ()))
            self.uplink.wake()
        for device, action in out.actions:
            self.send(self.local, ACTION, action, device=device)
        if out.ack:
            self._ack = out.ack
            self.send(self.cloud, PLAN_ACK, out.ack)
        for ack in out.award_acks:
            self.send(*(to or (self.cloud, AWARD_ACK)), ack, task=task_of(ack.job, ack.op))
        self._say_agenda(now)

    def _say_agenda(self, now: int, *, again: bool = False, greeted: Bus | None = None) -> None:
        """What is held and who is obeyed: to cloud and site when that has changed, or to the one `greeted`."""
        awards, standing = self.executor.awards, self.standing
        told = (awards.term, awards.session, awards.revision, standing.until, standing.ready)
        agenda = None
        for bus, route in ((self.cloud, AGENDA), (self.site_bus, PEER_AGENDA)):
            news = bus.connected.is_set() and (again or told != self._agenda_said.get(route.name))
            if not (bus is greeted if greeted else news):
                continue
            agenda = agenda or self.bidding.agenda(now)
            if agenda is None:
                return
            agenda = agenda.model_copy(update={"judge_until": standing.until, "delegate": standing.ready})
            if self.send(bus, route, agenda):
                self._agenda_said[route.name], self._agenda_at = told, now

    def _put_readings(self, cleaned: Cleaned, now: int, monotonic_s: float) -> None:
        behind = self.freshness.behind(self.outbox.oldest("live"), monotonic_s)
        seqs = self.outbox.put("backlog" if behind else "live", made_at=now, series=cleaned.series)
        if not behind:
            self.freshness.sealed(seqs[-1], monotonic_s)

    def send(self, bus: Bus, route: Route, message: Message, payload: bytes | None = None, /, **level: str) -> bool:
        """Send what may be lost: it is repeated by other means. Whether it went out. `payload`: the message's bytes,
        where they are fixed already."""
        ids = {"site": self.site, "node": self.node, **level}
        try:
            answer = bus.publish_nowait(route, message, expiry_s=None, payload=payload, **ids)
        except BusLost:
            self.unsent += 1
            return False
        answer.add_done_callback(self._look)
        return True

    def _look(self, answer: asyncio.Future[None]) -> None:
        if not answer.cancelled() and isinstance(answer.exception(), BusLost):
            self.unsent += 1


def _is_alarm(record: Record) -> bool:
    """What somebody must look at, and what it ended: in one batch, so that neither is heard without the other."""
    return record.kind in ("refused", "interrupted") or (
        record.kind == "state" and getattr(record, "state", None) == "down"
    )
