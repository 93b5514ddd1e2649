"""A burst that cleaning cannot bear is found and left out; what is around it is cleaned as if it had never come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from edge_rig import DEVICE, NODE, PLANT, SITE, T0

from edge.assembly import node_of
from edge.cleaning import Cleaned, Cleaner
from edge.disk import Disk
from edge.intake import Incoming
from edge.poison import clean_apart
from edge.settings import EdgeSettings
from messages.clock import clock_from
from messages.connect import bus_to
from messages.contracts import Batch, Burst, MachineEvent, Record, Rejected, StateChanged
from messages.plant import load_plant

PLANT_MODEL = load_plant(PLANT)
DEVICES = PLANT_MODEL.devices(NODE)
POISON = 666.0


class Brittle(Cleaner):
    """Cleaning with a bug: it dies of one value, and only after it has changed what it remembers."""

    def clean(self, bursts: Sequence[tuple[str, Burst]], now: int) -> Cleaned:
        cleaned = super().clean(bursts, now)
        if any(POISON in burst.columns["power_kw"] for _, burst in bursts):
            raise ZeroDivisionError("nobody thought of 666")
        return cleaned


def burst(seq: int, power_kw: float = 100.0, events: Sequence[MachineEvent] = ()) -> Burst:
    return Burst(
        boot="b001b001",
        seq=seq,
        floor=0,
        first=2 * seq,
        t0=T0 + seq * 10_000_000,
        at=[0, 1_000_000],
        columns={"power_kw": [power_kw + seq * 0.25, power_kw]},
        units={"power_kw": "kW"},
        events=list(events),
    )


def rebuild(state: bytes | None) -> Cleaner:
    return Brittle(DEVICES, state)


def test_the_one_that_raises_alone_is_rejected_with_its_readings_and_the_others_are_cleaned_as_without_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = Cleaner(DEVICES).snapshot()
    bursts = [(DEVICE, burst(n, POISON if n in (1, 4) else 100.0)) for n in range(6)]
    cleaner, cleaned = clean_apart(rebuild, kept, bursts, T0)
    assert [(one.reason, one.readings) for one in cleaned.rejected] == [("unprocessable", 2)] * 2
    assert "ZeroDivisionError: nobody thought of 666 in {" in (cleaned.rejected[0].sample or "")
    without = Cleaner(DEVICES, kept)
    parts = [without.clean([one], T0) for n, one in enumerate(bursts) if n not in (1, 4)]
    assert cleaned.series == [series for part in parts for series in part.series]
    assert cleaner.snapshot() == without.snapshot()
    said = capsys.readouterr().out
    assert said.count("edge.unprocessable") == 2 and "ZeroDivisionError" in said


async def test_a_node_with_a_poison_burst_in_its_inbox_goes_on_and_acts_on_its_events(tmp_path: Path) -> None:
    settings = EdgeSettings(site=SITE, node=NODE, plant=PLANT, data=tmp_path)
    with closing(Disk.open(tmp_path)) as disk:
        bus = bus_to(settings.local, "edge")
        node = node_of(settings, PLANT_MODEL, DEVICES, disk, clock_from(None, name=NODE), "5e55105e", bus, bus, bus)
        node.rebuild, node.cleaner = rebuild, rebuild(None)
        with disk.transaction():
            down = MachineEvent(at=T0, kind="breakdown")
            bursts = [burst(n, POISON if n == 1 else 100.0, [down] if n == 1 else []) for n in range(3)]
            node.intake.take_now([Incoming(DEVICE, one.encode(), one) for one in bursts], T0, 0.0)
        assert await node._step()
        assert not await node._step()
        records: list[Record] = []
        rows = 0
        for (payload,) in disk.db.execute("SELECT payload FROM outbox").fetchall():
            batch = Batch.decode(payload)
            records += batch.records
            rows += batch.readings
        assert [(one.reason, one.readings) for one in records if isinstance(one, Rejected)] == [("unprocessable", 2)]
        assert [one.state for one in records if isinstance(one, StateChanged)] == ["down"]
        assert rows == 4 and node.intake.waiting == 0
        assert disk.state("cleaner") == node.cleaner.snapshot()
        counters = json.loads(node.health().encode())["counters"]
        assert counters["rejected_readings"] == 2
