"""A what-if that moves little: `cloud.scheduling.replan` in the place of a solver.

Its first plan is the one in force, repaired. Where that breaks a rule of the shop (a longest wait, a horizon) and half
of the budget brings nothing better, the portfolio takes over, free to move everything.
"""

from __future__ import annotations

from cloud.scheduling import KEY, Exchange, Portfolio, Result
from cloud.scheduling.replan import repair, replan
from cloud.scheduling.seam import NEAR, Strategy
from messages.judge import violations
from messages.plan import Plan
from messages.problem import Problem

STAY = 0.02
"""Moving every operation is worth so much of the objective, unless said otherwise."""
SHARE = 0.5
"""Of the budget, before the portfolio begins where no plan was found."""


class Replan(Strategy):
    """`start` is the plan in force."""

    stay: float = STAY

    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        """The plan with the least score; its bound, where one was proved, is that of the first measure."""
        before = start or Plan()
        sound = not violations(problem, repair(problem, before))
        # Of its own: what replan offers there need not keep every rule.
        own = run.part(run.goal, run.budget.seconds * (1.0 if sound else SHARE))
        best = replan(problem, before, stay=self.stay, seed=seed, exchange=own).plan
        if violations(problem, best) or not run.goal.within(problem, best.objectives):
            return Portfolio().solve(problem, seed=seed, start=start, exchange=run)
        first = run.goal.order[0]
        bound = own.bounds.get(first)
        value = best.objectives[KEY[first]]
        proved = len(run.goal.order) == 1 and bound is not None and value <= bound + NEAR * max(1.0, abs(value))
        return Result((best,), best.objectives, bound, "optimal" if proved else "feasible", run.elapsed_s)
