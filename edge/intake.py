"""Take in: a burst is on the disk before its device hears so, comes in once, and what never came is counted.

    intake = Intake.open(disk, outbox, devices={"kiln-1", "meter-firing"})
    taken = await intake.take([Incoming("kiln-1", payload, burst), …], now)    # one commit
    … publish taken, then acknowledge

`Heard` is what a node knows of one boot of a device: spans of bursts taken, and with every span the device's
own count of readings before and after it, so that a hole says how many readings it holds. A hole is *lost*
once it is below the device's `floor`, or at once for a device that keeps nothing, and stays so for
`grace_s` of real time: then a Gap record is made, the hole is closed and a straggler from it is a repeat, so
that nothing is counted twice. What came before a boot was first heard is a hole as well. A count that jumps
between two bursts that are both here is a Gap at once, named by the later burst.
Bounds: `BOOTS` boots per device (then the oldest is closed, its holes are gaps), `SPANS` spans per boot (then
the lowest hole is a gap), `REASONS` kinds of refusal at a time, `samples` of them recorded singly per minute.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from edge.disk import Disk
from edge.outbox import Outbox
from messages.contracts import MAX_RANGES, Burst, Gap, Record, Rejected, Taken
from messages.errors import BadMessage, BrokenInvariant

BOOTS = 16
SPANS = 256
REASONS = 256
SAMPLE = 200
"""Characters kept of a refused payload."""
MINUTE_S = 60.0


@dataclass(frozen=True)
class Span:
    """Bursts `low` to `high`, all here; the boot had sent `first` readings before them and `after` with them."""

    low: int
    high: int
    first: int
    after: int


_NOTHING = Span(-1, -1, 0, 0)
"""Before its burst 0 a boot has sent nothing: so a hole at the beginning is a hole like any other."""


@dataclass(frozen=True)
class Hole:
    """Bursts `low` to `high` that are not here, with that many readings by the device's count."""

    low: int
    high: int
    readings: int


@dataclass
class Heard:
    """What came from one boot of a device. Pure."""

    spans: list[Span] = field(default_factory=lambda: [_NOTHING])
    floor: int | None = None
    skipped: list[Hole] = field(default_factory=list)
    """Readings the device counted between two bursts that both are here: the caller records and clears them."""

    def take(self, burst: Burst) -> bool:
        """Note a burst; False when it was here already."""
        if burst.floor is not None:
            self.floor = max(self.floor or 0, burst.floor)
        place = len(self.spans)
        while self.spans[place - 1].low > burst.seq:
            place -= 1
        if self.spans[place - 1].high >= burst.seq:
            return False
        self.spans.insert(place, Span(burst.seq, burst.seq, burst.first, burst.first + burst.readings))
        self._join()
        return True

    def holes(self) -> list[Hole]:
        """Everything between the spans, lowest first."""
        return [
            Hole(below.high + 1, above.low - 1, max(0, above.first - below.after))
            for below, above in zip(self.spans, self.spans[1:], strict=False)
        ]

    def lost(self) -> list[Hole]:
        """Holes the device cannot fill: wholly below its floor, or any when it keeps nothing."""
        return [hole for hole in self.holes() if self.floor is None or hole.high < self.floor]

    def close(self, hole: Hole) -> None:
        """Count this hole as gone: what comes from it later is a repeat."""
        for place, (below, above) in enumerate(zip(self.spans, self.spans[1:], strict=False)):
            if below.high + 1 == hole.low and above.low - 1 == hole.high:
                self.spans[place : place + 2] = [Span(below.low, above.high, below.first, above.after)]
                return
        raise BrokenInvariant(f"bursts {hole.low}-{hole.high} are no hole")

    def encode(self) -> str:
        return json.dumps({"floor": self.floor, "spans": [[s.low, s.high, s.first, s.after] for s in self.spans]})

    @classmethod
    def decode(cls, text: str) -> Heard:
        data = json.loads(text)
        return cls([Span(*span) for span in data["spans"]], data["floor"])

    def _join(self) -> None:
        joined = [self.spans[0]]
        for span in self.spans[1:]:
            if span.low == joined[-1].high + 1:
                if span.first > joined[-1].after:
                    self.skipped.append(Hole(span.low, span.low, span.first - joined[-1].after))
                joined[-1] = Span(joined[-1].low, span.high, joined[-1].first, span.after)
            else:
                joined.append(span)
        self.spans = joined


@dataclass(frozen=True)
class Incoming:
    """One message of a device as it came."""

    device: str
    payload: bytes
    burst: Burst


@dataclass(frozen=True)
class Waiting:
    """One burst of the inbox."""

    number: int
    device: str
    burst: Burst
    size: int


@dataclass
class Counts:
    """Since the node started."""

    bursts: int = 0
    readings: int = 0
    repeats: int = 0
    gaps: int = 0
    gap_readings: int = 0
    refused: int = 0
    refused_readings: int = 0


