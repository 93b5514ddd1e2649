"""Dispatching rules: the plan a foreman makes, in milliseconds.

The next operation is chosen by the rule and goes to the machine that completes it earliest (ties: the first in the
file), behind what stands there already. FIFO takes the operation that has waited longest; the other rules
take, of those that could begin next, the one they prefer. All of the problem is known: calendars, breakdowns, set-ups,
batches, crews, transport, waits.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from pydantic import Field

from cloud.scheduling.measure import choose, packed, scratch_of
from cloud.scheduling.rules import FIFO, dispatch
from cloud.scheduling.seam import KEY, Exchange, Result, Strategy
from cloud.scheduling.shop import Draft, Shop, plan_of, shop_of
from messages.plan import Plan
from messages.problem import Problem
from messages.uncollected import uncollected

Rule = Literal["fifo", "spt", "lpt", "mwkr", "lwkr", "edd", "slack", "thrift"]


class Dispatch(Strategy):
    """A rule with earliest completion: first in first out, shortest or longest time, most or least work, due date,
    least slack, or first in first out with ties to the machine that needs less energy."""

    kind: Literal["dispatch"] = "dispatch"
    rule: Rule = Field(default="fifo", description="fifo, spt, lpt, mwkr, lwkr, edd, slack or thrift")

    @uncollected
    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        """One plan; budget, seed and start are not needed."""
        shop, names = shop_of(problem)
        draft, faults = drafted(shop, self.rule)
        if faults:
            what = (
                "a greatest wait" if problem.horizon is None else f"a greatest wait or the horizon ({problem.horizon})"
            )
            reason = f"rule {self.rule} does not keep {what} in {faults} operations; use cpsat"
            return Result(reason=reason, runtime_s=run.elapsed_s, history=tuple(run.events))
        plan = plan_of(problem, shop, names, draft, solver=self.rule, runtime_s=run.elapsed_s)
        if not run.goal.within(problem, plan.objectives):
            limits = {**problem.limits, **run.goal.limits}
            over = [name for name, limit in limits.items() if plan.objectives[KEY[name]] > limit]
            reason = f"rule {self.rule} does not keep the limit of {', '.join(over)}; use cpsat"
            return Result(reason=reason, runtime_s=run.elapsed_s, history=tuple(run.events))
        run.offer(plan)
        return Result((plan,), plan.objectives, None, "feasible", run.elapsed_s, tuple(run.events), evaluations=1)


def drafted(shop: Shop, rule: Rule) -> tuple[Draft, int]:
    """The draft of `rule`, least energy in every gap, and how many of its operations end after the horizon or begin
    after their greatest wait."""
    operations = shop.operations
    room, number = scratch_of(shop), get_args(Rule).index(rule)
    if rule == "thrift":
        number, one = FIFO, packed(shop)
    else:
        one = packed(shop._replace(alt_kw=np.zeros_like(shop.alt_kw)))  # so ties go to the first in the file
    draft = Draft(np.empty(operations, np.int32), np.empty(operations, np.int64), np.empty(operations, np.bool_))
    anywhere, order = np.full(operations, -1, np.int32), np.empty(operations, np.int32)
    faults = dispatch(one, room, number, anywhere, order, draft.machine, draft.start)
    choose(one, room, draft.machine, draft.start, np.array([1.0, 0.0, 0.0]), draft.off)
    return draft, faults
