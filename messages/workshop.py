"""A problem as a plant with orders, so that nodes, buses and simulated floors can run it: the swarm plans by doing.

    plant, jobs = plant_of(problem, t0=0, machines_per_node=2)
    names_of(problem)                       # device and place ids of the plant → machine and store ids of the problem

Every job is an order of its own, by its own name; jobs with one route share a product. There is a workshop per node,
its machines in the order of the problem; operations are numbered from 0 within their job, in order as well. What the
swarm does not know is refused in words, all of it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose

from pydantic import ValidationError

from messages.contracts import OrderedJob
from messages.errors import UsageError
from messages.plant import Buffer, Layout, Machine, Plant, Stage, Workshop, explain
from messages.problem import Job, Operation, Problem
from messages.problem import Machine as Spec
from messages.route import topic_id

MAX_PER_NODE = 64
"""Machines of one node: as many as an offer may name."""


def plant_of(
    problem: Problem,
    *,
    t0: int = 0,
    site: str = "workshop",
    machines_per_node: int = 2,
    nodes: Mapping[str, str] | None = None,
) -> tuple[Plant, list[OrderedJob]]:
    """The plant, and its jobs as orders; UsageError where the problem states what the swarm does not know.

    t0     plant time of tick 0, µs
    nodes  machine → node; else nodes `cell-1`, `cell-2`, … of so many machines each, in the order of the problem
    """
    refuse_unknown(problem)
    try:
        return _plant(problem, t0, site, _hosts(problem, machines_per_node, nodes))
    except ValidationError as error:
        raise UsageError(f"no plant can be made of {problem.name!r}: {explain(error, Plant)}") from None


def names_of(problem: Problem) -> dict[str, str]:
    """What the plant's ids of machines and stores are called in the problem."""
    return {topic_id(name): name for name in (*problem.machine, *problem.transport.stores)}


def refuse_unknown(problem: Problem) -> None:
    """UsageError if it states what the swarm does not know."""
    machines, steps, carry = problem.machines, problem.operation.values(), problem.transport
    unknown = {
        "set-ups": any(one.setup for one in machines),
        "batches": any(one.batch > 1 for one in machines),
        "crews": bool(problem.crews),
        "a greatest wait (wait_max)": any(one.wait_max is not None for one in steps),
        "closed times or breakdowns known beforehand (give them as disturbances)": any(
            one.unavailable for one in machines
        ),
        "a store that finished parts are carried to (they leave at once)": bool(carry.finished),
        "a plan under way (`now`, `history`)": problem.now is not None,
        "machines that are warm at the begin": any(one.warm_from is not None and one.preheat for one in machines),
        "limits": bool(problem.limits) or problem.horizon is not None,
        "energy carriers other than electricity and gas": any(
            one.carrier not in ("electricity", "gas") for one in machines
        ),
        "vehicles that draw anything but electricity": bool(carry.power_kw) and carry.carrier != "electricity",
        "power that broken machines draw": any(one.power_kw.down for one in machines),
    }
    if found := [what for what, there in unknown.items() if there]:
        cure = "leave that out" if problem.logistics else "leave that out, or plan with `shoal schedule`"
        raise UsageError(f"the swarm knows no {', no '.join(found)}: {cure}")
    if not problem.machines:
        raise UsageError("a problem without machines is no workshop; give it one")
    micros = problem.tick_s * 1e6
    if micros < 1 or not isclose(micros, round(micros), rel_tol=1e-9) or problem.tick_s > 86_400:
        raise UsageError(f"tick_s: {problem.tick_s} s; the swarm takes ticks of whole microseconds, up to a day")


def _hosts(problem: Problem, machines_per_node: int, nodes: Mapping[str, str] | None) -> dict[str, str]:
    """Machine → node."""
    if not 1 <= machines_per_node <= MAX_PER_NODE:
        raise UsageError(f"machines per node: {machines_per_node}; give 1 to {MAX_PER_NODE}")
    if nodes is None:
        return {name: f"cell-{n // machines_per_node + 1}" for n, name in enumerate(problem.machine)}
    if lost := [name for name in problem.machine if name not in nodes]:
        raise UsageError(f"machine {lost[0]!r} has no node; name one for every machine")
    return {name: nodes[name] for name in problem.machine}