@dataclass
class Intake:
    """Owns the tables inbox, heard and refused. Methods named `*_now` are for the disk's thread; others await it."""

    disk: Disk
    outbox: Outbox
    devices: frozenset[str]
    grace_s: float
    samples: int
    counts: Counts = field(default_factory=Counts)
    waiting: int = 0
    """Bursts in the inbox."""
    waiting_bytes: int = 0
    _heard: dict[tuple[str, str], Heard] = field(default_factory=dict)
    _boots: dict[str, list[str]] = field(default_factory=dict)
    _since: dict[tuple[str, str, int, int], float] = field(default_factory=dict)
    _fresh: dict[int, Burst] = field(default_factory=dict)
    _singly: int = 0
    _minute: float = 0.0
    _held_back: int = 0

    @classmethod
    def open(
        cls, disk: Disk, outbox: Outbox, *, devices: Iterable[str], grace_s: float = 10.0, samples: int = 20
    ) -> Intake:
        """Remember what was heard before the last stop."""
        intake = cls(disk, outbox, frozenset(devices), grace_s, samples)
        rows = disk.db.execute("SELECT device, boot, state FROM heard ORDER BY nth").fetchall()
        for device, boot, state in rows:
            intake._heard[device, boot] = Heard.decode(state)
            intake._boots.setdefault(device, []).append(boot)
        intake.waiting, intake.waiting_bytes = disk.db.execute(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(payload)), 0) FROM inbox"
        ).fetchone()
        intake._held_back = disk.db.execute("SELECT COUNT(*) FROM refused").fetchone()[0]
        return intake

    async def take(self, incoming: list[Incoming], now: int, *, monotonic_s: float) -> list[tuple[str, Taken]]:
        """One commit: all are in the inbox, repeats and strangers noted. Then what each device may forget."""
        return await self.disk.write(lambda: self.take_now(incoming, now, monotonic_s))

    async def refuse(self, device: str, reason: str, sample: bytes, now: int, *, monotonic_s: float) -> None:
        """A message that breaks its contract: a Rejected record, whose readings could not be counted."""
        await self.disk.write(lambda: self.refuse_now(device, reason, 0, sample, now, monotonic_s))

    async def settle(self, now: int, *, monotonic_s: float) -> None:
        """Once a second or so: what has been lost for longer than the grace, and refusals that were held back."""
        await self.disk.write(lambda: self.settle_now(now, monotonic_s))

    # --- in the disk's thread, inside a transaction -------------------------------------------------

    def take_now(self, incoming: list[Incoming], now: int, monotonic_s: float) -> list[tuple[str, Taken]]:
        seqs: dict[tuple[str, str], set[int]] = {}
        changed: set[tuple[str, str]] = set()
        records: list[Record] = []
        for one in incoming:
            if one.device not in self.devices:
                self.refuse_now(one.device, "unknown_device", one.burst.readings, one.payload, now, monotonic_s)
                continue
            key = (one.device, one.burst.boot)
            if key not in self._heard:
                records += self._begin_boot(*key, now)
            # A repeat is said to be taken as well: the device asks because it did not hear us.
            seqs.setdefault(key, set()).add(one.burst.seq)
            changed.add(key)
            if self._heard[key].take(one.burst):
                self._keep(one)
            else:
                self.counts.repeats += 1
        for key in sorted(changed):
            heard = self._heard[key]
            records += [self._gap(*key, hole, now) for hole in heard.skipped]
            heard.skipped.clear()
            while len(heard.spans) > SPANS:
                records.append(self._close(*key, heard.holes()[0], now))
            self.disk.db.execute("UPDATE heard SET state = ? WHERE device = ? AND boot = ?", (heard.encode(), *key))
        if records:
            self.outbox.put("record", made_at=now, records=records)
        return [
            (device, Taken(boot=boot, ranges=part))
            for (device, boot), these in seqs.items()
            for part in _in_parts(_ranges(these))
        ]

    def refuse_now(self, device: str, reason: str, readings: int, sample: bytes, now: int, monotonic_s: float) -> None:
        """Singly while few, else added to a durable sum that goes out within a minute."""
        self.counts.refused += 1
        self.counts.refused_readings += readings
        if monotonic_s - self._minute >= MINUTE_S:
            self._minute, self._singly = monotonic_s, 0
        text = sample[: SAMPLE * 4].decode(errors="replace")[:SAMPLE]
        reason = reason[:128] or "refused"
        if self._singly < self.samples:
            self._singly += 1
            rejected = Rejected(at=now, device=device, reason=reason, readings=readings, sample=text)
            self.outbox.put("record", made_at=now, records=[rejected])
            return
        known = self.disk.db.execute("SELECT 1 FROM refused WHERE device = ? AND reason = ?", (device, reason))
        if known.fetchone() is None and self._held_back >= REASONS:
            device, reason = "other", "too many kinds of refusal to tell apart"
        self.disk.db.execute(
            "INSERT INTO refused VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "messages = messages + 1, readings = readings + excluded.readings",
            (device, reason, readings, now, text),
        )
        self._held_back = self.disk.db.execute("SELECT COUNT(*) FROM refused").fetchone()[0]

    def settle_now(self, now: int, monotonic_s: float) -> None:
        records: list[Record] = []
        seen: set[tuple[str, str, int, int]] = set()
        for (device, boot), heard in self._heard.items():
            closed = False
            for hole in heard.lost():
                key = (device, boot, hole.low, hole.high)
                if monotonic_s - self._since.setdefault(key, monotonic_s) >= self.grace_s:
                    records.append(self._close(device, boot, hole, now))
                    closed = True
                else:
                    seen.add(key)
            if closed:
                self.disk.db.execute(
                    "UPDATE heard SET state = ? WHERE device = ? AND boot = ?", (heard.encode(), device, boot)
                )
        self._since = {key: since for key, since in self._since.items() if key in seen}
        if monotonic_s - self._minute >= MINUTE_S and self._held_back:
            records += self._sums(now)
        if records:
            self.outbox.put("record", made_at=now, records=records)

    def unprocessed(self, *, bursts: int, readings: int) -> list[Waiting]:
        """The oldest bursts of the inbox: at most so many, and no more readings than that, but one at least."""
        found: list[Waiting] = []
        total = 0
        rows = self.disk.db.execute(
            "SELECT id, device, readings, LENGTH(payload) FROM inbox ORDER BY id LIMIT ?", (bursts,)
        ).fetchall()
        for number, device, cells, size in rows:
            total += cells
            if found and total > readings:
                break
            burst = self._fresh.get(number) or self._read(number)
            found.append(Waiting(number, device, burst, size))
        return found

    def processed(self, done: list[Waiting]) -> None:
        """These are cleaned, and what came of them is in this same transaction."""
        self.disk.db.executemany("DELETE FROM inbox WHERE id = ?", [(one.number,) for one in done])
        for one in done:
            self._fresh.pop(one.number, None)
            self.waiting -= 1
            self.waiting_bytes -= one.size

    # --- private ------------------------------------------------------------------------------------

    def _keep(self, one: Incoming) -> None:
        cursor = self.disk.db.execute(
            "INSERT INTO inbox (device, payload, readings) VALUES (?, ?, ?)",
            (one.device, one.payload, one.burst.readings),
        )
        if cursor.lastrowid is None:
            raise BrokenInvariant("the disk did not number a burst")
        self._fresh[cursor.lastrowid] = one.burst  # parsed already: only after a restart it is read again
        self.waiting += 1
        self.waiting_bytes += len(one.payload)
        self.counts.bursts += 1
        self.counts.readings += one.burst.readings

    def _read(self, number: int) -> Burst:
        payload = self.disk.db.execute("SELECT payload FROM inbox WHERE id = ?", (number,)).fetchone()[0]
        try:
            return Burst.decode(payload)
        except BadMessage as error:
            raise BrokenInvariant(f"burst {number} of the inbox cannot be read any more ({error})") from None

    def _begin_boot(self, device: str, boot: str, now: int) -> list[Record]:
        records: list[Record] = []
        boots = self._boots.setdefault(device, [])
        if len(boots) >= BOOTS:
            oldest = boots.pop(0)
            records = [self._close(device, oldest, hole, now) for hole in self._heard[device, oldest].holes()]
            del self._heard[device, oldest]
            self.disk.db.execute("DELETE FROM heard WHERE device = ? AND boot = ?", (device, oldest))
        boots.append(boot)
        heard = self._heard[device, boot] = Heard()
        self.disk.db.execute(
            "INSERT INTO heard SELECT ?, ?, COALESCE(MAX(nth), 0) + 1, ? FROM heard", (device, boot, heard.encode())
        )
        return records

    def _close(self, device: str, boot: str, hole: Hole, now: int) -> Gap:
        self._heard[device, boot].close(hole)
        return self._gap(device, boot, hole, now)

    def _gap(self, device: str, boot: str, hole: Hole, now: int) -> Gap:
        self.counts.gaps += 1
        self.counts.gap_readings += hole.readings
        return Gap(at=now, device=device, boot=boot, bursts=(hole.low, hole.high), readings=hole.readings)

    def _sums(self, now: int) -> list[Record]:
        rows = self.disk.db.execute("SELECT device, reason, messages, readings, sample FROM refused").fetchall()
        self.disk.db.execute("DELETE FROM refused")
        self._held_back = 0
        return [
            Rejected(
                at=now,
                device=device,
                reason=reason,
                readings=readings,
                sample=f"{messages} messages, the first: {sample}",
            )
            for device, reason, messages, readings, sample in rows
        ]


def _ranges(seqs: set[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for seq in sorted(seqs):
        if ranges and ranges[-1][1] + 1 == seq:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))
    return ranges


def _in_parts(ranges: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    return [ranges[start : start + MAX_RANGES] for start in range(0, len(ranges), MAX_RANGES)]
