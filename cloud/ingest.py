"""Ingest: what nodes hand over is written once, and only then is the node told that it may forget.

    ingest = Ingest(store, ledger, now=clock.now)
    bus.on(BATCH, ingest.on_batches, batch=True, site="ceramic")
    bus.on_bad(ingest.on_bad)
    bus.on_connect(ingest.on_connect)
    await ingest.announce(bus)                          # publishes StoredThrough, for ever

Promises: rows that live elsewhere are pushed first (idempotently, holding nothing else up), then batches, ledger
and counters are one commit where the store has transactions (else store first, then ledger), and the messages are
acknowledged after it; so a crash at any point means *again*, and again is a repeat. A store that is down is waited
for, for ever: nothing is acknowledged meanwhile, so the broker, then the nodes' outboxes hold it all. Whoever repeats
a stored batch has not heard of it and is told anew. A fork, a broken batch or an impossible row goes to quarantine
with its reason and stops nobody: a broken batch whose number can be read counts as stored, else its lane would wait
for it for ever. StoredThrough goes out at most every `ANNOUNCE_S` per node, the newest last, and again after every
reconnect.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace

from cloud.ledger import LaneKey, Ledger, Settled, Stored
from cloud.stores import BatchKey, Mirror, Pushed, QuarantineKind, Store, StoredBatch
from messages.bus import Bus, Received
from messages.contracts import Batch, Evicted, Lane, Mint, Record, Seq
from messages.errors import BadMessage, BusLost, BusRefused, StoreDown, StoreRefused
from messages.logs import get_logger
from messages.message import Message
from messages.routes import BATCH, STORED

ANNOUNCE_S = 0.05
"""Least time between two StoredThrough of one node."""
UNREADABLE_BYTES = 64 * 1024
"""Of a message that cannot even be numbered, so much is kept."""
RETRY_S = (0.1, 5.0)
"""First and longest wait for a store that is down, less jitter."""
ASKED_S = 60.0
"""A store may ask for a longer wait, up to this."""
SAY_AGAIN_S = 60.0
"""A store that stays down is logged so often."""
AGES = 10_000
"""Newest live batches whose age at the store is remembered, for `cloud.observer`."""
STATUS = "ingest"
"""Name under which the store keeps the counters, as JSON."""

log = get_logger("ingest")

OnStored = Callable[[Sequence[Record]], None]


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened since the store was made; kept in it, with the batches they count."""

    batches: int = 0
    readings: int = 0
    records: int = 0
    repeats: int = 0
    forks: int = 0
    bad_messages: int = 0
    """undecodable, or on a topic that contradicts them"""
    quarantined_readings: int = 0
    last_at: int = 0
    """plant time of the last batch, µs"""

    def more(self, **by: int) -> Counts:
        """These counts with `by` added."""
        return replace(self, **{name: getattr(self, name) + n for name, n in by.items()})