def _plant(problem: Problem, t0: int, site: str, hosts: Mapping[str, str]) -> tuple[Plant, list[OrderedJob]]:
    products: dict[tuple[object, ...], str] = {}
    routes: dict[str, tuple[Stage, ...]] = {}
    at: dict[str, str] = {}
    orders = []
    for job in problem.jobs:
        product = products.setdefault(_route(job), f"route-{len(products) + 1}")
        routes[product] = tuple(_stage(problem, step) for step in job.operations)
        if job.at:
            at[product] = topic_id(job.at)
        orders.append(
            OrderedJob(
                job=job.id,
                product=product,
                release_at=_micros(problem, t0, job.release) if job.release else None,
                due_at=None if job.due is None else _micros(problem, t0, job.due),
            )
        )
    plant = Plant(
        site=site,
        about=problem.name,
        tick_s=problem.tick_s,
        transport_s=0.0,
        products=tuple(routes),
        routes=routes,
        layout=_layout(problem, at),
        workshops=_workshops(problem, hosts),
    )
    return plant, orders


def _workshops(problem: Problem, hosts: Mapping[str, str]) -> tuple[Workshop, ...]:
    """One of each node, or several where its machines differ in carrier or in what a breakdown does to their work."""
    groups: dict[tuple[str, str, str], list[Spec]] = {}
    for machine in problem.machines:
        groups.setdefault((hosts[machine.id], machine.carrier, machine.on_breakdown), []).append(machine)
    named: dict[str, int] = {}
    made = []
    for (node, carrier, on_breakdown), machines in groups.items():
        named[node] = named.get(node, 0) + 1
        if len(machines) > MAX_PER_NODE:
            raise UsageError(f"node {node!r}: {len(machines)} machines, more than {MAX_PER_NODE}; spread them")
        name = node if named[node] == 1 else f"{node}-{named[node]}"
        made.append(
            Workshop.model_validate(
                {
                    "name": name,
                    "node": node,
                    "machines": tuple(_machine(problem, one) for one in machines),
                    "carrier": carrier,
                    "on_breakdown": on_breakdown,
                    "base_kw": 0.0,
                }
            )
        )
    return tuple(made)


def _machine(problem: Problem, machine: Spec) -> Machine:
    power, buffer = machine.power_kw, machine.buffer
    # To begin only when a place is left behind the machine is to begin when one place fewer is taken.
    out = buffer.out if buffer.out is None or buffer.policy == "block" else buffer.out - 1
    return Machine(
        id=topic_id(machine.id),
        work_kw=power.work,
        idle_kw=power.idle,
        preheat_kw=power.preheat,
        preheat_h=_hours(problem, machine.preheat),
        off_kw=power.off,
        buffer=Buffer(in_=buffer.in_, out=out),
    )


def _stage(problem: Problem, step: Operation) -> Stage:
    return Stage(
        name=step.name,
        time_h={topic_id(name): _hours(problem, ticks) for name, ticks in step.alternatives.items()},
        kw={topic_id(name): kw for name, kw in step.work_kw.items()},
        wait_s=step.wait_min * problem.tick_s,
    )


def _layout(problem: Problem, at: Mapping[str, str]) -> Layout | None:
    carry, tick_s = problem.transport, problem.tick_s
    if not carry.ticks and not carry.stores and not at:
        return None
    return Layout(
        ways_s={
            topic_id(before): {topic_id(after): ticks * tick_s for after, ticks in row.items()}
            for before, row in carry.ticks.items()
        },
        stores=tuple(topic_id(name) for name in carry.stores),
        at=dict(at),
        vehicles=carry.vehicles,
        home=topic_id(carry.home) if carry.home else None,
        loading_s=carry.loading * tick_s,
        unloading_s=carry.unloading * tick_s,
        power_kw=carry.power_kw,
    )


def _route(job: Job) -> tuple[object, ...]:
    """What two jobs of one product have in common."""
    return (
        job.at,
        *(
            (step.name, tuple(step.alternatives.items()), tuple(sorted(step.work_kw.items())), step.wait_min)
            for step in job.operations
        ),
    )


def _hours(problem: Problem, ticks: int) -> float:
    return ticks * problem.tick_s / 3600


def _micros(problem: Problem, t0: int, ticks: int) -> int:
    return t0 + ticks * round(problem.tick_s * 1e6)
