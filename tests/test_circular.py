"""Components: nothing is taken that is not there, nothing is lost or counted twice, whatever order facts come in."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from messages.circular import Circular, number_of, spawned
from messages.contracts import Finished, Interrupted, OrderedJob, Record, Started
from messages.inventory import Inventory, Kept
from messages.negotiation import Agenda, Held
from messages.plant import explain

SHOP: dict[str, Any] = {
    "stock": {"core": 5, "bolt": 2},
    "sources": {"worn": "strip", "rotor": ["refurbish", "buy"], "bolt": "buy-bolts"},
    "recovers": {
        "strip": {"worn": 0.6, "housing": [2, 0.5]},
        "refurbish": {"rotor": 0.7},
        "buy": {"rotor": 1.0},
        "buy-bolts": {"bolt": [3, 1.0]},
    },
    "needs": {"strip": {"core": 1}, "refurbish": {"worn": 1}, "motor": {"rotor": 1, "bolt": 2}},
    "worth": {"rotor": 40.0},
    "scrap_kg": {"worn": {"steel": 2.0}},
    "residue_kg": {"strip": {"grease": 0.5}},
}
LAST = {"strip": 0, "refurbish": 1, "buy": 0, "buy-bolts": 0, "motor": 1, "plain": 0}


def inventory(**changed: Any) -> Inventory:
    return Inventory(Circular.model_validate(SHOP | changed), LAST)


def motor(name: str = "m1", due: int | None = None) -> OrderedJob:
    return OrderedJob(job=name, product="motor", due_at=due)


def finished(job: str, op: int = 0, **recovered: int) -> Finished:
    return Finished(at=9, machine="cell", job=job, op=op, started_at=1, recovered=recovered or None)


def started(job: str) -> Started:
    return Started(at=1, machine="cell", job=job, op=0, plan_revision=0)


@pytest.mark.parametrize(
    ("changed", "cure"),
    [
        ({"needs": {"motor": {"rotr": 1}}}, "nothing brings 'rotr'; correct it"),
        ({"sources": {"rotor": "strip"}}, "'strip' does not bring it; state recovers.strip.rotor"),
        ({"sources": {"rotor": []}}, "no product; leave it out"),
        ({"recovers": {"strip": {"worn": 1.5}}}, "less than or equal to 1"),
        ({"worth": {"gold": 1.0}}, "no component 'gold'"),
        ({"stok": {}}, "did you mean 'stock'?"),
        (
            {"recovers": SHOP["recovers"] | {"melt": {"core": 1.0}}, "needs": SHOP["needs"] | {"melt": {"rotor": 1}},
             "sources": SHOP["sources"] | {"core": "melt"}},
            "it would be made of itself",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_cure(changed: dict[str, Any], cure: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Circular.model_validate(SHOP | changed)
    assert cure in explain(refused.value, Circular)


def test_a_product_the_plant_does_not_make_and_a_workshop_that_scraps_are_refused() -> None:
    circular, able = Circular.model_validate(SHOP), dict.fromkeys(LAST, ("cell",))
    circular.check(able, ())
    with pytest.raises(ValueError, match="no product 'motor'; add it"):
        circular.check({name: machines for name, machines in able.items() if name != "motor"}, ())
    with pytest.raises(ValueError, match="components with it: let it restart or resume"):
        circular.check(able, ("cell",))
    with pytest.raises(ValueError, match="rename it"):
        circular.check(able | {"motor~2": ()}, ())


@given(st.sampled_from(sorted(LAST)), st.integers(0, 10**8))
def test_a_name_tells_product_and_number_of_what_the_plant_begins_itself(product: str, number: int) -> None:
    assert number_of(spawned(product, number)) == (product, number)
    assert number_of(product) is None and number_of(f"{product}~0{number}") is None


def test_a_job_waits_for_its_components_and_what_brings_them_is_begun() -> None:
    stock = inventory()
    stock.add(motor())
    assert [job.job for job in stock.spawn()] == ["refurbish~1", "strip~1"] and stock.spawn() == []
    assert stock.may_begin(()) == {"strip~1"}
    stock.on_record(finished("strip~1", worn=1, housing=1))
    assert stock.may_begin(()) == {"refurbish~1"}
    stock.on_record(finished("refurbish~1", op=1, rotor=1))
    assert stock.may_begin(()) == {"m1"} and stock.short() == {}
    stock.on_record(started("m1"))
    assert stock.stock() == {"bolt": 0, "core": 4, "housing": 1, "rotor": 0, "worn": 0}
    told = stock.balance()
    assert (told.worth, told.recycled_kg) == (40.0, {"grease": 0.5}) and told.not_good == {"housing": 1}


def test_what_was_found_not_good_is_recycled_and_sought_again_until_no_core_is_left_then_bought() -> None:
    stock = inventory(stock={"core": 2, "bolt": 2})
    stock.add(motor())
    stock.spawn()
    stock.on_record(finished("strip~1", worn=0, housing=0))
    assert [job.job for job in stock.spawn()] == ["strip~2"] and stock.give_up(()) == []
    stock.on_record(finished("strip~2", worn=0, housing=2))
    assert stock.give_up(()) == ["refurbish~1"]
    assert [job.job for job in stock.spawn()] == ["buy~1"]
    assert stock.balance().recycled_kg == {"grease": 1.0, "steel": 4.0}
    stock.on_record(finished("buy~1", rotor=1))
    assert "m1" in stock.may_begin(())


def test_who_is_due_first_is_served_first_and_is_not_starved_by_those_who_need_less() -> None:
    stock = inventory(stock={"core": 0, "rotor": 1, "bolt": 1}, sources={"bolt": "buy-bolts"})
    stock.add(motor("late"))
    stock.add(motor("soon", due=5))
    assert [job.due_at for job in stock.spawn()] == [5] and "soon" not in stock.may_begin(())
    stock.on_record(finished("buy-bolts~1", bolt=3))
    assert stock.may_begin(()) == {"soon"}
    assert stock.may_begin({"late"}) == {"late"}, "what may have been awarded keeps its components"


def test_a_job_that_lacks_what_nothing_brings_is_said_to_and_keeps_nothing_from_others() -> None:
    stock = inventory(stock={"bolt": 2}, sources={}, needs={"motor": {"rotor": 1, "bolt": 2}, "plain": {"bolt": 2}})
    stock.add(motor(due=1))
    stock.add(OrderedJob(job="p1", product="plain"))
    assert stock.spawn() == [] and stock.may_begin(()) == {"p1"}
    assert stock.short() == {"bolt": 2, "rotor": 1}


def test_no_more_than_allowed_is_begun_at_a_time() -> None:
    stock = inventory(stock={"core": 0, "bolt": 40}, spawn_max=2, sources={"rotor": "buy"})
    for number in range(6):
        stock.add(motor(f"m{number}"))
    assert [job.job for job in stock.spawn()] == ["buy~1", "buy~2"]
    stock.on_record(finished("buy~2", rotor=1))
    assert [job.job for job in stock.spawn()] == ["buy~3"]


def test_what_another_judge_began_is_taken_over_by_its_name() -> None:
    stock = inventory()
    stock.on_agenda(agenda([held("strip~4", "started"), held("refurbish~2", "held"), held("unheard", "started")]))
    assert [job.job for job in stock.spawn()] == ["strip~4", "refurbish~2"]
    stock.on_record(finished("strip~1", worn=0))
    stock.add(motor())
    stock.add(motor("m2"))
    names = ["buy-bolts~1", "refurbish~3", "refurbish~4", "strip~5", "strip~6"]
    assert [job.job for job in stock.spawn()] == names


def own(job: str) -> OrderedJob:
    return OrderedJob(job=job, product=job.partition("~")[0])


def held(job: str, state: Any, recovered: dict[str, int] | None = None, op: int = 0) -> Held:
    return Held(
        job=job, op=op, machine="cell", counter=1, state=state, at=1, valid_until=9, recovered=recovered
    )  # fmt: skip


def agenda(awards: list[Held]) -> Agenda:
    return Agenda(term=1, session="00aa00aa", revision=1, at=1, awards=awards)


# --- the same against a floor that keeps count itself ---------------------------------------------------


@dataclass
class World:
    """What is really in the bins, and everything that was ever told of it."""

    rng: Random
    circular: Circular
    bins: Counter[str] = field(default_factory=Counter)
    doing: dict[str, tuple[str, int]] = field(default_factory=dict)
    """job → product, operations done"""
    ended: set[str] = field(default_factory=set)
    told: list[Record] = field(default_factory=list)

    def begin(self, job: str, product: str) -> None:
        assert job not in self.doing and job not in self.ended, f"{job} was begun twice"
        for part, pieces in self.circular.needs.get(product, {}).items():
            self.bins[part] -= pieces
            assert self.bins[part] >= 0, f"{part} for {job} was not there"
        self.doing[job] = (product, 0)
        self.told.append(started(job))

    def unconfirmed(self, jobs: Collection[str]) -> list[Held]:
        """What was done of these jobs and no judge knows: nodes go on saying it."""
        done = [one for one in self.told if isinstance(one, Finished) and one.job in jobs and one.job in self.ended]
        return [held(one.job, "finished", one.recovered, one.op) for one in done]

    def go_on(self) -> None:
        job = self.rng.choice(sorted(self.doing))
        product, op = self.doing[job]
        if self.rng.random() < 0.2:
            self.told.append(Interrupted(at=5, machine="cell", job=job, op=op, started_at=1))
            return
        found: dict[str, int] = {}
        if op == LAST[product]:
            for part, pieces, chance in self.circular.pieces(product):
                found[part] = sum(self.rng.random() < chance for _ in range(pieces))
            self.bins.update(found)
            del self.doing[job]
            self.ended.add(job)
        else:
            self.doing[job] = (product, op + 1)
        self.told.append(finished(job, op, **found))


def test_over_random_orders_repeats_losses_and_restarts_nothing_is_taken_twice_and_every_order_is_served() -> None:
    spawned_jobs = given_up = restarts = delegates = 0
    for seed in range(120):
        rng = Random(seed)
        circular = Circular.model_validate(SHOP | {"spawn_max": rng.randint(1, 3)})
        world = World(rng, circular, Counter(circular.stock))
        orders = [motor(f"m{number}", rng.choice([None, number])) for number in range(rng.randint(1, 5))]
        products = {job.job: job.product for job in orders}
        awarded: set[str] = set()
        agent, unheard = Inventory(circular, LAST), list(orders)
        kept, cursor, forgotten, deputy = agent.kept(), 0, set[str](), False
        for _ in range(2_000):
            heard = rng.random() < 0.1
            while world.told and (heard or rng.random() < 0.7):
                agent.on_record(rng.choice(world.told))  # any of them, in any order, however often
                heard = False
            if rng.random() < 0.02:  # a delegate begins with what it was told; of what was done it hears once more
                delegates, deputy = delegates + 1, True
                jobs = {name: agent.is_supplied(name) for name in agent.live() if agent.jobs[name].wanted}
                stock, begun = agent.left_by_others(), agent.begun()
                agent = Inventory(circular, LAST)
                agent.begin_at(stock, begun)
                for job, supplied in jobs.items():
                    agent.learn(job, done=0, supplied=supplied)
                    agent.add(next((one for one in orders if one.job == job), None) or own(job))
                held_now = [held(job, "held") for job in sorted(awarded - world.ended - set(world.doing))]
                begun_now = [held(job, "started") for job in sorted(world.doing)]
                agent.on_agenda(agenda([*held_now, *begun_now, *world.unconfirmed(jobs)]))
            if rng.random() < 0.02:  # a judge that begins again: orders and records as they come, agendas first
                restarts, deputy = restarts + 1, False
                agent = Inventory(circular, LAST)
                agent.restore(kept)
                states = dict.fromkeys(awarded - world.ended - set(world.doing), "held")
                states |= dict.fromkeys(world.doing, "started")
                agent.on_agenda(agenda([held(job, state) for job, state in sorted(states.items())]))
                since = world.told[rng.randint(0, cursor) :]
                for record in rng.sample(since, len(since)):
                    agent.on_record(record)
                for job in orders:
                    if job not in unheard and job.job not in forgotten:
                        agent.add(job)
            if rng.random() < 0.02 and not deputy:  # orders that ended are forgotten; what they taught is kept
                for record in world.told:
                    agent.on_record(record)
                forgotten = world.ended & {job.job for job in orders if job not in unheard}
                kept, cursor = Kept.model_validate_json(agent.kept().model_dump_json()), len(world.told)
            if unheard and rng.random() < 0.3:
                agent.add(unheard.pop())
            given_up += len(gone := agent.give_up(awarded))
            assert not awarded & set(gone)
            for job in agent.spawn():
                assert products.setdefault(job.job, job.product) == job.product
                spawned_jobs += 1
            possible = sorted(agent.may_begin(awarded) - awarded - world.ended)
            if possible and rng.random() < 0.5:
                awarded.add(rng.choice(possible))
            waiting = sorted(awarded - set(world.doing) - world.ended)
            if waiting and rng.random() < 0.5:
                job = rng.choice(waiting)
                world.begin(job, products[job])
            if world.doing and rng.random() < 0.5:
                world.go_on()
            if all(job.job in world.ended for job in orders):
                break
        if deputy:  # the cloud is back
            agent = Inventory(circular, LAST)
            for job in orders:
                agent.add(job)
        for record in rng.sample(world.told, len(world.told)):
            agent.on_record(record)
        balance = agent.balance()
        assert Counter(balance.in_stock) == world.bins, seed
        names = circular.components
        assert all(
            balance.first.get(n, 0) + balance.recovered.get(n, 0)
            == balance.consumed.get(n, 0) + balance.in_stock.get(n, 0)
            for n in names
        )
        assert all(job.job in world.ended for job in orders), (seed, agent.short(), sorted(world.doing))
    assert min(spawned_jobs, given_up, restarts, delegates) > 20, "the trouble this is about did happen"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_facts_come_to_the_same_in_any_order_and_however_often(data: st.DataObject) -> None:
    facts = data.draw(
        st.lists(
            st.one_of(
                st.builds(started, st.sampled_from(["m1", "strip~1", "strip~2"])),
                st.builds(finished, st.sampled_from(["strip~1", "strip~2"]), worn=st.integers(0, 1)),
                st.builds(finished, st.just("refurbish~1"), st.just(1), rotor=st.integers(0, 1)),
                st.just(motor()),
            ),
            max_size=12,
        )
    )
    again = data.draw(st.permutations(facts + data.draw(st.lists(st.sampled_from(facts or [motor()]), max_size=5))))
    one, other = inventory(), inventory()
    for agent, told in ((one, facts), (other, [*facts, *again])):
        for fact in told:
            agent.add(fact) if isinstance(fact, OrderedJob) else agent.on_record(fact)
    mixed = inventory()
    for fact in again:
        mixed.add(fact) if isinstance(fact, OrderedJob) else mixed.on_record(fact)
    assert one.balance() == other.balance()
    if set(map(repr, again)) == set(map(repr, facts)):
        assert mixed.balance() == one.balance()


def test_the_example_of_the_guide_is_sound() -> None:
    guide = (Path(__file__).parent.parent / "docs" / "guides" / "remanufacturing.md").read_text()
    found = tomllib.loads(guide.split("```toml\n")[1].split("```")[0])
    circular = Circular.model_validate(found["circular"])
    circular.check(dict.fromkeys(found["products"], ("cell",)), ())
    assert circular.sources["rotor"] == ("refurbish", "buy-rotor")
