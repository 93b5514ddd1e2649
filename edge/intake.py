"""Take in: a burst is on the disk before its device hears so, comes in once, and what never came is counted.

    intake = Intake.open(disk, outbox, devices={"kiln-1", "meter-firing"})
    taken = await intake.take([Incoming("kiln-1", payload, burst), …], now)    # one commit
    … publish taken, then acknowledge

`Heard` is what a node knows of one boot of a device: spans of bursts taken, and with every span the device's
own count of readings before and after it, so that a hole says how many readings it holds. A hole is *lost*
once it is below the device's `floor`, or at once for a device that keeps nothing, and stays so for
`grace_s` of real time: then a Gap record is made, the hole is closed and a straggler from it is a repeat, so
that nothing is counted twice. A count that jumps between two bursts that are both here is a Gap at once, named by
the later burst. A boot begins at the `floor` of its first burst heard here: a device forgets only what was taken,
so what lies below was taken by another disk. A device without floor begins at the lowest burst heard.
A burst that is refused (it breaks its contract, or the plant does not know its device) is heard like any other:
rejected once, and said to be taken, so that its device can forget it. It is a *void*: its cells are in its
Rejected, and what the counts around it say beyond them is a Gap, once.
Bounds: `BOOTS` boots per device (then the oldest is closed, its holes are gaps), `SPANS` spans per boot (then
the lowest hole is a gap) and as many voids (then the two lowest become one), `STRANGERS` unknown devices (then the
oldest is forgotten), `REASONS` kinds of refusal at a time, `samples` of them recorded singly per minute.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from edge.broken import Name
from edge.disk import Disk
from edge.outbox import Outbox
from messages.contracts import MAX_RANGES, Burst, Gap, Record, Rejected, Taken
from messages.errors import BadMessage, BrokenInvariant

BOOTS = 16
SPANS = 256
STRANGERS = 64
"""Devices the plant does not know whose bursts are remembered."""
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
    after: int | None
    """None only of the span that stands for what another disk took: nobody here knows how much that was."""


@dataclass(frozen=True)
class Hole:
    """Bursts `low` to `high` that are not here, with that many readings by the device's count; 0 if unknown."""

    low: int
    high: int
    readings: int


@dataclass(frozen=True)
class Void:
    """Bursts `low` to `high` came and were refused, with so many cells. To the counts they are part of a hole."""

    low: int
    high: int
    cells: int


