"""What a plan costs: one sweep over everything that draws power, and over the curves of the site.

`objective` reads only the plan. Without `machine_states` the energy-minimal gap rule applies, without `moves` each job
is carried as soon as an operation ends (`messages.gaps`). Plain Python, exact: loads are piecewise constant and
curves step functions, so one sweep over their steps sums them up; 100,000 operations take a second or two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

from messages.curve import CURVES
from messages.errors import UsageError
from messages.gaps import Lines, energy_minimal_states, moves, works
from messages.plan import Measure, Plan
from messages.problem import Problem
from messages.uncollected import uncollected

KEY: dict[Measure, str] = {
    "makespan": "makespan",
    "tardiness": "tardiness",
    "energy": "energy_kwh",
    "carbon": "carbon_kg",
    "cost": "cost",
    "peak": "peak_kw",
    "ledger": "ledger_kg",
}
"""Where `objective()` keeps each measure: ticks, ticks, kWh, kg CO2e, money, kW, kg CO2e."""
ELECTRICITY = "electricity"
"""The carrier whose peak counts."""
MAX_STEPS = 2_000_000
"""Steps of one curve over the time of one plan; more are refused rather than summed for long."""
Draw = tuple[str, float, int, int]
"""(carrier, kW, start, end)"""


@uncollected
def objective(problem: Problem, plan: Plan, lines: Lines | None = None) -> dict[str, float]:
    """All measures of a plan by name; history counts like the rest. `lines`: its works, where they are known.

    makespan, tardiness   ticks; makespan from tick 0, tardiness summed over orders with a due date: the lots of one
                          order (`part_of`) are late together, by their last. A job ends with its last operation, or
                          in the store of finished parts, where there is one
    energy_kwh            machines' states, work and transport; and energy_kwh_<carrier> for every carrier
    energy_kgce           in coal equivalent
    peak_kw               greatest draw from the electric grid: base load and load less generation
    carbon_kg             kg CO2e of what is drawn from outside, where the problem states the carbon of a carrier;
                          carriers without count as clean
    cost                  likewise with the tariff, where there is one; may be negative
    exported_kwh          generation that nobody here uses, from 0 to the horizon, where both are stated
    ledger_kg             carbon_kg less what was captured and the credit for exports, where there is carbon
    """
    ends: dict[str, int] = {}
    for one in plan.assignments:
        ends[one.job] = max(one.end, ends.get(one.job, 0))
    if problem.transport.finished:
        for move in plan.moves:
            ends[move.job] = max(move.end, ends.get(move.job, 0))
    drawn: dict[str, list[Draw]] = {machine.carrier: [] for machine in problem.machines}
    for draw in draws(problem, plan, lines):
        drawn.setdefault(draw[0], []).append(draw)
    hours = problem.tick_s / 3600
    by_carrier = {
        carrier: sum(kw * (end - start) for _, kw, start, end in some) * hours for carrier, some in drawn.items()
    }
    energy_kwh = sum(by_carrier.values())
    nets = {
        carrier: _net(problem, carrier, drawn.get(carrier, []))
        for carrier in sorted({*drawn, *problem.base_load, *problem.generation})
        if carrier == ELECTRICITY or any(carrier in getattr(problem, kind) for kind in CURVES)
    }
    found = {
        "makespan": float(max(ends.values(), default=0)),
        "tardiness": float(_tardiness(problem, ends)),
        "energy_kwh": energy_kwh,
        "energy_kgce": energy_kwh * problem.kgce_per_kwh,
        **{f"energy_kwh_{carrier}": kwh for carrier, kwh in sorted(by_carrier.items())},
        "peak_kw": nets[ELECTRICITY].peak_kw if ELECTRICITY in nets else 0.0,
    }
    exported_kwh = sum(net.exported for net in nets.values()) * hours
    if problem.tariff:
        found["cost"] = sum(net.cost for net in nets.values()) * hours
    if problem.generation and problem.horizon is not None:
        found["exported_kwh"] = exported_kwh
    if problem.carbon:
        found["carbon_kg"] = sum(net.carbon for net in nets.values()) * hours
        found["ledger_kg"] = found["carbon_kg"] - problem.capture_kg - problem.export_kg_per_kwh * exported_kwh
    return found


def draws(problem: Problem, plan: Plan, lines: Lines | None = None) -> Iterator[Draw]:
    """Everything that draws power: work by the operations' own powers (a batch once, by its greatest), transport, and
    everything else by the machines' states. What draws nothing is left out."""
    for name, line in (works(problem, plan.assignments) if lines is None else lines).items():
        machine, apart = problem.machine[name], problem.apart_kw.get(name)
        carrier, usual = machine.carrier, machine.power_kw.work
        if apart is None and not usual:
            continue
        for work in line:
            kw = usual
            if apart is not None:
                kw = max([apart.get((one.job, one.op), usual) for one in work.members])
            if kw:
                yield carrier, kw, work.start, work.end
    if problem.transport.power_kw:
        for move in plan.moves or moves(problem, plan.assignments):
            yield problem.transport.carrier, problem.transport.power_kw, move.start, move.end
    for state in plan.machine_states or energy_minimal_states(problem, plan.assignments):
        machine = problem.machine[state.machine]
        if state.state != "work" and (kw := machine.power_kw.of(state.state)):
            yield machine.carrier, kw, state.start, state.end


