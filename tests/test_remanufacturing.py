"""The remanufacturing plant: what disassembly finds is drawn, told, stored and built from, and nothing else is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from cloud.ingest import Ingest
from cloud.ledger import Ledger
from cloud.stores import SqliteStore
from cloud.stores.lines import event as event_line
from edge.bidding import Bidding
from edge.executor import Executor
from firmware_sim.factory import Factory
from firmware_sim.settings import Breakdown, Variation
from messages.bus import Received
from messages.clock import SECOND
from messages.contracts import Action, Batch, Envelope, Finished, MachineEvent, Record
from messages.negotiation import Award, task_of
from messages.plant import Plant, load_plant
from messages.routes import BATCH
from shoal.query import Format, query

PLANT = Path(__file__).parent.parent / "firmware_sim" / "plants" / "remanufacturing.toml"
T0 = 1_767_225_600_000_000
MINUTE = 60 * SECOND


@pytest.fixture(scope="module")
def plant() -> Plant:
    return load_plant(PLANT)


def factory(plant: Plant, *, seed: int = 1, scenario: tuple[Breakdown, ...] = ()) -> Factory:
    return Factory(plant, start=T0, seed=seed, variation=Variation(sigma=0), scenario=scenario)


def do(floor: Factory, machine: str, job: str, op: int = 0, seconds: float = 600.0) -> list[MachineEvent]:
    """Call for the part, start, and wait for the end; what the machine said."""
    told: list[MachineEvent] = []
    for kind in ("call", "start"):
        action = Action(
            id=f"{kind}-{machine}-{job}-{floor.now}", kind=kind, job=job, op=op, valid_until=floor.now + 600 * MINUTE,
            duration_s=seconds if kind == "start" else None,
        )  # fmt: skip
        floor.act(machine, action, floor.now)
        floor.advance(floor.now + 20 * MINUTE)
        told += floor.drain(machine)
    return told


def test_the_plant_orders_what_it_builds_and_two_cells_can_take_the_same_apart(plant: Plant) -> None:
    assert plant.ordered == ("alternator", "starter") and plant.circular is not None
    assert set(plant.route("strip-starter")[0][1]) == {"cell-1", "cell-2"}
    assert all(plant.circular.sources.get(name) for name in plant.circular.brought)


def test_what_is_found_is_told_by_the_machine_and_is_the_same_for_the_same_seed(plant: Plant) -> None:
    def found(seed: int) -> list[dict[str, int] | None]:
        floor = factory(plant, seed=seed)
        jobs = [f"strip-alternator~{number}" for number in range(1, 7)]
        return [event.recovered for job in jobs for event in do(floor, "cell-1", job) if event.kind == "finished"]

    runs = [found(seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    told = Counter({name: sum((one or {}).get(name, 0) for one in runs[0]) for name in ("worn-rotor", "housing")})
    assert 0 < told["worn-rotor"] < 6 or 0 < told["housing"] < 6, "some are good and some are not"


def test_nothing_is_built_from_what_is_not_there(plant: Plant) -> None:
    floor = factory(plant)
    floor.expect("a1", "alternator")
    refused = do(floor, "assembly", "a1")[-1]
    assert refused.kind == "refused"
    assert refused.detail == "start: 1 rotor needed, 0 in stock; 1 housing needed, 0 in stock"
    do(floor, "bench", "buy-rotor~1")
    do(floor, "bench", "buy-housing~1")
    assert do(floor, "assembly", "a1")[-2].kind == "finished"
    assert floor.bins.pieces["bearing"] == 2 and floor.bins.pieces["rotor"] == 0


def test_what_begins_again_after_a_breakdown_takes_its_components_once(plant: Plant) -> None:
    floor = factory(plant, scenario=(Breakdown(machine="cell-1", at_h=0.4, repair_h=0.5),))
    first = do(floor, "cell-1", "strip-starter~1", seconds=1800)
    assert "interrupted" in [event.kind for event in first] and floor.bins.pieces["starter-core"] == 6
    floor.advance(floor.now + 60 * MINUTE)
    again = do(floor, "cell-2", "strip-starter~1")
    assert "finished" in [event.kind for event in again] and floor.bins.pieces["starter-core"] == 6


def test_a_record_says_what_was_recovered_and_so_does_the_agenda_until_it_is_confirmed(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    floor, node = factory(plant), Executor(plant, "disassembly")
    job = "strip-alternator~1"
    body = Award(
        term=1, session="00aa00aa", job=job, op=0, round=1, machine="cell-1", seconds=2160.0, last=True
    )  # fmt: skip
    award = Envelope[Award](
        key=task_of(job, 0), target=f"{plant.site}/disassembly", counter=7, valid_until=T0 + 600 * MINUTE, body=body
    )
    out, records = node.on_award(award, T0), list[Record]()
    for minute in range(1, 90):
        for device, action in out.actions:
            floor.act(device, action, floor.now)
        floor.advance(T0 + minute * MINUTE)
        node = Executor(plant, "disassembly", node.snapshot())  # a power cut every minute
        out = node.on_events("cell-1", floor.drain("cell-1"), floor.now) + node.on_time(floor.now)
        records += out.records
    record = next(record for record in records if isinstance(record, Finished))
    assert record.recovered == {name: floor.bins.recovered[name] for name in ("worn-rotor", "housing", "bearing")}
    agenda = Bidding(node).agenda(floor.now)
    assert agenda is not None and [one.recovered for one in agenda.awards] == [record.recovered]
    _stored(record, tmp_path / "store.db")
    query("records", output=Format.JSON, store=tmp_path / "store.db")
    assert json.loads(capsys.readouterr().out)[0]["recovered"] == record.recovered


def _stored(record: Finished, path: Path) -> None:
    """Handed over as a node does; what InfluxDB's events say of it, people can read."""
    with SqliteStore(path=path).open() as store:
        ingest = Ingest(store, Ledger(store.connection, wall_us=1, path=path), now=lambda: T0)
        batch = Batch(epoch="0123456789abcdef", lane="record", seq=0, floor=0, made_at=T0, records=[record])
        ids = {"site": "remanufacturing", "node": "disassembly", "lane": "record"}
        ingest.take([Received(BATCH.topic(**ids), ids, Batch.decode(batch.encode()), batch.encode())])
        (stored,) = store.records(after=0, limit=9)
    found = ", ".join(f"{pieces} {name}" for name, pieces in (record.recovered or {}).items())
    assert f"at cell-1 with {found}" in event_line(stored)
