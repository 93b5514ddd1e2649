"""The default solver: rules at once, then searches and exact methods side by side, sharing what they find.

    result = Portfolio().solve(problem, goal=Goal(("makespan", "energy")), budget=Budget(10, workers=2))

Lanes run in threads (compiled kernels and CP-SAT hold no GIL); a lane is a row of solvers, each with its share of the
time. All meet on one exchange: a search starts from the best plan of all, CP-SAT takes it as hint and cut, and when
plan and bound meet everybody stops. Who takes part follows from the goal and from what the problem has
(`cloud.scheduling.cast`). With `budget.evaluations` only searches take part, one after another, so that one seed gives
one result.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cloud.scheduling.cast import Part, lanes, rules_for
from cloud.scheduling.dispatch import Dispatch
from cloud.scheduling.seam import KEY, NEAR, Exchange, Result, Strategy, nothing_to_do
from messages.errors import BrokenInvariant
from messages.judge import objective, violations
from messages.openjobs import open_jobs
from messages.plan import Plan, Status
from messages.problem import Problem

LOOK_S = 0.05
"""The main thread looks this often whether everybody has ended."""
LEAST_S = 0.02
"""A solver is not begun for less than this."""


class Portfolio(Strategy):
    """Whatever is good at this problem and goal, together."""

    kind: Literal["portfolio"] = "portfolio"

    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        """The best plan of all, or the front of all."""
        if not open_jobs(problem):
            return nothing_to_do(problem, run, "portfolio")
        _first(problem, run, start)
        told = _Told()
        row = lanes(problem, run.goal, run.budget, begun=run.best is not None)
        if run.budget.evaluations is None:
            _side_by_side(problem, run, row, seed, told)
        else:
            _one_after_another(problem, run, row, seed, told)
        return _result(run, told)


@dataclass
class _Told:
    """What the parts came back with."""

    results: list[Result] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    @property
    def optimal(self) -> bool:
        return any(one.status == "optimal" for one in self.results)

    @property
    def infeasible(self) -> str | None:
        return next((one.reason for one in self.results if one.status == "infeasible"), None)


def _first(problem: Problem, run: Exchange, start: Plan | None) -> None:
    """Plans to begin with: `start` where it is a plan of this problem, and the rules'."""
    if start is not None and start.problem_sha256 in ("", problem.sha256) and not violations(problem, start):
        own = objective(problem, start)
        run.offer(start.model_copy(update={"objectives": own, "problem_sha256": problem.sha256}))
    for rule in rules_for(problem):
        if run.over and run.best is not None:
            return
        Dispatch(rule=rule).solve(problem, exchange=run)


def _side_by_side(problem: Problem, run: Exchange, row: Sequence[Sequence[Part]], seed: int, told: _Told) -> None:
    threads = [
        threading.Thread(target=_lane, args=(problem, run, lane, seed + 1000 * k, told), name=f"lane-{k}")
        for k, lane in enumerate(row)
    ]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(LOOK_S)
    except BaseException:
        run.finish()  # nobody waits for what the lanes find any more
        raise
    finally:  # native code that runs when the interpreter ends takes the process down with it
        for thread in threads:
            thread.join()
    if told.errors:
        raise told.errors[0]


def _lane(problem: Problem, run: Exchange, lane: Sequence[Part], seed: int, told: _Told) -> None:
    """One thread: its parts in order; what a part leaves of its share the next ones have."""
    try:
        for position, part in enumerate(lane):
            later = sum(one.share for one in lane[position:])
            seconds = run.left_s * part.share / later
            if seconds < LEAST_S:
                return
            own = run.slice(seconds, workers=part.workers)
            result = part.solver.solve(problem, seed=seed + position, start=run.best, exchange=own)
            told.results.append(result)
            for plan in result.plans:
                run.offer(plan)
            if _settled(run, result):
                run.finish()
                return
    except BaseException as error:
        told.errors.append(error)  # raised again by the main thread
        run.finish()


def _one_after_another(problem: Problem, run: Exchange, row: Sequence[Sequence[Part]], seed: int, told: _Told) -> None:
    """Searches only, each with its share of the evaluations."""
    parts = [part for lane in row for part in lane if part.counts]
    left = run.budget.evaluations or 0
    for position, part in enumerate(parts):
        own = run.slice(run.left_s, workers=1)
        share = left // (len(parts) - position)
        own.budget = replace(own.budget, evaluations=share)
        result = part.solver.solve(problem, seed=seed + position, start=run.best, exchange=own)
        told.results.append(result)
        left -= share
        for plan in result.plans:
            run.offer(plan)
        if _settled(run, result):
            return


def _settled(run: Exchange, result: Result) -> bool:
    """Whether nothing is left to search. That there is no plan may be meant of a part of the front: one is there."""
    return result.status == "optimal" or (result.status == "infeasible" and run.best is None)


def _result(run: Exchange, told: _Told) -> Result:
    took, events = run.elapsed_s, tuple(run.events)
    evaluations = sum(one.evaluations for one in told.results)
    first = run.goal.order[0]
    bound = run.bounds.get(first) if run.goal.weights is None else None
    if run.best is None:
        reason = told.infeasible or "; ".join(dict.fromkeys(one.reason for one in told.results if one.reason))
        status: Status = "infeasible" if told.infeasible is not None else "unknown"
        reason = reason or f"no plan within the limits was found in {run.budget.seconds:g} s; allow more time"
        return Result((), {}, bound, status, took, events, reason, evaluations)
    reached = run.best.objectives[KEY[first]]
    if bound is not None and _just_above(reached) < bound:
        raise BrokenInvariant(f"{run.best.solver} found {first} {reached:g}, below the bound {bound:g} that was proved")
    met = len(run.goal.order) == 1 and bound is not None and reached <= _just_above(bound)
    status = "optimal" if told.optimal or met else "feasible"
    reason = "; ".join(
        f"{solver} made a plan that cannot be carried out: {fault}" for solver, fault in run.faults.items()
    )
    if run.goal.front and status != "optimal":
        reason = "; ".join(filter(None, [reason, *_unproved(run, told)]))
    facts = {"bound": bound, "bound_of": first, "status": status, "runtime_s": round(took, 3)}
    found = run.front if run.goal.front else [run.best]
    plans = tuple(plan.model_copy(update=facts) for plan in found)
    return Result(plans, plans[0].objectives, bound, status, took, events, reason, evaluations)


def _unproved(run: Exchange, told: _Told) -> list[str]:
    """What is not known of a front that was not proved."""
    first, found = run.goal.order[0], run.front
    bound = run.bounds.get(first)
    ends = sum(bound is not None and plan.objectives[KEY[first]] <= _just_above(bound) for plan in found[:1])
    many = f"{len(found)} plan{'s' * (len(found) != 1)}"
    said = [f"a front of {many}, {ends or 'none'} of them proved: there may be better ones and ones between"]
    pair = len(run.goal.order) == 2  # of more measures nothing is provable, so what a pair misses is no news
    notes = (one.reason for one in told.results if one.plans and one.reason and pair)
    return [*said, *dict.fromkeys(notes)]


def _just_above(bound: float) -> float:
    return bound + NEAR * max(1.0, abs(bound))