def _tardiness(problem: Problem, ends: dict[str, int]) -> int:
    late: dict[str, int] = {}
    for job in problem.jobs:
        if job.due is not None and job.id in ends:
            order = job.part_of or f"\n{job.id}"  # no id of an order looks like that
            late[order] = max(late.get(order, 0), ends[job.id] - job.due)
    return sum(late.values())


@dataclass
class _Net:
    """What one carrier takes from outside, in kW · ticks times what its curves say; `peak_kw` is a power."""

    carbon: float = 0.0
    cost: float = 0.0
    exported: float = 0.0
    peak_kw: float = 0.0


def _net(problem: Problem, carrier: str, drawn: list[Draw]) -> _Net:
    """One sweep over every step of load and curves."""
    horizon = problem.horizon or 0
    low = min((start for _, _, start, _ in drawn), default=0)
    high = max((end for _, _, _, end in drawn), default=0)
    low, high = min(0, low), max(horizon, high)
    events: list[tuple[int, str, float]] = [(0, "base_load", 0.0), (horizon, "base_load", 0.0)]
    for kind in CURVES:
        curve = getattr(problem, kind).get(carrier)
        if curve is None:
            continue
        begin, end = (0, horizon) if kind == "base_load" else (low, high)
        if (curve.periodic or end < curve.end) and (end - begin) // curve.step > MAX_STEPS:
            raise UsageError(
                f"{kind}.{carrier}: the plan spans {(end - begin) // curve.step} of its steps, more than {MAX_STEPS}; "
                "give it a longer step"
            )
        events += [(at, kind, value) for at, _, value in curve.pieces(begin, end)]
    for _, kw, start, end in drawn:
        events += ((start, "on", kw), (end, "off", kw))
    events.sort(key=itemgetter(0))
    now = dict.fromkeys(CURVES, 0.0)
    load, running = 0.0, 0
    net = _Net()
    for place, (at, kind, value) in enumerate(events):
        if kind == "on":
            load, running = load + value, running + 1
        elif kind == "off":
            running -= 1
            load = load - value if running else 0.0  # so that rounding leaves no load behind
        else:
            now[kind] = value
        until = events[place + 1][0] if place + 1 < len(events) else high
        if until == at:
            continue
        taken = now["base_load"] + load - now["generation"]
        if taken > 0:
            net.carbon += taken * now["carbon"] * (until - at)
            net.cost += taken * now["tariff"] * (until - at)
            net.peak_kw = max(net.peak_kw, taken)
        elif 0 <= at < horizon:
            net.exported -= taken * (until - at)
    return net
