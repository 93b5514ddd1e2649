"""The planner on a real bus: orders in, plans out, disturbances answered, nothing forgotten over a restart."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path

import pytest
from conftest import eventually
from planner_rig import HOUR, MINUTE, T0, one_stage_plant, rig, two_node_plant
from structlog.testing import capture_logs

from cloud.handover import Grant, granted, holds, without
from cloud.planbook import PlanBook
from cloud.planner import Planner
from cloud.planning import alternatives, at_once
from cloud.settings import PlannerSettings
from cloud.standing import done_of
from cloud.stores import SqliteStore
from messages.broker import Broker
from messages.bus import Bus
from messages.clock import SECOND
from messages.contracts import (
    Choice,
    Finished,
    Order,
    OrderedJob,
    PlanAck,
    Signal,
    Started,
    StateChanged,
)
from messages.errors import BadMessage, UsageError
from messages.floor import Floor, problem_of
from messages.plan import Assignment, Plan
from messages.plant import Plant
from messages.routes import CHOICE, ORDER, PLAN_ACK, SIGNAL

PROVED_S = 60.0
"""Enough for a front that is proved, and so ends long before, on a machine however slow."""


async def test_an_order_becomes_a_plan_once_and_the_same_order_again_changes_nothing(
    broker: Broker, tmp_path: Path
) -> None:
    async with rig(broker, tmp_path, two_node_plant()) as it:
        await it.order("a", "b")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        await eventually(lambda: it.plans)
        plan = it.plans[-1].body.plan
        assert {(one.job, one.op) for one in plan.assignments} == {(job, op) for job in "ab" for op in (0, 1)}
        assert plan.t0 is not None and plan.t0 > T0
        assert it.plans[-1].valid_until > T0
        said = len(it.plans)
        await it.order("a", "b")
        await it.order("b")  # an equal revision that says something else: the first word stands
        await it.order("a", "b", name="o2")  # and a job belongs to one order
        await eventually(lambda: it.refused)
        assert "belongs to order 'o1'" in it.refused[0]
        await it.tick(T0 + MINUTE)
        assert len(it.plans) == said and len(it.planner.jobs) == 2


async def test_an_operator_chooses_another_plan_and_later_plans_keep_to_it(broker: Broker, tmp_path: Path) -> None:
    async with rig(broker, tmp_path, one_stage_plant(), budget_s=PROVED_S) as it:
        await it.order("a", "b")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        await eventually(lambda: it.choices)
        offered = it.choices[-1]
        assert (offered.in_force, offered.chosen_by, offered.objectives) == (0, "", ["makespan", "energy"])
        fast, frugal = offered.alternatives  # two ovens at once, or one after the other with one preheating less
        assert frugal.ends_at - fast.ends_at == 4 * HOUR
        said = it.plans[-1].body
        assert fast.ends_at == (said.plan.t0 or 0) + round(said.plan.objectives["makespan"] * said.tick_s * SECOND)
        assert (fast.energy_kwh or 0) - (frugal.energy_kwh or 0) == pytest.approx(25)
        assert it.plans[-1].body.policy == "makespan, then energy"
        assert {one.machine for one in it.plans[-1].body.plan.assignments} == {"oven-1", "oven-2"}

        await it.bus.publish(CHOICE, Choice(revision=offered.revision, choice=1, by="eva"), site="s1")
        await eventually(lambda: it.planner.wanted)
        await it.tick(T0 + MINUTE)
        await eventually(lambda: it.choices[-1].chosen_by == "eva")
        assert len({one.machine for one in it.plans[-1].body.plan.assignments}) == 1
        assert it.plans[-1].body.policy.endswith("by eva")
        assert it.plans[-1].body.moved == 0.5

        await it.bus.publish(CHOICE, Choice(revision=offered.revision, choice=0, by="eva"), site="s1")
        await eventually(lambda: it.refused)
        assert "choose again" in it.refused[0]
        assert it.planner.out.state.preference is not None and it.planner.out.state.preference.by == "eva"


async def test_the_command_shows_the_choices_and_waits_until_one_is_taken_up(broker: Broker, tmp_path: Path) -> None:
    async def shoal(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "shoal", "choose", *words, "--site", "s1", "--port", str(broker.port)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        ending = asyncio.create_task(process.communicate())
        while not ending.done():
            if it.planner.wanted:
                await it.tick(T0 + MINUTE)
            await asyncio.sleep(0.05)
        return process.returncode or 0, (await ending)[0].decode()

    async with rig(broker, tmp_path, one_stage_plant(), budget_s=PROVED_S) as it:
        await it.order("a", "b")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        await eventually(lambda: it.choices)
        code, text = await shoal()
        assert code == 0 and "0 in force" in text and "energy_kwh" in text
        code, text = await shoal("7")
        assert code == 2 and "there are 0 to 1" in text
        code, text = await shoal("1", "--by", "eva")
        assert code == 0 and "preferred by eva" in text


async def test_an_order_that_cannot_be_made_is_refused_whole_with_the_cure(broker: Broker, tmp_path: Path) -> None:
    async with rig(broker, tmp_path, two_node_plant()) as it:
        await it.order("a", "nonsense")
        await eventually(lambda: it.refused)
        assert "no product 'nonsense'" in it.refused[0]
        await it.tick(T0)
        assert it.planner.jobs == {} and it.plans == []


async def test_a_breakdown_is_answered_and_what_ran_stays(broker: Broker, tmp_path: Path) -> None:
    async with rig(broker, tmp_path, one_stage_plant()) as it:
        await it.order("a-1", "a-2", "b-1")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        await eventually(lambda: it.plans)
        body = it.plans[-1].body
        first = min(body.plan.assignments, key=lambda one: one.start)
        broken = "oven-2" if first.machine == "oven-1" else "oven-1"
        start = (body.plan.t0 or 0) + first.start * MINUTE
        it.record(
            Started(at=start, machine=first.machine, job=first.job, op=0, plan_revision=1),
            StateChanged(at=start + MINUTE, machine=broken, state="down", repair_at=start + 20 * HOUR),
        )
        known = len(it.plans)
        await it.tick(start + 2 * MINUTE)
        await eventually(lambda: len(it.plans) > known)
        body = it.plans[-1].body
        assert body.why == f"{broken} broke down" and it.planner.out.state.replans == 1
        assert (first.job, 0) in body.started
        assert {one.machine for one in body.plan.assignments} == {first.machine}
        known = len(it.plans)
        await it.tick(start + 3 * MINUTE)
        assert len(it.plans) == known, "one breakdown, one answer"


async def test_work_that_changes_nodes_is_held_until_the_old_owner_has_answered(broker: Broker, tmp_path: Path) -> None:
    plant = one_stage_plant()
    async with rig(broker, tmp_path, plant) as it:
        # Two machines of one node never need a hold; so let the second belong to another node.
        it.split()
        await it.order("a-1", "b-1")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        await eventually(lambda: it.plans)
        before = {one.job: one.machine for one in it.plans[-1].body.plan.assignments}
        assert set(before.values()) == {"oven-1", "oven-2"}
        it.record(StateChanged(at=T0 + MINUTE, machine="oven-1", state="down", repair_at=T0 + 40 * HOUR))
        await it.tick(T0 + 2 * MINUTE)
        await eventually(lambda: it.plans[-1].body.why == "oven-1 broke down" and it.plans[-1].body.holds)
        envelope = it.plans[-1]
        (hold,) = envelope.body.holds
        assert (hold.owner, before[hold.job]) == ("oven-1-node", "oven-1")
        ack = PlanAck(revision=envelope.body.plan.revision, counter=envelope.counter, accepted=True, at=T0 + 3 * MINUTE)
        await it.bus.publish(PLAN_ACK, ack, site="s1", node="oven-2-node")
        await it.bus.publish(PLAN_ACK, ack, site="s1", node="oven-1-node")
        await eventually(lambda: not it.plans[-1].body.holds)
        assert it.plans[-1].counter > envelope.counter
        assert it.plans[-1].body.plan == envelope.body.plan


async def test_the_lease_is_renewed_while_work_is_left_and_the_plan_survives_restart_and_broker_loss(
    broker: Broker, tmp_path: Path
) -> None:
    async with rig(broker, tmp_path, two_node_plant(), lease_s=7200) as it:
        await it.order("a")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        await eventually(lambda: it.plans)
        first = it.plans[-1]
        it.record(Started(at=T0 + MINUTE, machine="press-1", job="a", op=0, plan_revision=1))
        await it.tick(T0 + 50 * MINUTE)
        assert it.plans[-1].valid_until == first.valid_until, "more than half of the lease is left"
        await it.tick(T0 + 61 * MINUTE)
        await eventually(lambda: it.plans[-1].valid_until > first.valid_until)
        assert it.plans[-1].body == first.body and it.plans[-1].counter > first.counter
        kept = it.plans[-1]
    broker.kill()
    broker.start()
    async with rig(broker, tmp_path, two_node_plant(), lease_s=7200) as it:
        await eventually(lambda: it.plans)
        assert it.plans[-1] == kept, "published again by its owner, though the broker had forgotten it"
        await it.tick(T0 + 62 * MINUTE)
        assert it.planner.out.envelope == kept, "and nothing was planned anew"


async def test_progress_is_said_and_a_finished_order_makes_room_for_the_next(broker: Broker, tmp_path: Path) -> None:
    async with rig(broker, tmp_path, two_node_plant()) as it:
        await it.order("a")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        for op, machine in enumerate(("press-1", "oven-1")):
            at = T0 + (1 + 5 * op) * HOUR
            it.record(
                Started(at=at, machine=machine, job="a", op=op, plan_revision=1),
                Finished(at=at + 4 * HOUR, machine=machine, job="a", op=op, started_at=at),
            )
        it.planner._said_at = -1e9
        await it.tick(T0 + 10 * HOUR)
        await eventually(lambda: it.progress and it.progress[-1].jobs_done == 1)
        assert (it.progress[-1].operations_done, it.progress[-1].operations) == (2, 2)
        await it.order("b", name="o2")
        await eventually(lambda: set(it.planner.jobs) == {"b"})
        await it.tick(T0 + 11 * HOUR)
        await eventually(lambda: {one.job for one in it.plans[-1].body.plan.assignments} == {"b"})
        assert (it.plans[-1].body.plan.t0 or 0) > T0 + 11 * HOUR


def test_a_begun_job_cannot_be_taken_out_of_its_order(tmp_path: Path) -> None:
    book = PlanBook(tmp_path / "p.db")
    order = Order(order="o", placed_at=T0, jobs=[OrderedJob(job=job, product="a") for job in ("x", "y")])
    assert book.place(order, begun=set())
    shorter = order.model_copy(update={"revision": 1, "jobs": order.jobs[:1]})
    with pytest.raises(BadMessage, match="'y' has begun"):
        book.place(shorter, begun={"y"})
    assert set(book.jobs()) == {"x", "y"}
    assert book.place(shorter, begun={"x"})
    assert set(book.jobs()) == {"x"}
    too_many = Order(order="big", placed_at=T0, jobs=[OrderedJob(job=f"j{n}", product="a") for n in range(1_000)])
    with pytest.raises(BadMessage, match="open jobs"):
        book.place(too_many, begun=set())
    book.close()


async def test_records_that_are_missing_or_double_stop_neither_planner_nor_ingest(
    broker: Broker, tmp_path: Path
) -> None:
    async with rig(broker, tmp_path, two_node_plant()) as it:
        await it.order("a", "b")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        late = [Started(at=T0 + 5 * HOUR, machine="oven-1", job="a", op=1, plan_revision=1)]  # of op 0 nothing is known
        twice = [
            Finished(at=T0 + 4 * HOUR, machine=name, job="b", op=0, started_at=T0) for name in ("press-1", "press-1")
        ]
        it.record(*late, *twice, StateChanged(at=T0 + 5 * HOUR, machine="press-1", state="down"))
        known = len(it.plans)
        await it.tick(T0 + 6 * HOUR)
        await eventually(lambda: len(it.plans) > known)
        begun = {tuple(key) for key in it.plans[-1].body.started}
        assert {("a", 0), ("a", 1), ("b", 0)} <= begun
        assert done_of(it.planner.plant, it.planner.jobs, it.planner.floor).operations == 2


async def test_a_finished_order_sent_again_changes_nothing_and_its_names_stay_taken(
    broker: Broker, tmp_path: Path
) -> None:
    async with rig(broker, tmp_path, one_stage_plant()) as it:
        await it.order("a-1")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        it.record(Finished(at=T0 + 5 * HOUR, machine="oven-1", job="a-1", op=0, started_at=T0 + HOUR))
        await it.tick(T0 + 6 * HOUR)
        await it.order("b-1", name="o2")
        await eventually(lambda: set(it.planner.jobs) == {"b-1"})
        await it.tick(T0 + 6 * HOUR)
        known = len(it.plans)
        await it.order("a-1")
        await it.order("a-1", name="o3")
        await eventually(lambda: it.refused)
        assert "belongs to order 'o1'" in it.refused[0]
        await it.order("a-1", "a-2", revision=1)
        await eventually(lambda: len(it.refused) == 2)
        assert "is done" in it.refused[1]
        await it.tick(T0 + 6 * HOUR + MINUTE)
        assert set(it.planner.jobs) == {"b-1"} and len(it.plans) == known


async def test_an_order_or_signal_that_cannot_be_planned_with_is_refused_and_leaves_no_trace(
    broker: Broker, tmp_path: Path
) -> None:
    async with rig(broker, tmp_path, two_node_plant()) as it:
        far = {"order": "o", "placed_at": T0, "jobs": [{"job": "a", "product": "a", "release_at": 2**53 - 1}]}
        await it.bus.publish(ORDER, payload=json.dumps(far).encode(), site="s1")
        signal = Signal(name="carbon", revision=1, unit="kg/kWh", start=T0, step_s=3600, values=[0.3])
        odd = json.loads(signal.encode()) | {"step_s": 1e30}
        await it.bus.publish(SIGNAL, payload=json.dumps(odd).encode(), site="s1", signal="carbon")
        await it.bus.publish(SIGNAL, signal, site="s1", signal="tariff")
        await eventually(lambda: len(it.refused) == 3)
        assert "ten years" in it.refused[0] and "step_s" in it.refused[1] and "topic of 'tariff'" in it.refused[2]
        assert it.planner.book.orders() == [] and it.planner.book.signals() == {}
        await it.bus.publish(SIGNAL, signal, site="s1", signal="carbon")
        await it.order("a")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        await eventually(lambda: it.plans)
        assert it.plans[-1].body.plan.objectives["carbon_kg"] > 0


async def test_an_order_can_be_withdrawn_until_it_begins(broker: Broker, tmp_path: Path) -> None:
    async with rig(broker, tmp_path, two_node_plant()) as it:
        await it.order("a")
        await it.order("b", name="o2")
        await eventually(lambda: len(it.planner.jobs) == 2)
        await it.tick(T0)
        await it.order(name="o2", revision=1)
        await eventually(lambda: set(it.planner.jobs) == {"a"})
        await it.tick(T0 + MINUTE)
        await eventually(lambda: {one.job for one in it.plans[-1].body.plan.assignments} == {"a"})
        it.record(Started(at=T0 + 2 * MINUTE, machine="press-1", job="a", op=0, plan_revision=1))
        await it.order(revision=1)
        await eventually(lambda: it.refused)
        assert "'a' has begun" in it.refused[0]


async def test_what_a_node_says_it_began_is_started_by_nobody_else(broker: Broker, tmp_path: Path) -> None:
    plant = one_stage_plant()
    async with rig(broker, tmp_path, plant) as it:
        it.split()
        await it.order("a-1", "b-1")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        await eventually(lambda: it.plans)
        mine = next(one.job for one in it.plans[-1].body.plan.assignments if one.machine == "oven-1")
        it.record(StateChanged(at=T0 + MINUTE, machine="oven-1", state="down", repair_at=T0 + 40 * HOUR))
        await it.tick(T0 + 2 * MINUTE)
        await eventually(lambda: it.plans[-1].body.holds)
        envelope = it.plans[-1]
        ack = PlanAck(
            revision=envelope.body.plan.revision,
            counter=envelope.counter,
            accepted=True,
            at=T0,  # a node whose clock is behind does not shorten the lease
            started=[(mine, 0)],
        )
        await it.bus.publish(PLAN_ACK, ack, site="s1", node="oven-1-node")
        await eventually(lambda: (mine, 0) in it.plans[-1].body.started)
        assert it.plans[-1].valid_until >= envelope.valid_until
        it.record(Started(at=T0 + 90 * SECOND, machine="oven-1", job=mine, op=0, plan_revision=1))
        await it.tick(T0 + 3 * MINUTE)
        await eventually(lambda: "had begun elsewhere" in it.plans[-1].body.why)


def test_grants_remember_every_node_that_may_still_start_an_operation() -> None:
    def plan(machine: str) -> Plan:
        return Plan(assignments=(Assignment(job="j", op=0, machine=machine, start=0, end=1),))

    known: list[Grant] = []
    for machine, until in (("a", 100), ("b", 200)):
        known = granted(known, plan(machine), str, until=until, now=50, over=set(), jobs={"j"})
    assert {(one.owner, one.until) for one in holds(known, plan("c"), str, skew_us=7)} == {("a", 107), ("b", 207)}
    assert [one.owner for one in holds(known, plan("a"), str, skew_us=0)] == ["b"], (
        "back to the first: the second holds"
    )
    assert [one.owner for one in holds(without(known, "b"), plan("c"), str, skew_us=0)] == ["a"]
    assert granted(known, Plan(), str, until=0, now=150, over=set(), jobs={"j"})[0].node == "b", "a lease has ended"
    assert granted(known, Plan(), str, until=0, now=50, over={("j", 0)}, jobs={"j"}) == []


async def test_a_restart_in_a_breakdown_is_no_new_disturbance_and_a_lost_book_is_no_older_plan(
    broker: Broker, tmp_path: Path
) -> None:
    async with rig(broker, tmp_path, one_stage_plant()) as it:
        await it.order("a-1", "b-1")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        it.record(StateChanged(at=T0 + MINUTE, machine="oven-1", state="down", repair_at=T0 + 40 * HOUR))
        await it.tick(T0 + 2 * MINUTE)
        await eventually(lambda: it.plans and it.plans[-1].body.why == "oven-1 broke down")
        seen = it.plans[-1]
    async with rig(broker, tmp_path, one_stage_plant()) as it:
        await it.tick(T0 + 3 * MINUTE)
        assert (it.planner.out.state.replans, it.planner.out.revision) == (1, seen.body.plan.revision)
    (tmp_path / "planner.db").unlink()
    async with rig(broker, tmp_path, one_stage_plant()) as it:
        await it.order("a-1", "b-1")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0 + 4 * MINUTE)
        await eventually(lambda: it.plans and it.plans[-1].counter > seen.counter)


def test_a_plant_that_scraps_is_refused_until_it_can_be_planned(tmp_path: Path) -> None:
    plant = two_node_plant().model_dump()
    plant["workshops"][0]["on_breakdown"] = "scrap"
    bus = Bus("127.0.0.1", 1, client_id="x")
    book = PlanBook(tmp_path / "p.db")
    with SqliteStore(path=tmp_path / "s.db").open() as store, pytest.raises(UsageError, match="scrap"):
        Planner(PlannerSettings(), Plant.model_validate(plant), book, store, bus, now=lambda: T0)
    book.close()


async def test_a_plan_of_somebody_else_with_a_higher_counter_is_topped(broker: Broker, tmp_path: Path) -> None:
    async with rig(broker, tmp_path, two_node_plant()) as it:
        await it.order("a")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        await eventually(lambda: it.plans)
        mine = it.plans[-1]
        foreign = mine.counter + 10**9
        refusal = PlanAck(revision=1, counter=mine.counter, accepted=False, at=T0, reason="…", held=foreign)
        await it.bus.publish(PLAN_ACK, refusal, site="s1", node="press")
        await eventually(lambda: it.plans[-1].counter > foreign)
        assert it.plans[-1].body == mine.body


async def test_what_began_is_started_by_nobody_else_though_its_record_came_before_the_nodes_answer(
    broker: Broker, tmp_path: Path
) -> None:
    async with rig(broker, tmp_path, one_stage_plant()) as it:
        it.split()
        await it.order("a-1", "b-1")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        await eventually(lambda: it.plans)
        mine = next(one.job for one in it.plans[-1].body.plan.assignments if one.machine == "oven-1")
        it.record(StateChanged(at=T0 + MINUTE, machine="oven-1", state="down", repair_at=T0 + 40 * HOUR))
        await it.tick(T0 + 2 * MINUTE)
        await eventually(lambda: it.plans[-1].body.holds)
        envelope = it.plans[-1]
        it.record(Started(at=T0 + 90 * SECOND, machine="oven-1", job=mine, op=0, plan_revision=1))
        await it.order("a-1", name="o2")  # has the records read, and is refused
        await eventually(lambda: it.refused)
        assert (mine, 0) not in envelope.body.started
        ack = PlanAck(
            revision=envelope.body.plan.revision,
            counter=envelope.counter,
            accepted=True,
            at=T0 + 2 * MINUTE,
            started=[(mine, 0)],
        )
        await it.bus.publish(PLAN_ACK, ack, site="s1", node="oven-1-node")
        await eventually(lambda: it.plans[-1].counter > envelope.counter)
        assert not it.plans[-1].body.holds and (mine, 0) in it.plans[-1].body.started
        await it.tick(T0 + 3 * MINUTE)
        await eventually(lambda: "had begun elsewhere" in it.plans[-1].body.why)


async def test_what_a_node_said_it_began_is_known_after_a_restart(broker: Broker, tmp_path: Path) -> None:
    async with rig(broker, tmp_path, one_stage_plant()) as it:
        await it.order("a-1", "b-1")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        await eventually(lambda: it.plans)
        envelope = it.plans[-1]
        ack = PlanAck(
            revision=envelope.body.plan.revision, counter=envelope.counter, accepted=True, at=T0, started=[("a-1", 0)]
        )
        await it.bus.publish(PLAN_ACK, ack, site="s1", node="ovens")
        await eventually(lambda: ("a-1", 0) in it.plans[-1].body.started)
    async with rig(broker, tmp_path, one_stage_plant()) as it:
        await it.tick(T0 + MINUTE)
        assert it.planner.out.revision == envelope.body.plan.revision, "no record of it is no interruption"


async def test_a_newer_forecast_of_what_it_plans_for_is_planned_with_but_not_too_often(
    broker: Broker, tmp_path: Path
) -> None:
    async def carbon(revision: int) -> None:
        signal = Signal(name="carbon", revision=revision, unit="kg/kWh", start=T0, step_s=3600, values=[0.3, 0.1])
        await it.bus.publish(SIGNAL, signal, site="s1", signal="carbon")
        await eventually(lambda: it.planner.book.signals().get("carbon") == signal)

    async with rig(broker, tmp_path, two_node_plant(), objectives=("makespan", "carbon")) as it:
        await carbon(0)
        await it.order("a")
        await eventually(lambda: it.planner.jobs)
        await it.tick(T0)
        revision = it.planner.out.revision
        await carbon(1)
        it.record(Started(at=T0 + MINUTE, machine="press-1", job="a", op=0, plan_revision=1))
        await it.tick(T0 + 2 * MINUTE)
        assert it.planner.out.revision == revision, "within `pause_s` of the last plan"
        await it.tick(T0 + 61 * MINUTE)
        await eventually(lambda: it.plans[-1].body.why == "signal carbon revision 1")
        assert it.plans[-1].body.signals == {"carbon": 1} and it.planner.out.state.replans == 0


def test_without_its_cluster_the_planner_plans_on_its_own_machine() -> None:
    jobs = {"a": OrderedJob(job="a", product="a")}
    problem = problem_of(two_node_plant(), jobs, Floor(), t0=T0, now=T0)
    with capture_logs() as said:
        settings = PlannerSettings(budget_s=0.2, ray="127.0.0.1:1")
        found = alternatives(problem, at_once(problem, None), None, settings, threading.Event())
    assert found and [one["event"] for one in said] == ["plan.no_cluster"]
