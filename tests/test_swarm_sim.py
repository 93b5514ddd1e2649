"""The swarm in simulation: agents do what the judge foresees, absorb what befalls them, and are found out if not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from messages.clock import SECOND
from messages.contracts import MachineEvent, OrderedJob
from messages.dispatch.decode import Weights
from messages.dispatch.judge import ByRule
from messages.dispatch.shop import shop_from
from messages.dispatch.simulate import Course
from messages.dispatch.simulate import simulate as foreseen
from messages.dispatch.tenders import Tenders
from messages.dispatch.workpieces import Workpieces
from messages.errors import BrokenInvariant, UsageError
from messages.instances import load_problem
from messages.plant import load_plant
from messages.workshop import plant_of
from shoal.swarm.chronicle import Chronicle
from shoal.swarm.disturb import Happening, Scenario, load_scenario, parse
from shoal.swarm.outcome import Carry, Outcome, Run, Swarm
from shoal.swarm.sim import simulate
from shoal.swarm.world import DELIVERY, JUDGE, Alarm, Wire, World

REPO = Path(__file__).parent.parent
CERAMIC = load_plant(REPO / "firmware_sim" / "plants" / "ceramic.toml")
BATCHES = tuple(OrderedJob(job=name, product=name) for name in CERAMIC.products)
FIFO = ByRule(kind="fifo")
HOUR_S = 3600.0


def workshop(reading: str, kind: str = "fifo", **more: Any) -> Swarm:
    """The published cell."""
    plant, jobs = plant_of(load_problem(REPO / "examples" / f"workshop_{reading}.json"), t0=Swarm.start)
    return Swarm(plant, tuple(jobs), ByRule.model_validate({"kind": kind}), **more)


def ceramic(seed: int, disturb: str, batches: int = 5) -> Swarm:
    """The ceramic plant, with so many batches."""
    jobs = BATCHES[:batches]
    scenario = parse(disturb, CERAMIC, jobs, span_s=20 * HOUR_S, seed=seed)
    return Swarm(CERAMIC, jobs, FIFO, scenario=scenario, seed=seed)


# --- undisturbed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", ["vehicles", "lag", "occupying"])
@pytest.mark.parametrize("kind", ["fifo", "sjf", "ljf", "eq11", "greedy"])
def test_undisturbed_the_agents_make_what_the_rule_makes_without_agents(reading: str, kind: str) -> None:
    problem = load_problem(REPO / "examples" / f"workshop_{reading}.json")
    shop = shop_from(problem)
    pure = foreseen(Course(shop, shop), ByRule.model_validate({"kind": kind})).measures
    outcome = simulate(workshop(reading, kind))
    assert outcome.holds, outcome.faults
    assert outcome.figures.makespan_s == pytest.approx(pure.makespan * problem.tick_s)
    assert outcome.figures.utilisation == pytest.approx(pure.utilisation)


def test_an_award_takes_an_offer_a_bid_an_award_and_an_acknowledgement() -> None:
    outcome = simulate(workshop("lag"))
    assert outcome.messages["award"] == outcome.messages["ack"] == 28
    assert outcome.messages["offer"] == outcome.messages["bid"] >= 28  # bids grow old: who waits is asked again
    assert outcome.messages_per_award == sum(outcome.messages[kind] for kind in ("offer", "bid", "award", "ack")) / 28


def test_the_same_seed_gives_the_same_course() -> None:
    def course(seed: int) -> Outcome:
        swarm = workshop("vehicles", seed=seed)
        return simulate(replace(swarm, scenario=parse("storm", swarm.plant, swarm.jobs, span_s=480, seed=seed)))

    first, again, other = course(3), course(3), course(4)
    assert (first.runs, first.troubles, first.messages) == (again.runs, again.troubles, again.messages)
    assert first.runs != other.runs


# --- disturbed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_in_a_storm_no_task_is_lost_none_done_twice_and_all_histories_are_complete(seed: int) -> None:
    outcome = simulate(ceramic(seed, "storm,lose:0.1"))
    assert outcome.holds, outcome.faults
    assert all("cancelled" in why for why in outcome.excused.values()), outcome.excused
    assert all(one.answer for one in outcome.troubles)


@pytest.mark.parametrize("seed", range(2))
def test_in_a_storm_vehicles_and_places_are_where_they_may_be(seed: int) -> None:
    swarm = workshop("vehicles")
    scenario = parse("storm", swarm.plant, swarm.jobs, span_s=480, seed=seed)
    outcome = simulate(replace(swarm, scenario=scenario, seed=seed))
    assert outcome.holds, outcome.faults
    assert len(outcome.carries) >= 10


def test_messages_slower_than_the_work_cost_time_and_do_not_starve_the_plant() -> None:
    quiet = simulate(workshop("lag"))
    slow = simulate(workshop("lag", scenario=Scenario(delay=5.0)))
    assert slow.holds, slow.faults
    assert slow.figures.makespan_s < 2 * quiet.figures.makespan_s
    assert slow.messages["offer"] < 10 * quiet.messages["offer"]


def test_interrupted_work_is_done_once_in_the_end() -> None:
    quiet = simulate(ceramic(1, ""))
    cut = [run for run in quiet.runs if run.op == 3][:1]
    happenings = tuple(
        Happening(kind="breakdown", machine=run.machine, at_s=(run.start - Swarm.start) / SECOND + 60, lasts_s=3600)
        for run in cut
    )
    outcome = simulate(replace(ceramic(1, ""), scenario=Scenario(happenings=happenings)))
    assert outcome.holds, outcome.faults
    assert [(run.job, run.op) for run in outcome.runs if run.interrupted] == [(cut[0].job, 3)]
    assert f"{cut[0].job} op 3 was interrupted, done" in outcome.troubles[0].answer


def test_a_cancelled_order_is_reported_and_a_rush_order_is_done() -> None:
    happenings = (
        Happening(kind="cancel", job="b03", at_s=600),
        Happening(kind="rush", job="urgent", product="b01", at_s=1200, lasts_s=30 * HOUR_S),
    )
    outcome = simulate(replace(ceramic(1, ""), scenario=Scenario(happenings=happenings)))
    assert outcome.holds, outcome.faults
    assert {job for job, _ in outcome.excused} == {"b03"}
    assert sum(run.job == "urgent" for run in outcome.runs) == 4
    assert "before it was due" in outcome.troubles[1].answer


def test_a_judge_that_comes_back_finds_what_was_awarded_and_awards_none_of_it_again() -> None:
    happenings = tuple(Happening(kind="judge", at_s=hours * HOUR_S, lasts_s=900) for hours in (1, 4, 8))
    quiet = simulate(ceramic(1, ""))
    outcome = simulate(replace(ceramic(1, ""), scenario=Scenario(happenings=happenings)))
    assert outcome.holds, outcome.faults
    assert outcome.messages["award"] == quiet.messages["award"]
    assert [one.answer.split(" with ")[1] for one in outcome.troubles] == ["term 2", "term 3", "term 4"]


# --- the check ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        pytest.param(Workpieces, "_step", lambda *_: None, id="a workpiece forgets"),
        pytest.param(Tenders, "on_bid", lambda *_: None, id="a judge does not listen"),
        pytest.param(Chronicle, "on_event", lambda *_: None, id="nothing is seen to be done"),
    ],
)
def test_the_check_finds_a_swarm_that_breaks_its_word(
    owner: type, name: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, fault)
    assert not simulate(ceramic(1, "", batches=3), most_events=20_000).holds


def test_the_check_says_what_was_not_done_what_was_done_twice_and_what_nobody_remembers() -> None:
    from shoal.swarm.check import check

    swarm = workshop("vehicles")
    jobs = swarm.jobs[:1]
    chronicle = Chronicle(swarm.plant, jobs)
    lathe, centre = Run("lathe-1", "T1", 1, 20, 30), Run("centre-1", "T1", 0, 0, 10)
    chronicle.runs = [centre, lathe, replace(lathe, start=40, end=50)]
    found = check(swarm.plant, jobs, chronicle, excused={}, history={}, waiting=(), longest_s=1e-5, start=0, ended=100)
    assert any("T1 op 1 was done 2 times" in fault for fault in found)
    assert any("T1 op 2 was not done" in fault for fault in found)
    assert any("history of T1: op 0 is missing" in fault for fault in found)
    assert any("nothing moved" in fault for fault in found)


def test_the_check_finds_vehicles_in_two_places_and_parts_without_a_place() -> None:
    from shoal.swarm.check import check

    swarm = workshop("vehicles")
    chronicle = Chronicle(swarm.plant, swarm.jobs)
    home, layout = swarm.plant.layout.home, swarm.plant.layout  # type: ignore[union-attr]
    assert layout is not None and home is not None
    raw = layout.stores[0] if layout.stores[0] != home else layout.stores[1]
    chronicle.carries = [Carry(0, "T1", raw, "lathe-1", 0, 1, 2), Carry(0, "T2", raw, "lathe-1", 2, 3, 4)]
    for number in range(3):
        event = MachineEvent(at=number, kind="part_identified", job=f"T{number + 1}", op=0)
        chronicle.on_event("lathe-1", event)
    excused = {(job.job, op): "not wanted" for job in swarm.jobs for op in range(4)}
    found = check(
        swarm.plant, swarm.jobs, chronicle, excused=excused, history={}, waiting=(), longest_s=1e9, start=0, ended=9
    )
    assert any("before it could be there" in fault for fault in found)
    assert any("faster than it can drive" in fault for fault in found)
    assert any("3 parts waited before lathe-1" in fault for fault in found)


def test_a_part_put_aside_or_handed_on_in_place_is_no_longer_behind_its_machine() -> None:
    swarm = workshop("vehicles")
    chronicle = Chronicle(swarm.plant, swarm.jobs)
    run, by = Run("lathe-1", "T1", 1, 10, 20), Run("lathe-1", "T2", 1, 40, 50)
    assert chronicle.gone_at(run, by) == by.end, "nobody said that it left"
    chronicle.on_event("lathe-1", MachineEvent(at=30, kind="part_identified", job="T1", op=2))
    chronicle.carries = [Carry(0, "T1", "lathe-1", "engraver-1", 60, 60, 70)]
    assert chronicle.gone_at(run, by) == 30, "the way of a later operation is another"
    chronicle.on_event("lathe-1", MachineEvent(at=25, kind="part_left", job="T1", op=1))
    assert chronicle.gone_at(run, by) == 25


def test_a_part_has_gone_in_when_it_went_after_it_came() -> None:
    swarm = workshop("vehicles")
    chronicle = Chronicle(swarm.plant, swarm.jobs)
    steps = [("part_removed", 5), ("part_identified", 9), ("started", 10), ("interrupted", 12), ("started", 30)]
    for kind, at in steps:
        event = MachineEvent.model_validate({"at": at, "kind": kind, "job": "T1", "op": 0})
        chronicle.on_event("lathe-1", event)
    assert chronicle.went_in["lathe-1"]["T1", 0] == 10


# --- world and wire -------------------------------------------------------------------------------


def test_at_one_instant_messages_come_before_the_judge() -> None:
    world, seen = World(0), list[str]()
    world.at(5, JUDGE, lambda: seen.append("judge"))
    world.at(5, DELIVERY, lambda: seen.append("message"))
    world.at(1, JUDGE, lambda: seen.append("earlier"))
    while world.step():
        pass
    assert seen == ["earlier", "message", "judge"]
    assert world.now == 5


def test_an_alarm_rings_once_at_the_time_it_was_last_set_to() -> None:
    world, rang = World(0), list[int]()
    alarm = Alarm(world, JUDGE, lambda: rang.append(world.now))
    for when in (7, 3, 9, 3, 4, None, 6):
        alarm.set(when)
    while world.step():
        pass
    assert rang == [6]


def test_who_talks_to_himself_is_stopped() -> None:
    world = World(0)

    def again() -> None:
        world.at(world.now, DELIVERY, again)

    again()
    with pytest.raises(BrokenInvariant, match="at one instant"):
        while world.step():
            pass


def test_a_bad_wire_loses_doubles_and_lets_be_overtaken_at_its_rates() -> None:
    world, came = World(0), list[int]()
    wire = Wire(world, Scenario(lose=0.2, double=0.3, delay=1.0, reorder=0.3), random.Random(1))
    for number in range(2_000):
        wire.send("bid", came.append, number)
    while world.step():
        pass
    assert 300 < wire.lost < 500 and 400 < wire.doubled < 560 and 500 < wire.overtaken < 900
    assert len(came) == 2_000 - wire.lost + wire.doubled
    assert came != sorted(came)


# --- scenarios ------------------------------------------------------------------------------------


def test_disturbances_are_counted_or_rated_and_drawn_from_the_seed() -> None:
    found = parse("breakdown:3,node,lose:0.2,double", CERAMIC, BATCHES, span_s=1000, seed=1)
    assert [one.kind for one in found.happenings].count("breakdown") == 3
    assert (found.lose, found.double, found.delay) == (0.2, 0.1, 0.0)
    assert found == parse("breakdown:3,node,lose:0.2,double", CERAMIC, BATCHES, span_s=1000, seed=1)
    assert found != parse("breakdown:3,node,lose:0.2,double", CERAMIC, BATCHES, span_s=1000, seed=2)
    assert {one.kind for one in parse("storm", CERAMIC, BATCHES, span_s=1000, seed=1).happenings} == {
        "breakdown", "rush", "cancel", "node", "judge", "rival", "cloud",
    }  # fmt: skip


def test_of_two_storms_at_once_each_takes_its_share_of_messages_too() -> None:
    one, two = (parse(text, CERAMIC, BATCHES, span_s=1000, seed=1) for text in ("storm", "storm:2"))
    assert (one.lose, one.double, one.reorder, one.delay) == (0.1, 0.1, 0.1, 2.0)
    assert (two.lose, two.double, two.reorder, two.delay) == (0.19, 0.19, 0.19, 4.0)
    assert len(two.happenings) == 2 * len(one.happenings)
    assert parse("storm:100", CERAMIC, BATCHES, span_s=1000, seed=1).lose < 1


@pytest.mark.parametrize("seed", range(5))
def test_what_is_drawn_could_stand_in_a_file(seed: int, tmp_path: Path) -> None:
    drawn = parse("storm:3,rush:4", CERAMIC, BATCHES, span_s=1000, seed=seed)
    (tmp_path / "drawn.json").write_text(drawn.model_dump_json(exclude_none=True))
    assert load_scenario(tmp_path / "drawn.json", CERAMIC, BATCHES) == drawn


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("breakdwon", "did you mean 'breakdown'"),
        ("node:many", "comes a number"),
        ("lose:2", "lose"),
        ("node:5000", "at most 1000"),
        ("nowhere.toml", "cannot be read"),
    ],
)
def test_a_wrong_word_is_answered_with_its_cure(text: str, cure: str) -> None:
    with pytest.raises(UsageError, match=cure):
        parse(text, CERAMIC, BATCHES, span_s=1000, seed=1)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ('[[happenings]]\nkind="breakdown"\nat_s=5', "needs `machine`"),
        ('[[happenings]]\nkind="breakdown"\nat_s=5\nmachine="kiln"', "no machine 'kiln'"),
        ('[[happenings]]\nkind="node"\nat_s=5\nnode="fire"', "did you mean 'firing'"),
        ('[[happenings]]\nkind="cancel"\nat_s=5\njob="x"', "no order 'x'"),
        ('[[happenings]]\nkind="rush"\nat_s=5\njob="x"', "no product 'x'"),
        ('[[happenings]]\nkind="rush"\nat_s=5\njob="b01"', "a name is used once"),
        ('[[happenings]]\nkind="quake"\nat_s=5', "happening 1: .*no such disturbance"),
        ("[[happenings", "bad.toml"),
    ],
)
def test_a_wrong_scenario_file_is_answered_with_its_cure(text: str, cure: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=cure):
        load_scenario(file, CERAMIC, BATCHES)


def test_a_scenario_file_is_played_in_order_of_time(tmp_path: Path) -> None:
    file = tmp_path / "day.toml"
    file.write_text(
        'lose = 0.05\n[[happenings]]\nkind = "node"\nnode = "firing"\nat_s = 7200\nlasts_s = 600\n'
        '[[happenings]]\nkind = "breakdown"\nmachine = "forming-1"\nat_s = 3600\nlasts_s = 900\n'
    )
    found = load_scenario(file, CERAMIC, BATCHES)
    assert [one.kind for one in found.happenings] == ["breakdown", "node"]
    outcome = simulate(replace(ceramic(2, "", batches=4), scenario=found))
    assert outcome.holds, outcome.faults
    assert [(one.at - Swarm.start) / SECOND for one in outcome.troubles] == [3600, 7200]


def test_what_counts_is_handed_to_the_judge() -> None:
    assert simulate(workshop("occupying", "greedy", weights=Weights(makespan=0, waiting=1))).holds


def test_without_the_cloud_a_node_judges_and_the_cloud_takes_over_again() -> None:
    cut = Scenario(happenings=(Happening(kind="cloud", at_s=4 * HOUR_S, lasts_s=5 * HOUR_S),))
    quiet, alone = simulate(ceramic(1, "")), replace(ceramic(1, ""), scenario=cut)
    stood_in, without = simulate(alone), simulate(replace(alone, delegates=()))
    assert stood_in.holds and without.holds, (stood_in.faults, without.faults)
    assert "forming judged" in stood_in.troubles[0].answer
    assert "nobody judged" in without.troubles[0].answer
    assert stood_in.figures.makespan_s < without.figures.makespan_s
    lost_s = stood_in.figures.makespan_s - quiet.figures.makespan_s
    assert lost_s <= 0.5 * 5 * HOUR_S, "production goes on: less is lost than half the time without cloud"


def test_a_cloud_that_is_away_for_longer_than_anything_could_wait_is_waited_for() -> None:
    cut = Scenario(happenings=(Happening(kind="cloud", at_s=4 * HOUR_S, lasts_s=40 * HOUR_S),))
    outcome = simulate(replace(ceramic(1, ""), scenario=cut, delegates=()))
    assert outcome.holds, outcome.faults
    assert outcome.figures.makespan_s > 44 * HOUR_S
