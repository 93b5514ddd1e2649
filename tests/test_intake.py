"""Intake: a burst comes in once, is on the disk before its device hears so, and what never came is counted once."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.disk import Disk
from edge.intake import BOOTS, SPANS, STRANGERS, Heard, Incoming, Intake
from edge.outbox import Outbox
from messages.contracts import Batch, Burst, Gap, Rejected, Taken
from messages.errors import BadMessage, BrokenInvariant

NOW = 1_750_000_000_000_000
BOOT = "b001b001"


def burst(seq: int, *, first: int, rows: int = 2, floor: int | None = None, boot: str = BOOT) -> Burst:
    return Burst(
        boot=boot,
        seq=seq,
        floor=floor,
        first=first,
        t0=NOW,
        at=list(range(rows)),
        columns={"power_kw": [1.0] * rows},
        units={"power_kw": "kW"},
    )


def incoming(*bursts: Burst, device: str = "kiln-1") -> list[Incoming]:
    return [Incoming(device, one.encode(), one) for one in bursts]


class Rig:
    """Intake on a disk that can be opened again, with a clock of its own."""

    def __init__(self, folder: Path, **settings: float) -> None:
        self.folder, self.settings, self.monotonic_s = folder, settings, 100.0
        self.epoch = 0
        self.open()

    def open(self) -> None:
        self.epoch += 1
        self.disk = Disk.open(self.folder)
        self.outbox = Outbox.open(self.disk, budget_bytes=1 << 24, mint=lambda: f"{self.epoch:016x}")
        self.intake = Intake.open(self.disk, self.outbox, devices=["kiln-1", "meter"], **self.settings)  # type: ignore[arg-type]

    def restart(self) -> None:
        self.disk.close()
        self.open()

    def take(self, *bursts: Burst, device: str = "kiln-1") -> list[tuple[str, Taken]]:
        with self.disk.transaction():
            return self.intake.take_now(incoming(*bursts, device=device), NOW, self.monotonic_s)

    def take_broken(self, payload: bytes, device: str = "kiln-1") -> list[tuple[str, Taken]]:
        with self.disk.transaction():
            return self.intake.take_broken_now(device, payload, "it is broken", NOW, self.monotonic_s)

    def refuse(self, device: str, reason: str, sample: bytes = b"{") -> None:
        with self.disk.transaction():
            self.intake.refuse_now(device, reason, 3, sample, NOW, self.monotonic_s)

    def later(self, seconds: float) -> None:
        """Time passes; intake looks before and after."""
        for step in (0.0, seconds):
            self.monotonic_s += step
            with self.disk.transaction():
                self.intake.settle_now(NOW, self.monotonic_s)

    def records(self, kind: type) -> list[object]:
        rows = self.disk.db.execute("SELECT payload FROM outbox WHERE lane = 'record' ORDER BY id").fetchall()
        return [one for (payload,) in rows for one in Batch.decode(payload).records if isinstance(one, kind)]

    def gaps(self) -> list[tuple[tuple[int, int], int]]:
        return [(gap.bursts, gap.readings) for gap in self.records(Gap)]  # type: ignore[attr-defined]

    def inbox(self) -> list[int]:
        return [one.burst.seq for one in self.intake.unprocessed(bursts=10_000, readings=10**9)]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_burst_is_taken_once_and_a_repeat_is_told_so_again(rig: Rig) -> None:
    first = rig.take(burst(0, first=0), burst(1, first=2), burst(0, first=0))
    again = rig.take(burst(1, first=2), burst(5, first=10, floor=2))
    assert first == [("kiln-1", Taken(boot=BOOT, ranges=[(0, 1)]))]
    assert again == [("kiln-1", Taken(boot=BOOT, ranges=[(1, 1), (5, 5)]))]
    assert rig.inbox() == [0, 1, 5]
    assert rig.intake.counts.repeats == 2


def test_taken_is_said_of_exactly_what_came_in_parts_the_contract_can_carry(rig: Rig) -> None:
    said = rig.take(*(burst(seq, first=2 * seq, floor=0) for seq in range(0, 200, 2)))
    assert len(said) > 1
    assert [seq for _, taken in said for low, high in taken.ranges for seq in range(low, high + 1)] == list(
        range(0, 200, 2)
    )


def test_what_a_restart_finds_is_what_was_committed(rig: Rig) -> None:
    rig.take(burst(0, first=0), burst(1, first=2))
    with pytest.raises(KeyboardInterrupt), rig.disk.transaction():
        rig.intake.take_now(incoming(burst(2, first=4)), NOW, 0.0)
        raise KeyboardInterrupt
    rig.restart()
    assert rig.inbox() == [0, 1] and rig.intake.waiting == 2 and rig.intake.waiting_bytes > 0
    rig.take(burst(1, first=2), burst(2, first=4))
    assert rig.inbox() == [0, 1, 2], "burst 2 was never said to be taken, so it came again"
    done = rig.intake.unprocessed(bursts=2, readings=10**9)
    with rig.disk.transaction():
        rig.intake.processed(done)
    rig.restart()
    assert rig.inbox() == [2] and (rig.intake.waiting, len(rig.intake._fresh)) == (1, 0)


def test_a_step_takes_few_large_bursts_but_always_one(rig: Rig) -> None:
    rig.take(*(burst(seq, first=100 * seq, rows=100) for seq in range(5)))
    assert len(rig.intake.unprocessed(bursts=100, readings=250)) == 2
    assert len(rig.intake.unprocessed(bursts=100, readings=1)) == 1
    assert len(rig.intake.unprocessed(bursts=3, readings=10**9)) == 3


def test_a_hole_is_a_gap_after_the_grace_and_a_straggler_within_it_fills_it(rig: Rig) -> None:
    rig.take(burst(0, first=0), burst(3, first=6), burst(5, first=10))
    rig.later(5)
    rig.take(burst(4, first=8))
    rig.later(5)
    assert rig.gaps() == [((1, 2), 4)]
    rig.later(60)
    assert rig.gaps() == [((1, 2), 4)]


def test_a_straggler_after_the_grace_is_not_counted_twice(rig: Rig) -> None:
    rig.take(burst(0, first=0), burst(2, first=4))
    rig.later(11)
    assert rig.gaps() == [((1, 1), 2)]
    rig.take(burst(1, first=2))
    assert rig.inbox() == [0, 2] and rig.intake.counts.repeats == 1
    rig.restart()
    rig.take(burst(1, first=2))
    rig.later(11)
    assert rig.inbox() == [0, 2] and rig.gaps() == [((1, 1), 2)]


def test_a_device_that_still_holds_a_burst_has_not_lost_it(rig: Rig) -> None:
    rig.take(burst(0, first=0, floor=0), burst(3, first=6, floor=1))
    rig.later(1_000)
    assert rig.gaps() == []
    rig.take(burst(4, first=8, floor=3))
    rig.later(11)
    assert rig.gaps() == [((1, 2), 4)]


def test_a_fresh_disk_begins_at_the_floor_of_a_running_boot_because_what_lies_below_was_taken(rig: Rig) -> None:
    rig.take(burst(7, first=14, floor=5))
    rig.later(11)
    assert rig.gaps() == []
    rig.take(burst(5, first=10, floor=5), burst(3, first=6, floor=3))
    assert rig.inbox() == [7, 5], "3 is below the floor: another disk took it"
    rig.take(burst(8, first=16, floor=8))
    rig.later(11)
    assert rig.gaps() == [((6, 6), 2)], "what the device loses from its floor on is counted"


def test_a_fresh_disk_begins_at_the_lowest_burst_heard_of_a_device_that_keeps_nothing(rig: Rig) -> None:
    rig.take(burst(7, first=14))
    rig.later(11)
    assert rig.gaps() == []
    rig.take(burst(5, first=10), burst(9, first=18))
    rig.later(11)
    assert rig.gaps() == [((6, 6), 2), ((8, 8), 2)]
    assert rig.inbox() == [7, 5, 9]


def test_the_first_bursts_of_a_new_boot_count_when_they_come_late_or_never(rig: Rig) -> None:
    rig.take(burst(2, first=4, floor=0))
    rig.take(burst(1, first=2, floor=0))
    rig.take(burst(3, first=6, floor=3))
    rig.later(11)
    assert rig.inbox() == [2, 1, 3] and rig.gaps() == [((0, 0), 2)]


def test_readings_lost_between_two_bursts_that_are_here_are_counted_at_once(rig: Rig) -> None:
    rig.take(burst(0, first=0), burst(1, first=7))
    assert rig.gaps() == [((1, 1), 5)]
    rig.later(100)
    assert rig.gaps() == [((1, 1), 5)]


def test_memory_of_boots_and_spans_is_bounded_and_forgetting_counts_gaps(rig: Rig) -> None:
    for n in range(BOOTS + 3):
        boot = f"{n:08x}"
        rig.take(burst(0, first=0, floor=0, boot=boot), burst(2, first=4, floor=0, boot=boot))
    assert rig.gaps() == [((1, 1), 2)] * 3
    rig.take(*(burst(seq, first=2 * seq, floor=0) for seq in range(0, 4 * SPANS, 2)))
    assert len(rig.intake._heard["kiln-1", BOOT].spans) == SPANS
    assert rig.disk.db.execute("SELECT COUNT(*) FROM heard").fetchone() == (BOOTS,)


def test_refusals_are_recorded_singly_while_few_and_summed_when_many_and_no_restart_forgets_them(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, samples=3)
    for n in range(10):
        rig.refuse("kiln-1", "malformed", f"no {n}".encode())
    assert [one.sample for one in rig.records(Rejected)] == ["no 0", "no 1", "no 2"]  # type: ignore[attr-defined]
    rig.restart()
    rig.monotonic_s += 61
    rig.later(0)
    total = rig.records(Rejected)[3:]
    assert [(one.readings, one.sample) for one in total] == [(21, "7 messages, the first: no 3")]  # type: ignore[attr-defined]
    rig.later(61)
    assert len(rig.records(Rejected)) == 4


def test_a_flood_of_unknown_devices_is_bounded_on_disk(tmp_path: Path) -> None:
    rig = Rig(tmp_path, samples=0)
    for n in range(300):
        rig.refuse(f"stranger-{n}", "unknown_device")
    rows = rig.disk.db.execute("SELECT COUNT(*), SUM(messages) FROM refused").fetchone()
    assert rows == (257, 300)


def test_a_stranger_is_refused_once_and_said_to_be_taken_so_that_it_can_forget(rig: Rig) -> None:
    for _ in range(3):
        assert rig.take(burst(0, first=0), device="stranger") == [("stranger", Taken(boot=BOOT, ranges=[(0, 0)]))]
        rig.restart()
    [rejected] = rig.records(Rejected)
    assert isinstance(rejected, Rejected)
    assert (rejected.device, rejected.reason, rejected.readings) == ("stranger", "unknown_device", 2)
    assert rig.inbox() == []


def test_the_memory_of_strangers_is_bounded_also_after_a_restart(rig: Rig) -> None:
    rig.take(burst(0, first=0))
    for n in range(STRANGERS):
        rig.take(burst(0, first=0), device=f"stranger-{n}")
    rig.restart()
    for n in range(STRANGERS, STRANGERS + 5):
        rig.take(burst(0, first=0), device=f"stranger-{n}")
    assert rig.disk.db.execute("SELECT COUNT(*) FROM heard").fetchone() == (STRANGERS + 1,)
    assert set(rig.intake._boots) == {"kiln-1", *(f"stranger-{n}" for n in range(5, STRANGERS + 5))}


def spoilt(one: Burst, **changes: object) -> bytes:
    """The bytes of a burst with some fields changed for the worse; None leaves a field out."""
    fields = {**json.loads(one.encode()), **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not None}).encode()


GOOD = burst(1, first=2, rows=3, floor=0)


@pytest.mark.parametrize(
    ("payload", "readings"),
    [
        (spoilt(GOOD, columns={"power_kw": [1.0, 2.0]}), 2),  # one value too few
        (spoilt(GOOD, columns={"power_kw": [1.0, float("nan"), 2.0]}), 3),
        (spoilt(GOOD, columns={"power_kw": [1.0, "much", 2.0]}), 3),
        (spoilt(GOOD, columns={"power_kw": 7}), 0),
        (spoilt(GOOD, columns=7), 0),
        (spoilt(GOOD, units={}), 3),
        (spoilt(GOOD, at="now"), 3),
        (spoilt(GOOD, first=-1), 3),
        (spoilt(GOOD, first=None, floor="low"), 3),
        (spoilt(GOOD, columns={"power_kw": [1.0] * 99}), 3),
        (GOOD.encode()[:-20], 3),  # cut behind the columns
        (GOOD.encode()[: GOOD.encode().index(b'"columns"') + 20], 0),  # within them
        (spoilt(GOOD, events=[{"at": 0, "kind": "?"}]), 3),
        (GOOD.encode().replace(b"kW", b"k\xff"), 3),
    ],
)
def test_a_burst_that_breaks_its_contract_is_rejected_once_and_taken_and_every_reading_counted(
    rig: Rig, payload: bytes, readings: int
) -> None:
    with pytest.raises(BadMessage):
        Burst.decode(payload)
    rig.take(burst(0, first=0, rows=2, floor=0))
    for _ in range(3):
        assert rig.take_broken(payload) == [("kiln-1", Taken(boot=BOOT, ranges=[(1, 1)]))]
        rig.restart()
    [rejected] = rig.records(Rejected)
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.readings) == ("malformed", readings)
    rig.take(burst(2, first=5, floor=2))
    rig.later(11)
    assert rig.gaps() == ([((1, 1), 3 - readings)] if readings < 3 else [])
    assert rig.inbox() == [0, 2] and rig.intake._heard["kiln-1", BOOT].voids == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"7",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"boot": NaN}',
        spoilt(GOOD, boot="?"),
        spoilt(GOOD, seq=1.5),
        spoilt(GOOD, seq=None),
        spoilt(GOOD, seq=10**400),
        GOOD.encode()[: GOOD.encode().index(b'"seq":1') + 7],  # more digits may have followed
    ],
)
def test_bytes_that_do_not_say_which_burst_they_are_are_only_counted(rig: Rig, payload: bytes) -> None:
    assert rig.take_broken(payload) == rig.take_broken(payload) == []
    assert [(one.reason, one.readings) for one in rig.records(Rejected)] == [("malformed", 0)] * 2  # type: ignore[attr-defined]


def test_broken_bursts_without_end_are_remembered_within_the_bound_and_counted_once(rig: Rig) -> None:
    last = 4 * SPANS
    rig.take(burst(0, first=0, floor=0))
    for seq in range(2, last, 2):
        rig.take_broken(spoilt(burst(seq, first=2 * seq, floor=0), units={}))
    assert len(rig.intake._heard["kiln-1", BOOT].voids) == SPANS
    rig.take(burst(last, first=2 * last, floor=last))
    rig.later(11)
    rejected = rig.intake.counts.refused_readings
    assert rejected == 2 * (last // 2 - 1)
    assert sum(readings for _, readings in rig.gaps()) + rejected + 2 == 2 * last


def test_closing_what_is_no_hole_is_a_broken_invariant() -> None:
    heard = Heard()
    heard.take(burst(0, first=0))
    heard.take(burst(3, first=6))
    with pytest.raises(BrokenInvariant):
        heard.close(type(heard.holes()[0])(1, 1, 0))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=25),
    cooperative=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_reading_a_device_counted_is_taken_once_or_in_one_gap(
    sizes: list[int], cooperative: bool, seed: int
) -> None:
    """Lost, late, repeated, broken, in any order, with restarts between: the last burst always comes, and the first
    of those not lost is sound, as a boot begins there."""
    rng = random.Random(seed)
    firsts = [sum(sizes[:n]) for n in range(len(sizes))]
    last = len(sizes) - 1
    lost = {seq for seq in range(last) if rng.random() < 0.3}
    begin = min(seq for seq in range(len(sizes)) if seq not in lost)
    broken = {seq for seq in range(begin + 1, last) if seq not in lost and rng.random() < 0.25}
    spoils: list[dict[str, object]] = [{"units": {}}, {"first": -1, "units": {}}, {"columns": 7}]
    order = [seq for seq in range(len(sizes)) if seq not in lost for _ in range(rng.choice((1, 1, 2)))]
    for n in range(len(order)):  # late by a few places
        other = min(len(order) - 1, n + rng.choice((0, 0, 1, 3)))
        order[n], order[other] = order[other], order[n]
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        arrived: set[int] = set()
        for seq in order:
            # What a cooperative device still holds is all that has not been taken, apart from what it lost.
            floor = (
                min((s for s in range(len(sizes)) if s not in arrived | lost), default=last) if cooperative else None
            )
            one = burst(seq, first=firsts[seq], rows=sizes[seq], floor=floor)
            if seq in broken:
                rig.take_broken(spoilt(one, **spoils[seq % 3]))
            else:
                rig.take(one)
            arrived.add(seq)
            if rng.random() < 0.2:
                rig.restart()
            if rng.random() < 0.2:
                rig.later(rng.choice((3, 11)))
        rig.take(burst(last + 1, first=sum(sizes), rows=1, floor=last + 1 if cooperative else None))
        rig.later(11)
        inbox = rig.inbox()
        gaps = rig.gaps()
        rejected = sum(one.readings for one in rig.records(Rejected))  # type: ignore[attr-defined]
        rig.disk.close()
    taken = [seq for seq in inbox if seq <= last]
    missing = [seq for (low, high), _ in gaps for seq in range(low, high + 1)]
    assert len(inbox) == len(set(inbox)) and len(missing) == len(set(missing))
    assert set(taken) | set(missing) | broken == set(range(begin, last + 1))
    assert not set(taken) & (set(missing) | broken)
    counted = sum(sizes[seq] for seq in taken) + sum(readings for _, readings in gaps) + rejected
    assert counted == sum(sizes[begin:])
    if cooperative:
        assert {seq for seq in lost if seq > begin} <= set(missing) <= lost | broken
