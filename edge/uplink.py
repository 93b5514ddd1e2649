"""From the outbox to the cloud: published again and again until the store says it has it.

    uplink = Uplink(disk, outbox, bus, site="s1", node="press-4")
    bus.on(STORED, uplink.on_stored, site="s1", node="press-4")
    bus.on_connect(uplink.on_connect)
    … uplink.wake() after every commit …      tg.create_task(uplink.run())

A PUBACK is not delivery: only StoredThrough frees. What is out and unconfirmed is published again after every
reconnect, and when StoredThrough has not moved for a while though everything out was acknowledged (2 s, doubling
to 60 s, with jitter, in real time). Every lane has two streams, each with its own window: this epoch's
batches, and those of the oldest earlier epoch; so neither a backlog nor a restart delays what is new.
What was evicted is told before the batches that follow it, so the store never waits for it.
Bounds: `Windows`; at most one earlier epoch per lane is in flight, so a StoredThrough can speak of all.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.disk import Disk
from edge.outbox import LANES, Held, Outbox
from messages.bus import Bus, Received
from messages.contracts import Lane, StoredThrough
from messages.errors import BadMessage, BusLost, BusRefused
from messages.logs import get_logger
from messages.routes import BATCH

SAID = 64
"""Words of the store that may wait for a commit together."""

log = get_logger("uplink")


@dataclass(frozen=True)
class Windows:
    """What may be out and unconfirmed per stream at most, and how patient we are."""

    batches: int = 128
    bytes: int = 8 << 20
    slow_batches: int = 32
    """Of the lane `backlog`, and of earlier epochs."""
    slow_bytes: int = 4 << 20
    first_s: float = 2.0
    most_s: float = 60.0


@dataclass(frozen=True)
class Pace:
    """When a window widens or narrows: what is more urgent waits behind what is out, in one TCP stream."""

    first_bytes: int
    quick_s: float
    """Confirmed sooner than that though the window was full: twice as much may be out."""
    slow_s: float
    """Confirmed later than that: half as much, but not below `first_bytes`."""


NEW = Pace(1 << 20, quick_s=1.0, slow_s=2.0)
OLD = Pace(1 << 18, quick_s=0.3, slow_s=0.6)
"""Of backlog and earlier epochs: it gives way before new data comes late."""


@dataclass
class Window:
    """What is out of one stream. Pure: the time and the randomness are arguments.

    At most `bytes`; within that so much as comes back in about a second, as a slow link and a fast machine differ by
    a thousand.
    """

    batches: int
    bytes: int
    patience_s: float
    most_s: float
    pace: Pace = NEW
    out: dict[int, int] = field(default_factory=dict)
    """seq → bytes"""
    sent_at: dict[int, float] = field(default_factory=dict)
    after: int = -1
    """Highest seq published since the stream was last begun anew."""
    unacknowledged: int = 0
    quiet_since: float = 0.0
    """When StoredThrough last moved, something was sent, or the broker last acknowledged."""
    allowed: int = 0
    """Bytes that may be out now; 0 until the first is sent."""

    def room(self) -> int:
        """How many more batches may go out."""
        self.allowed = self.allowed or min(self.bytes, self.pace.first_bytes)
        if self.out and sum(self.out.values()) >= self.allowed:
            return 0
        return self.batches - len(self.out)

    def sent(self, seq: int, size: int, now: float) -> None:
        self.out[seq], self.sent_at[seq] = size, now
        self.after = max(self.after, seq)

    def keep_only(self, present: set[int], now: float, first_s: float) -> bool:
        """Forget what has left the outbox; whether that was anything."""
        gone = [seq for seq in self.out if seq not in present]
        if not gone:
            return False
        waited = now - min(self.sent_at[seq] for seq in gone)
        if waited > self.pace.slow_s:
            self.allowed = max(min(self.bytes, self.pace.first_bytes), self.allowed // 2)
        elif waited < self.pace.quick_s and self.room() <= 0:
            self.allowed = min(self.bytes, 2 * self.allowed)
        for seq in gone:
            del self.out[seq], self.sent_at[seq]
        self.patience_s, self.quiet_since = first_s, now
        return True

    def due_at(self) -> float | None:
        """When everything out is to be published again, as things stand. A slow link is no reason: it is TCP."""
        if not self.out or self.unacknowledged:
            return None
        return self.quiet_since + self.patience_s

    def begin_anew(self, now: float, jitter: float) -> None:
        """All that is out goes out again; wait longer for the next time."""
        self.out.clear()
        self.sent_at.clear()
        self.after = -1
        self.patience_s = min(self.most_s, 2 * self.patience_s) * jitter
        self.quiet_since = now


@dataclass
class Freshness:
    """Whether new readings would wait behind old ones: the oldest live batch of this epoch is unconfirmed too long."""

    limit_s: float
    _sealed: deque[tuple[int, float]] = field(default_factory=deque)

    def sealed(self, seq: int, now: float) -> None:
        """A live batch was made. One note a second is enough, and bounds what is kept."""
        if not self._sealed or now - self._sealed[-1][1] >= min(1.0, self.limit_s / 4):
            self._sealed.append((seq, now))

    def behind(self, oldest_held: int | None, now: float) -> bool:
        """Given the oldest live seq still held."""
        while self._sealed and (oldest_held is None or self._sealed[0][0] < oldest_held):
            self._sealed.popleft()
        return bool(self._sealed) and now - self._sealed[0][1] > self.limit_s


@dataclass
class Counts:
    """Since the node started."""

    sent: int = 0
    resent: int = 0
    stored_said: int = 0


class Uplink:
    """Owns what is in flight; the outbox owns what is kept."""

    def __init__(
        self,
        disk: Disk,
        outbox: Outbox,
        bus: Bus,
        *,
        site: str,
        node: str,
        windows: Windows | None = None,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.disk, self.outbox, self.bus, self.site, self.node = disk, outbox, bus, site, node
        self.windows = windows or Windows()
        self.counts = Counts()
        self._rng = rng or random.Random()
        self._monotonic = monotonic
        self._streams: dict[tuple[Lane, str], Window] = {}
        self._tops: dict[tuple[Lane, str], int] = {}
        self._connection = 0
        self._wake = asyncio.Event()
        self._foreign = 0
        self._said: deque[StoredThrough] = deque()
        self._freeing: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Something was put into the outbox."""
        self._wake.set()

    async def on_connect(self) -> None:
        """A new connection: everything out goes out again."""
        self._wake.set()

    async def on_stored(self, received: Received) -> None:
        """The store's word: whatever its revision, it frees what it lists and nothing else.

        Where nothing waits for the room, it shares a commit with others, and nobody waits for it: should it be lost
        in a crash, what it freed goes out again, and the store says it again.
        """
        self.counts.stored_said += 1
        self._said.append(received.message)
        out = sum(len(window.out) for window in self._streams.values())
        if sum(self.outbox.held.values()) > out or len(self._said) >= SAID:
            await self.disk.write(self._free)
            self._freed()
        elif self._freeing is None or self._freeing.done():
            self._free_soon()

    def _free_soon(self) -> None:
        self._freeing = asyncio.ensure_future(self.disk.write_soon(self._free, size=0))
        self._freeing.add_done_callback(self._freed_soon)

    def _freed_soon(self, done: asyncio.Future[None]) -> None:
        if done.cancelled():
            return
        if done.exception() is not None:
            self._wake.set()  # the disk is of no more use: `run` asks it next, and ends with what it says
            return
        self._freed()
        if self._said:  # it came after the commit and before we heard of that
            self._free_soon()

    def _free(self) -> None:
        while self._said:
            self.outbox.free(self._said.popleft())

    def _freed(self) -> None:
        if self.outbox.counts.foreign > self._foreign:
            self._foreign = self.outbox.counts.foreign
            log.error(
                "uplink.foreign_store",
                foreign=self._foreign,
                cure="the store claims batches this disk never made: is another node running under this name, or was "
                "this data folder restored from an older copy? Nothing is freed by that claim",
                node=self.node,
            )
        self._wake.set()

    async def run(self) -> None:
        """Keep the windows full, until cancelled."""
        while True:
            await self.bus.connected.wait()
            self._wake.clear()
            if self.bus.counts.connects != self._connection:
                self._connection = self.bus.counts.connects
                self._streams.clear()
            batches, to_note = await self.disk.read(self._due)
            if to_note:
                batches += await self.disk.write(self._note)
            for held in sorted(batches, key=lambda held: LANES.index(held.lane)):
                if not self._publish(held):
                    break
            await self._wait()

    async def _wait(self) -> None:
        now = self._monotonic()
        dues = [due for window in self._streams.values() if (due := window.due_at()) is not None]
        wait_s = min([60.0, *(max(0.0, due - now) for due in dues)])
        try:
            async with asyncio.timeout(wait_s + 0.001):
                await self._wake.wait()
        except TimeoutError:
            return

    def _due(self) -> tuple[list[Held], bool]:
        """In the disk's thread: what is to be published now, new before old; and whether to `_note` before that."""
        now = self._monotonic()
        found: list[Held] = []
        to_note = False
        streams: dict[tuple[Lane, str], Window] = {}
        for lane in LANES:
            for epoch in self._epochs(lane):
                key = (lane, epoch)
                window = streams[key] = self._streams.get(key) or self._window(lane, epoch, now)
                window.keep_only(self.outbox.present(lane, epoch, window.out), now, self.windows.first_s)
                due_at = window.due_at()
                if due_at is not None and now >= due_at:
                    window.begin_anew(now, self._rng.uniform(0.75, 1.0))
                found += self._fill(lane, epoch, window, now)
                to_note |= self.outbox.mark_out(epoch, lane, window.after)
        self._streams = streams
        self._tops = {key: top for key, top in self._tops.items() if key in streams}
        return found, to_note or self.outbox.has_to_tell(self._reach())

    def _note(self) -> list[Held]:
        """In a commit before anything is published: what will be out, and what was evicted below it."""
        more: list[Held] = []
        if self.outbox.tell(self._reach()):
            key: tuple[Lane, str] = ("record", self.outbox.epoch)
            more = self._fill(*key, self._streams[key], self._monotonic())
            self.outbox.mark_out(key[1], key[0], self._streams[key].after)
        self.outbox.note_out()
        return more

    def _reach(self) -> dict[tuple[str, Lane], int]:
        return {(epoch, lane): window.after for (lane, epoch), window in self._streams.items()}

    def _epochs(self, lane: Lane) -> list[str]:
        older = self.outbox.oldest_epoch(lane)
        return [self.outbox.epoch] if older is None else [self.outbox.epoch, older]

    def _window(self, lane: Lane, epoch: str, now: float) -> Window:
        with_all = lane != "backlog" and epoch == self.outbox.epoch
        size = self.windows
        return Window(
            size.batches if with_all else size.slow_batches,
            size.bytes if with_all else size.slow_bytes,
            size.first_s,
            size.most_s,
            NEW if with_all else OLD,
            quiet_since=now,
        )

    def _fill(self, lane: Lane, epoch: str, window: Window, now: float) -> list[Held]:
        found = []
        top = self._tops.get((lane, epoch), -1)
        while window.room() > 0:
            # Few at a time: payloads may be large, and the window of bytes may close after the first.
            more = self.outbox.pending(lane, epoch, after=window.after, limit=min(8, window.room()))
            for held in more:
                if window.room() <= 0:
                    break
                window.sent(held.seq, len(held.payload), now)
                window.quiet_since = now
                found.append(held)
                self.counts.resent += held.seq <= top
            if not more:
                break
        self._tops[lane, epoch] = max(top, window.after)
        return found

    def _publish(self, held: Held) -> bool:
        try:
            acknowledged = self.bus.publish_nowait(
                BATCH, payload=held.payload, lane=held.lane, site=self.site, node=self.node
            )
        except BusLost:
            return False  # the reconnect begins all streams anew
        except BadMessage as error:
            cure = "raise the broker's max_packet_size; later batches become smaller with a smaller batch_kb"
            log.error("uplink.too_large", error=str(error), cure=cure, node=self.node)
            return True  # kept, and tried again with the others
        window = self._streams[held.lane, held.epoch]
        window.unacknowledged += 1
        self.counts.sent += 1
        acknowledged.add_done_callback(lambda done: self._acknowledged(window, done))
        return True

    def _acknowledged(self, window: Window, done: asyncio.Future[None]) -> None:
        window.unacknowledged -= 1
        window.quiet_since = self._monotonic()
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, BusRefused):
            log.warning(
                "uplink.refused", error=str(error), cure="check the broker's rules for this node", node=self.node
            )
        if not window.unacknowledged:
            self._wake.set()  # the patience begins now
