"""Plans of the whole, made beside the judge: a beginning for its thoughts whenever orders have changed.

    ahead = Ahead(agent, seconds=5, seed=1, now=clock.now); ahead.ordered.set(); await ahead.run()

Solvers think in a thread; awards do not wait for them. A plan is advice: where solvers refuse what is open, or find no
plan for it, that is counted and said once, and the judge begins with its rules. Any other failure is a defect of ours
and ends the judge's process, which says so.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from messages.dispatch.agent import Dispatcher
from messages.errors import ShoalError

log = structlog.get_logger("judge")


@dataclass
class Ahead:
    """One judge's. `seconds`: of a solver, for each plan."""

    agent: Dispatcher
    seconds: float
    seed: int
    now: Callable[[], int]
    counts: Counter[str] = field(default_factory=Counter)
    ordered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: what is to be done has changed."""

    async def run(self) -> None:
        """Until cancelled."""
        from cloud.prior import prior  # solvers take seconds to load
        from cloud.scheduling import Budget

        said = ""
        while True:
            await self.ordered.wait()
            self.ordered.clear()
            state = self.agent.outlook(self.now())
            plan = partial(prior, state, Budget(self.seconds), seed=self.seed)
            try:
                self.agent.prior = await asyncio.to_thread(plan)
            except (ShoalError, ValueError) as error:
                self.counts["not_planned_ahead"] += 1
                if str(error) != said:
                    said = str(error)
                    log.warning("judge.not_planned_ahead", reason=said[:500])
                continue
            self.counts["planned_ahead"] += 1
            log.info("judge.planned_ahead", operations=len(self.agent.prior))