@dataclass
class Heard:
    """What came from one boot of a device. Pure."""

    spans: list[Span] = field(default_factory=list)
    """The first one, when the device has a floor, stands for everything below where we begin."""
    floor: int | None = None
    voids: list[Void] = field(default_factory=list)
    skipped: list[Hole] = field(default_factory=list)
    """Readings the device counted at bursts that all came: the caller records and clears them."""

    def take(self, burst: Burst) -> bool:
        """Note a burst; False when it was here already."""
        self._raise_floor(burst.floor, burst.seq, burst.first)
        if self.has(burst.seq):
            return False
        place = sum(span.low < burst.seq for span in self.spans)
        self.spans.insert(place, Span(burst.seq, burst.seq, burst.first, burst.first + burst.readings))
        self._join()
        return True

    def refuse(self, name: Name) -> bool:
        """Note a burst whose cells are rejected; False when it was here already."""
        self._raise_floor(name.floor, name.seq, name.first)
        if self.has(name.seq):
            return False
        self.voids = sorted([*self.voids, Void(name.seq, name.seq, name.readings)], key=lambda void: void.low)
        self._join_voids()
        self._join()
        return True

    def has(self, seq: int) -> bool:
        """Whether this burst was here, or is of no more interest."""
        here = any(span.low <= seq <= span.high for span in reversed(self.spans))
        return here or any(void.low <= seq <= void.high for void in self.voids)

    def holes(self) -> list[Hole]:
        """Everything between the spans, lowest first; what was refused inside is not among their readings."""
        return [self._hole(below, above) for below, above in zip(self.spans, self.spans[1:], strict=False)]

    def lost(self) -> list[Hole]:
        """Holes the device cannot fill: wholly below its floor, or any when it keeps nothing."""
        return [hole for hole in self.holes() if self.floor is None or hole.high < self.floor]

    def close(self, hole: Hole) -> None:
        """Count this hole as gone: what comes from it later is a repeat."""
        for place, (below, above) in enumerate(zip(self.spans, self.spans[1:], strict=False)):
            if below.high + 1 == hole.low and above.low - 1 == hole.high:
                self.spans[place : place + 2] = [Span(below.low, above.high, below.first, above.after)]
                self.voids = [void for void in self.voids if not below.high < void.low < above.low]
                return
        raise BrokenInvariant(f"bursts {hole.low}-{hole.high} are no hole")

    def encode(self) -> str:
        return json.dumps(
            {
                "floor": self.floor,
                "spans": [[s.low, s.high, s.first, s.after] for s in self.spans],
                "voids": [[v.low, v.high, v.cells] for v in self.voids],
            }
        )

    @classmethod
    def decode(cls, text: str) -> Heard:
        data = json.loads(text)
        return cls([Span(*span) for span in data["spans"]], data["floor"], [Void(*v) for v in data.get("voids", [])])

    def _raise_floor(self, floor: int | None, seq: int, first: int | None) -> None:
        if floor is None:
            return
        if self.floor is None and not self.spans:
            before = 0 if floor == 0 else first if floor == seq else None
            self.spans = [Span(-1, floor - 1, 0, before)]
        self.floor = max(self.floor or 0, floor)

    def _hole(self, below: Span, above: Span) -> Hole:
        counted = 0 if below.after is None else above.first - below.after
        cells = sum(void.cells for void in self.voids if below.high < void.low < above.low)
        return Hole(below.high + 1, above.low - 1, max(0, counted - cells))

    def _join(self) -> None:
        joined: list[Span] = []
        for span in self.spans:
            if joined and self._all_came(joined[-1], span):
                hole = self._hole(joined[-1], span)
                if hole.readings:
                    # Where something was refused the jump is its; else the later burst names it.
                    low = min(hole.low, span.low)
                    self.skipped.append(Hole(low, max(low, hole.high), hole.readings))
                joined[-1] = Span(joined[-1].low, span.high, joined[-1].first, span.after)
            else:
                joined.append(span)
        self.spans = joined
        self.voids = [v for v in self.voids if not any(s.low <= v.low <= s.high for s in joined)]

    def _all_came(self, below: Span, above: Span) -> bool:
        refused = sum(void.high - void.low + 1 for void in self.voids if below.high < void.low < above.low)
        return refused == above.low - 1 - below.high

    def _join_voids(self) -> None:
        """Neighbours become one; beyond the bound the two lowest do, and what lay between comes as a repeat."""
        joined: list[Void] = []
        for void in self.voids:
            if joined and void.low == joined[-1].high + 1:
                joined[-1] = Void(joined[-1].low, void.high, joined[-1].cells + void.cells)
            else:
                joined.append(void)
        if len(joined) > SPANS:
            for place, (one, two) in enumerate(itertools.pairwise(joined)):
                if not any(one.low < span.low < two.low for span in self.spans):
                    joined[place : place + 2] = [Void(one.low, two.high, one.cells + two.cells)]
                    break  # there is such a pair, as spans are no more than SPANS
        self.voids = joined


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
        if any(one.burst.events for one in incoming):
            return await self.disk.write(lambda: self.take_now(incoming, now, monotonic_s))
        size = sum(len(one.payload) for one in incoming)
        return await self.disk.write_soon(lambda: self.take_now(incoming, now, monotonic_s), size=size)

    async def take_broken(
        self, device: str, payload: bytes, why: str, now: int, *, monotonic_s: float
    ) -> list[tuple[str, Taken]]:
        """A message that breaks its contract: rejected once where boot and seq can be read, and then taken."""
        return await self.disk.write(lambda: self.take_broken_now(device, payload, why, now, monotonic_s))

    async def settle(self, now: int, *, monotonic_s: float) -> None:
        """Once a second or so: what has been lost for longer than the grace, and refusals that were held back."""
        await self.disk.write_soon(lambda: self.settle_now(now, monotonic_s), size=0)

    # --- in the disk's thread, inside a transaction -------------------------------------------------

    def take_now(self, incoming: list[Incoming], now: int, monotonic_s: float) -> list[tuple[str, Taken]]:
        seqs: dict[tuple[str, str], set[int]] = {}
        records: list[Record] = []
        for one in incoming:
            key = (one.device, one.burst.boot)
            heard, closed = self._boot(*key, now)
            records += closed
            # A repeat is said to be taken as well: the device asks because it did not hear us.
            seqs.setdefault(key, set()).add(one.burst.seq)
            if one.device not in self.devices:
                if heard.refuse(Name.of_burst(one.burst)):
                    self.refuse_now(one.device, "unknown_device", one.burst.readings, one.payload, now, monotonic_s)
                else:
                    self.counts.repeats += 1
            elif heard.take(one.burst):
                self._keep(one)
            else:
                self.counts.repeats += 1
        return self._taken(seqs, records, now)

    def take_broken_now(
        self, device: str, payload: bytes, why: str, now: int, monotonic_s: float
    ) -> list[tuple[str, Taken]]:
        name = Name.of(payload)
        sample = f"{why[:150]} in ".encode() + payload[:200]
        if name is None:
            self.refuse_now(device, "malformed", 0, sample, now, monotonic_s)
            return []
        heard, records = self._boot(device, name.boot, now)
        if heard.refuse(name):
            self.refuse_now(device, "malformed", name.readings, sample, now, monotonic_s)
        else:
            self.counts.repeats += 1
        return self._taken({(device, name.boot): {name.seq}}, records, now)

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

    def goes_on(self, device: str, boot: str) -> tuple[int, int]:
        """Seq and count of readings with which this boot goes on: for who numbers bursts on behalf of a device."""
        heard = self._heard.get((device, boot))
        last = heard.spans[-1] if heard and heard.spans else None
        return (last.high + 1, last.after or 0) if last else (0, 0)

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

    def _taken(self, seqs: dict[tuple[str, str], set[int]], records: list[Record], now: int) -> list[tuple[str, Taken]]:
        """Write what was heard of these boots, with the gaps it shows; what their devices may forget."""
        for key in sorted(seqs.keys() & self._heard.keys()):  # a boot may be forgotten in its very batch
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

    def _boot(self, device: str, boot: str, now: int) -> tuple[Heard, list[Record]]:
        """What is known of this boot, and the gaps of those that are forgotten to make room for it."""
        if (device, boot) in self._heard:
            return self._heard[device, boot], []
        records: list[Record] = []
        if device not in self._boots and device not in self.devices:
            strangers = [one for one in self._boots if one not in self.devices]
            if len(strangers) >= STRANGERS:
                for old in self._boots.pop(strangers[0]):
                    records += self._forget(strangers[0], old, now)
        boots = self._boots.setdefault(device, [])
        if len(boots) >= BOOTS:
            records += self._forget(device, boots.pop(0), now)
        boots.append(boot)
        heard = self._heard[device, boot] = Heard()
        self.disk.db.execute(
            "INSERT INTO heard SELECT ?, ?, COALESCE(MAX(nth), 0) + 1, ? FROM heard", (device, boot, heard.encode())
        )
        return heard, records

    def _forget(self, device: str, boot: str, now: int) -> list[Record]:
        heard = self._heard[device, boot]
        gaps: list[Record] = [self._gap(device, boot, hole, now) for hole in [*heard.skipped, *heard.holes()]]
        del self._heard[device, boot]
        self.disk.db.execute("DELETE FROM heard WHERE device = ? AND boot = ?", (device, boot))
        return gaps

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
