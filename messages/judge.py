"""What a plan costs, and whether it can be carried out: both apart from every solver.

    objective(problem, plan)     {"makespan": 54.0, "tardiness": 0.0, "energy_kwh": 31780.0, …}
    violations(problem, plan)    [] when nothing speaks against it

`objective` reads only the plan. Without `machine_states` the energy-minimal gap rule applies (`messages.gaps`).
"""

from __future__ import annotations

from collections.abc import Iterator

from messages.gaps import energy_minimal_states
from messages.plan import Plan
from messages.problem import Problem
from messages.violations import violations

__all__ = ["energy_minimal_states", "objective", "violations"]


def objective(problem: Problem, plan: Plan) -> dict[str, float]:
    """All measures of a plan by name; history counts like the rest.

    makespan, tardiness   ticks; makespan from tick 0, tardiness summed over jobs with a due date
    energy_kwh            and energy_kwh_<carrier> for every carrier of a machine
    energy_kgce           in coal equivalent
    carbon_kg             kg CO2e, where the problem states the carbon of a carrier; carriers without count as clean
    """
    ends: dict[str, int] = {}
    for one in plan.assignments:
        ends[one.job] = max(one.end, ends.get(one.job, 0))
    tardiness = sum(max(0, ends[job.id] - job.due) for job in problem.jobs if job.due is not None and job.id in ends)
    drawn = list(draws(problem, plan))
    hours = problem.tick_s / 3600
    by_carrier = {machine.carrier: 0.0 for machine in problem.machines}
    for carrier, kw, start, end in drawn:
        by_carrier[carrier] += kw * (end - start) * hours
    energy_kwh = sum(by_carrier.values())
    carbon_kg = sum(
        kw * hours * problem.carbon[carrier].over(start, end)
        for carrier, kw, start, end in drawn
        if carrier in problem.carbon
    )
    return {
        "makespan": float(max(ends.values(), default=0)),
        "tardiness": float(tardiness),
        "energy_kwh": energy_kwh,
        "energy_kgce": energy_kwh * problem.kgce_per_kwh,
        **{f"energy_kwh_{carrier}": kwh for carrier, kwh in sorted(by_carrier.items())},
        **({"carbon_kg": carbon_kg} if problem.carbon else {}),
    }


def draws(problem: Problem, plan: Plan) -> Iterator[tuple[str, float, int, int]]:
    """(carrier, kW, start, end): work by the operations' own powers, everything else by the machines' states."""
    for one in plan.assignments:
        kw = problem.work_kw(one.job, one.op, one.machine)
        yield problem.machine[one.machine].carrier, kw, one.start, one.end
    for state in plan.machine_states or energy_minimal_states(problem, plan.assignments):
        machine = problem.machine[state.machine]
        if state.state != "work":
            yield machine.carrier, machine.power_kw.of(state.state), state.start, state.end
