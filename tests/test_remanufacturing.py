"""The remanufacturing plant: what disassembly finds is drawn, told, stored and built from, and nothing else is."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from messages.contracts import (
    Action,
    Batch,
    Envelope,
    Finished,
    Interrupted,
    MachineEvent,
    OrderedJob,
    PartIdentified,
    Record,
    Started,
)
from messages.dispatch.judge import ByRule
from messages.inventory import Balance
from messages.negotiation import Award, task_of
from messages.plant import Plant, load_plant
from messages.routes import BATCH
from shoal.audit import Audit
from shoal.demo import file_of
from shoal.query import Format, query
from shoal.recovered import Recovered, balance_of, rerouted
from shoal.remanufacture import orders_of
from shoal.swarm.disturb import parse
from shoal.swarm.outcome import Swarm
from shoal.swarm.sim import outcome_of
from shoal.swarm.stage import Stage

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


# --- the whole plant --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "disturb"), [(1, ""), (2, "breakdown:2,node,judge,rival,lose:0.05,double:0.1")])
def test_every_order_is_built_though_yields_are_unknown_and_components_add_up(
    plant: Plant, seed: int, disturb: str
) -> None:
    orders = tuple(orders_of(plant).values())
    scenario = parse(disturb, plant, orders, span_s=4 * 3600, seed=seed)
    stage = Stage(Swarm(plant, orders, ByRule(kind="fifo"), scenario=scenario, seed=seed, sigma=0.02))
    stage.run(most_events=400_000)
    outcome = outcome_of(stage)
    assert [fault for fault in outcome.faults if "was not done" in fault or "times" in fault] == []
    done = {(run.job, run.op) for run in outcome.runs if not run.interrupted}
    assert {(job.job, op) for job in orders for op in range(2)} <= done
    own = {job for job, _ in done} - {job.job for job in orders}
    assert own and all(job.partition("~")[0] in plant.products for job in own)
    jobs = [*orders, *(OrderedJob(job=job, product=job.partition("~")[0]) for job in own)]
    balance, bins = balance_of(plant, jobs, stage.stored), stage.factory.bins
    assert balance.in_stock == {name: bins.pieces[name] for name in balance.in_stock}
    assert Counter(balance.recovered) == +bins.recovered and Counter(balance.consumed) == +bins.consumed
    assert sum(balance.not_good.values()) > 0 and balance.recycled_kg["steel"] > 0


def record(kind: type[Any], at: int, machine: str, job: str = "strip~1") -> Record:
    known = {"job": job, "op": 0, "started_at": at, "plan_revision": 0}
    fields = {name: value for name, value in known.items() if name in kind.model_fields}
    found: Record = kind(at=at, machine=machine, **fields)
    return found


def test_work_that_was_done_elsewhere_than_its_part_was_brought_first_is_counted() -> None:
    straight = [
        record(PartIdentified, 1, "cell-1"), record(Started, 2, "cell-1"), record(PartIdentified, 5, "bench"),
        record(Started, 6, "bench"),
    ]  # fmt: skip
    assert rerouted(straight) == rerouted(straight[::-1]) == 0
    fetched = [record(PartIdentified, 1, "cell-1"), record(PartIdentified, 4, "cell-2"), record(Started, 5, "cell-2")]
    broken = [
        record(PartIdentified, 1, "cell-1", "b"), record(Started, 2, "cell-1", "b"),
        record(Interrupted, 3, "cell-1", "b"), record(PartIdentified, 7, "cell-2", "b"),
        record(Started, 8, "cell-2", "b"),
    ]  # fmt: skip
    assert rerouted(fetched) == rerouted(broken) == 1 and rerouted([*fetched, *straight, *broken]) >= 2
    at_once = [
        record(Started, 2, "cell-1", "c"), record(Interrupted, 2, "cell-1", "c"), record(Started, 8, "cell-2", "c")
    ]  # fmt: skip
    assert rerouted(at_once) == rerouted(at_once[::-1]) == 1


CLEAN = Audit(
    produced=8, stored=8, rejected=0, gaps=0, evicted=0, quarantined=0, duplicated=0, strangers=0, unexplained=0
)
ADDS_UP = Balance(
    first={"core": 3}, recovered={"rotor": 1}, consumed={"core": 2, "rotor": 1}, in_stock={"core": 1, "rotor": 0},
    not_good={}, worth=1.0, recycled_kg={},
)  # fmt: skip
GOOD = Recovered(
    audit=CLEAN, jobs=2, jobs_done=2, excused={}, missing=(), own=1, own_given_up=0, rerouted=0, interrupted=0,
    balance=ADDS_UP, makespan_h=1, energy_kwh=1, carbon_kg=1, faults=(), terms=("cloud, term 1",), seconds=1,
    floor={"in_stock": {"core": 1}, "recovered": {"rotor": 1}, "consumed": {"core": 2, "rotor": 1}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"jobs_done": 1, "missing": ("m2",)}, "m2 was not done, and nobody says why"),
        ({"jobs_done": 0}, "nothing was built"),
        ({"floor": GOOD.floor | {"in_stock": {"core": 0}}}, "components do not add up"),
        ({"balance": replace(ADDS_UP, recovered={"rotor": 2})}, "components do not add up"),
        ({"audit": replace(CLEAN, unexplained=1)}, "1 readings lost"),
        ({"faults": ("two at once",)}, "breaks 1 rules"),
        ({"given_up": "not done after 72 plant hours"}, "72 plant hours"),
    ],
)
def test_a_run_is_good_only_when_nothing_speaks_against_it(changed: dict[str, Any], said: str) -> None:
    assert GOOD.good and replace(GOOD, jobs_done=1, excused={"m2": "cancelled: as was asked"}).good
    bad = replace(GOOD, **changed)
    assert not bad.good and said in bad.failures[0]
    assert json.dumps(bad.as_json()) and bad.table()


def test_the_demo_knows_its_plants_by_name(tmp_path: Path) -> None:
    assert file_of("remanufacturing") == PLANT and load_plant(file_of("ceramic")).circular is None
    assert file_of(str(tmp_path / "mine.toml")) == tmp_path / "mine.toml"