class Ingest:
    """Writes batches, keeps the ledger, and says what is stored."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        *,
        now: Callable[[], int],
        on_stored: OnStored | None = None,
        mirrors: Sequence[Mirror] = (),
        rng: random.Random | None = None,
    ):
        """`on_stored(records)` is called after every commit of new batches, to wake whoever reads the store.

        `mirrors` are offered the same batches, after the commit, and may drop them.
        """
        self._store, self._ledger, self._now, self._on_stored = store, ledger, now, on_stored
        self.mirrors, self._rng = mirrors, rng or random.Random()
        self.ages_s: deque[float] = deque(maxlen=AGES)
        """how old the newest reading of a live batch was when it was stored"""
        self.waits = 0
        """times the store was not ready"""
        self._unheard: dict[tuple[str, str], set[str]] = {}
        self._wake = asyncio.Event()
        self.counts = Counts(**_known(store.kept(STATUS)))

    # -- handlers -------------------------------------------------------------------------------------

    async def on_batches(self, received: list[Received]) -> None:
        """Returns when everything is committed: the bus acknowledges then."""

        async def step() -> None:
            work = self._sorted(received)
            self._commit(work, await self._store.push(work.fresh))

        await self.until_stored(step)

    async def on_bad(self, topic: str, payload: bytes, reason: str) -> None:
        """Returns when the message is in quarantine."""

        async def step() -> None:
            self.put_aside(topic, payload, reason)

        await self.until_stored(step)

    async def on_connect(self) -> None:
        """The broker may have lost what it retained: say everything again."""
        self._tell({node: set() for node in self._ledger.nodes})

    async def announce(self, bus: Bus) -> None:
        """Publish StoredThrough for every node about which there is news, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            unheard, self._unheard = self._unheard, {}
            told = await asyncio.gather(*(self._say(bus, node, epochs) for node, epochs in unheard.items()))
            if not all(told):
                with suppress(BusLost):
                    await bus.wait_connected(timeout=10 * ANNOUNCE_S)
            await asyncio.sleep(ANNOUNCE_S if all(told) else 10 * ANNOUNCE_S)

    async def until_stored(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do `step`, waiting out a store that is down: nothing is acknowledged meanwhile, so nothing is lost."""
        clock = asyncio.get_running_loop().time  # monotonic: a jump of the wall clock ends no wait
        wait_s, longest_s = RETRY_S
        down_at, said_at = None, -SAY_AGAIN_S
        while True:
            try:
                await step()
                break
            except StoreDown as error:
                pause_s = max(self._rng.uniform(0.5, 1.0) * wait_s, min(error.again_in_s, ASKED_S))
                self.waits += 1
                down_at = clock() if down_at is None else down_at
                if clock() - said_at >= SAY_AGAIN_S:
                    said_at = clock()
                    say = log.error if isinstance(error, StoreRefused) else log.warning
                    say("ingest.store_down", error=str(error), again_in_s=round(pause_s, 2))
            await asyncio.sleep(pause_s)
            wait_s = min(2 * wait_s, longest_s)
        if down_at is not None:
            log.info("ingest.store_back", after_s=round(clock() - down_at, 1))

    # -- steps, each one commit -------------------------------------------------------------------------

    def take(self, received: Sequence[Received]) -> None:
        """Judge, write and settle `received`, all or nothing, waiting for the store."""
        self._commit(self._sorted(received), None)

    def put_aside(self, topic: str, payload: bytes, reason: str) -> None:
        """Quarantine what could not be decoded; a broken batch whose number can be read is settled."""
        header = _header(topic, payload)
        if header is None:
            aside = _Aside("message", topic, reason, payload[:UNREADABLE_BYTES])
            changes = self._ledger.changes([])
            heard: dict[tuple[str, str], set[str]] = {}
        else:
            key, floor = header
            digest = _digest(payload)
            heard = {(key.site, key.node): {key.epoch}}
            verdict = self._ledger.judge(key, digest)
            if verdict == "repeat":
                self.counts = self.counts.more(repeats=1)
                self._tell(heard)
                return
            kind: QuarantineKind = "fork" if verdict == "fork" else "message"
            aside = _Aside(kind, topic, reason, payload)
            changes = self._ledger.changes([Stored(key, floor, digest)] if kind == "message" else [])
        with self._store.atomic():
            self._quarantine(aside)
            self._ledger.write(changes)
            counts = self.counts.more(forks=aside.kind == "fork", bad_messages=aside.kind == "message")
            self._store.keep(STATUS, json.dumps(asdict(counts)))
        self._ledger.apply(changes)
        self.counts = counts
        self._tell(heard)
        self._complain(aside)

    # -- private --------------------------------------------------------------------------------------

    def _sorted(self, received: Sequence[Received]) -> _Work:
        work = _Work()
        for one in received:
            self._sort(one, work)
        return work

    def _commit(self, work: _Work, pushed: Pushed | None) -> None:
        changes = self._ledger.changes(work.stored, work.settled)
        with self._store.atomic():
            appended = self._store.append(work.fresh, pushed)
            for aside in work.aside:
                self._quarantine(aside)
            self._ledger.write(changes)
            counts = self.counts.more(
                batches=sum(appended.new),
                readings=appended.readings,
                records=appended.records,
                repeats=work.repeats + len(appended.new) - sum(appended.new),
                forks=sum(aside.kind == "fork" for aside in work.aside),
                bad_messages=sum(aside.kind == "message" for aside in work.aside),
                quarantined_readings=appended.quarantined,
            )
            counts = replace(counts, last_at=self._now())
            self._store.keep(STATUS, json.dumps(asdict(counts)))
        self._ledger.apply(changes)
        self.counts = counts
        self._tell(work.heard)
        if appended.quarantined:
            log.warning("ingest.rows_quarantined", readings=appended.quarantined)
        for aside in work.aside:
            self._complain(aside)
        new = [one for one, is_new in zip(work.fresh, appended.new, strict=True) if is_new]
        if not new:
            return
        now = counts.last_at
        self.ages_s.extend((now - at) / 1e6 for one in new if (at := _newest(one.batch)) is not None)
        for mirror in self.mirrors:
            mirror.offer(new)
        if self._on_stored is not None:
            self._on_stored([record for one in new for record in one.batch.records])

    def _sort(self, one: Received, work: _Work) -> None:
        batch: Batch = one.message
        if batch.lane != one.ids["lane"]:
            reason = f"a batch of lane {batch.lane} on the topic of {one.ids['lane']}"
            work.aside.append(_Aside("message", one.topic, reason, one.payload[:UNREADABLE_BYTES]))
            return
        key = BatchKey(one.ids["site"], one.ids["node"], batch.epoch, batch.lane, batch.seq)
        digest = _digest(one.payload)
        work.heard.setdefault((key.site, key.node), set()).add(key.epoch)
        earlier = work.digests.get(key)
        if earlier is not None:
            verdict = "repeat" if earlier == digest else "fork"
        else:
            verdict = self._ledger.judge(key, digest)
        if verdict == "repeat":
            work.repeats += 1
            return
        if verdict == "fork":
            work.aside.append(_Aside("fork", one.topic, f"other bytes under the stored {'/'.join(map(str, key))}",
                                     one.payload))  # fmt: skip
            return
        work.digests[key] = digest
        work.fresh.append(StoredBatch(key, batch))
        work.stored.append(Stored(key, batch.floor, digest))
        for record in batch.records:
            if isinstance(record, Evicted):
                lane = LaneKey(key.site, key.node, record.epoch, record.lane)
                work.settled += [Settled(lane, low, high) for low, high in record.ranges]
                work.heard[key.site, key.node].add(record.epoch)

    def _quarantine(self, aside: _Aside) -> None:
        self._store.quarantine(
            at=self._now(), kind=aside.kind, topic=aside.topic, reason=aside.reason, payload=aside.payload
        )

    def _complain(self, aside: _Aside) -> None:
        """The 1st, 2nd, 4th, 8th … of a kind is logged: a node gone mad must not fill the disk with our words."""
        if aside.kind == "fork":
            if self.counts.forks & (self.counts.forks - 1) == 0:
                cure = "two disks or two nodes under one name? see `shoal query quarantine`"
                log.error("ingest.fork", topic=aside.topic, reason=aside.reason, forks=self.counts.forks, cure=cure)
        elif self.counts.bad_messages & (self.counts.bad_messages - 1) == 0:
            log.warning("ingest.bad_message", topic=aside.topic, reason=aside.reason, bad=self.counts.bad_messages)

    def _tell(self, heard: dict[tuple[str, str], set[str]]) -> None:
        for node, epochs in heard.items():
            self._unheard.setdefault(node, set()).update(epochs)
        if heard:
            self._wake.set()

    async def _say(self, bus: Bus, node: tuple[str, str], epochs: set[str]) -> bool:
        site, name = node
        if node not in self._ledger.nodes:
            return True  # it retired, and shall find no word of ours
        try:
            for document in self._ledger.documents(site, name, epochs):
                await bus.publish(STORED, document, site=site, node=name)
        except (BusLost, StoreDown) as error:
            self._tell({node: epochs})  # and after the reconnect everything is said again
            if not isinstance(error, BusLost) or isinstance(error, BusRefused):
                log.warning("ingest.not_announced", site=site, node=name, error=str(error))
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Aside:
    kind: QuarantineKind
    topic: str
    reason: str
    payload: bytes


@dataclass(slots=True)
class _Work:
    """One list of messages, sorted."""

    fresh: list[StoredBatch] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    aside: list[_Aside] = field(default_factory=list)
    digests: dict[BatchKey, bytes] = field(default_factory=dict)
    heard: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    repeats: int = 0


class _Header(Message):
    """What can be read of a batch that breaks its contract elsewhere."""

    epoch: Mint
    lane: Lane
    seq: Seq
    floor: Seq


def _header(topic: str, payload: bytes) -> tuple[BatchKey, int] | None:
    try:
        ids = BATCH.ids(topic)
        header = _Header.decode(payload)
    except BadMessage:
        return None
    if header.lane != ids["lane"]:
        return None
    key = BatchKey(ids["site"], ids["node"], header.epoch, header.lane, header.seq)
    return key, min(header.floor, header.seq)


def _newest(batch: Batch) -> int | None:
    """The time of a live batch's newest reading."""
    if batch.lane != "live":
        return None
    return max((one.t0 + one.at[-1] for one in batch.series), default=None)


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()[:16]


def _known(text: str | None) -> dict[str, int]:
    """Counters kept by this or another version of us."""
    found = json.loads(text) if text else {}
    names: Iterable[str] = (one.name for one in fields(Counts))
    return {name: int(found[name]) for name in names if name in found}
